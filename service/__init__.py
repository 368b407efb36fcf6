"""The only place where things meet: HTTP, database, jobs. Nobody imports it."""
