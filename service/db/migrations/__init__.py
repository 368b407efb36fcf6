"""Alembic's folder: `env` and `versions`. A new migration: `alembic revision --autogenerate`, see docs."""
