"""Every table of version 0.1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_WHEN = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("profile", sa.JSON(), nullable=False),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_devices")),
    )
    op.create_table(
        "supernets",
        sa.Column("supernet_id", sa.String(64), nullable=False),
        sa.Column("space", sa.String(64), nullable=False),
        sa.Column("bundle_uri", sa.String(), nullable=False),
        sa.Column("bundle_sha256", sa.String(64), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.PrimaryKeyConstraint("supernet_id", name=op.f("pk_supernets")),
    )
    op.create_index(
        "uq_supernets_default",
        "supernets",
        ["is_default"],
        unique=True,
        sqlite_where=sa.text("is_default = 1"),
        postgresql_where=sa.text("is_default"),
    )
    op.create_table(
        "latency_table_versions",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("space", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("document_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_latency_table_versions_version_from_one")),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
            name=op.f("fk_latency_table_versions_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("device_id", "space", "version", name=op.f("pk_latency_table_versions")),
    )
    op.create_table(
        "searches",
        sa.Column("search_id", sa.String(32), nullable=False),
        sa.Column("supernet_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("table_version", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.ForeignKeyConstraint(
            ["supernet_id"],
            ["supernets.supernet_id"],
            name=op.f("fk_searches_supernet_id_supernets"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name=op.f("fk_searches_device_id_devices"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", name=op.f("pk_searches")),
    )
    op.create_index(op.f("ix_searches_created_at"), "searches", ["created_at"])
    op.create_index(op.f("ix_searches_device_id"), "searches", ["device_id"])
    op.create_index(op.f("ix_searches_supernet_id"), "searches", ["supernet_id"])
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.Column("started_at", _WHEN, nullable=True),
        sa.Column("finished_at", _WHEN, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_state_known")
        ),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name=op.f("ck_jobs_finished")
        ),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_jobs_error_of_failed")),
        sa.CheckConstraint("state != 'running' OR attempt >= 1", name=op.f("ck_jobs_running_has_attempt")),
        sa.CheckConstraint("progress >= 0 AND progress <= 1", name=op.f("ck_jobs_progress_is_share")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_created_at"), "jobs", ["created_at"])
    op.create_index(op.f("ix_jobs_state"), "jobs", ["state"])
    op.create_table(
        "deployments",
        sa.Column("deployment_id", sa.String(32), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("supernet_id", sa.String(64), nullable=False),
        sa.Column("search_id", sa.String(32), nullable=True),
        sa.Column("device_id", sa.String(64), nullable=True),
        sa.Column("arch", sa.JSON(), nullable=False),
        sa.Column("arch_id", sa.String(16), nullable=False),
        sa.Column("precision", sa.String(8), nullable=False),
        sa.Column("opset", sa.Integer(), nullable=False),
        sa.Column("artifact_prefix", sa.String(), nullable=True),
        sa.Column("manifest", sa.JSON(), nullable=True),
        sa.Column("created_at", _WHEN, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_deployments_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["supernet_id"],
            ["supernets.supernet_id"],
            name=op.f("fk_deployments_supernet_id_supernets"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.search_id"],
            name=op.f("fk_deployments_search_id_searches"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("deployment_id", name=op.f("pk_deployments")),
        sa.UniqueConstraint("job_id", name=op.f("uq_deployments_job_id")),
    )
    op.create_index(op.f("ix_deployments_created_at"), "deployments", ["created_at"])
    op.create_index(op.f("ix_deployments_supernet_id"), "deployments", ["supernet_id"])


def downgrade() -> None:
    for table in ("deployments", "jobs", "searches", "latency_table_versions", "supernets", "devices"):
        op.drop_table(table)
