"""The database: engine and sessions, models, queries, migrations. Only `engine.session_scope` commits."""
