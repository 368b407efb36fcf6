"""Attempts a stopping worker gave back; tables that came with the package."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("given_back", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "latency_table_versions", sa.Column("shipped", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    # The only table that came with a version before this one, and it was registered before any user could call.
    tables = sa.table(
        "latency_table_versions",
        sa.column("device_id", sa.String),
        sa.column("space", sa.String),
        sa.column("version", sa.Integer),
        sa.column("shipped", sa.Boolean),
    )
    op.execute(
        tables.update()
        .where(
            tables.c.device_id == "intel-xeon-processor-2c-1t",
            tables.c.space == "cifar_mbv3",
            tables.c.version == 1,
        )
        .values(shipped=True)
    )


def downgrade() -> None:
    op.drop_column("latency_table_versions", "shipped")
    op.drop_column("jobs", "given_back")
