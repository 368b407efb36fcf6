"""Doors for the files of the once-for-all reference project."""
