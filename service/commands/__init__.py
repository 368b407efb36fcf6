"""The sub-commands of `tailor`, by subject. Each imports what it runs when it runs."""
