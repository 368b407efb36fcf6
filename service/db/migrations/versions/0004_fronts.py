"""Fronts: the Pareto front of a device and a supernet, traced once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fronts",
        sa.Column("front_id", sa.String(32), nullable=False),
        sa.Column("supernet_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("table_version", sa.Integer(), nullable=False),
        sa.Column("rows_sha256", sa.String(64), nullable=False),
        sa.Column("predictor_sha256", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["front_id"], ["jobs.job_id"], name=op.f("fk_fronts_front_id_jobs")),
        sa.ForeignKeyConstraint(
            ["supernet_id"], ["supernets.supernet_id"], name=op.f("fk_fronts_supernet_id_supernets"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name=op.f("fk_fronts_device_id_devices"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("front_id", name=op.f("pk_fronts")),
    )
    for column in ("created_at", "device_id", "supernet_id"):
        op.create_index(op.f(f"ix_fronts_{column}"), "fronts", [column])


def downgrade() -> None:
    op.drop_table("fronts")
