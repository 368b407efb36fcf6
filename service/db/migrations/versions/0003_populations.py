"""Populations: archs of a supernet that were evaluated on images of the server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "populations",
        sa.Column("population_id", sa.String(32), nullable=False),
        sa.Column("supernet_id", sa.String(64), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("images", sa.String(64), nullable=False),
        sa.Column("archs", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("artifact_key", sa.String(), nullable=True),
        sa.Column("summary", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["population_id"], ["jobs.job_id"], name=op.f("fk_populations_population_id_jobs")),
        sa.ForeignKeyConstraint(
            ["supernet_id"],
            ["supernets.supernet_id"],
            name=op.f("fk_populations_supernet_id_supernets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("population_id", name=op.f("pk_populations")),
    )
    op.create_index(op.f("ix_populations_created_at"), "populations", ["created_at"])
    op.create_index(op.f("ix_populations_supernet_id"), "populations", ["supernet_id"])


def downgrade() -> None:
    op.drop_table("populations")
