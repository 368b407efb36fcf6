"""What Alembic runs. `service.db.migrate` hands in the connection; only our own tables are looked at."""

from alembic import context

from service.db.migrations.scope import include_name
from service.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_name=include_name,
    render_as_batch=True,  # SQLite cannot alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
