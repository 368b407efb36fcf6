"""ORM models. Constraints are named by convention and the database itself refuses impossible states.

Relations are not mapped: every query names what it reads.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, DateTime, Float, ForeignKey, Index, Integer, MetaData, String, false, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.db.clock import utc_now

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Root of all models; its metadata is all that migrations look at."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, datetime: DateTime(timezone=True)}


class Supernet(Base):
    """A bundle the service can search. The files lie in the artefact store or are shipped with the package."""

    __tablename__ = "supernets"

    supernet_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    space: Mapped[str] = mapped_column(String(64))
    bundle_uri: Mapped[str]
    """`shipped:NAME` or `artifact:KEY`."""
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[dict[str, Any]]
    is_default: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        # At most one default.
        Index(
            "uq_supernets_default",
            "is_default",
            unique=True,
            sqlite_where=text("is_default = 1"),
            postgresql_where=text("is_default"),
        ),
    )


class Device(Base):
    """Hardware with a runtime: what a latency table was measured on."""

    __tablename__ = "devices"

    device_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class LatencyTableVersion(Base):
    """One immutable version of a device's latency table for a space; the document is our JSON."""

    __tablename__ = "latency_table_versions"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id", ondelete="CASCADE"), primary_key=True)
    space: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[dict[str, Any]]
    document_sha256: Mapped[str] = mapped_column(String(64))
    shipped: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Came with the package, as opposed to from a user."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (CheckConstraint("version >= 1", name="version_from_one"),)


class Search(Base):
    """A question and its answer; the whole search object is stored as it was returned."""

    __tablename__ = "searches"

    search_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.supernet_id", ondelete="CASCADE"), index=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id", ondelete="CASCADE"), index=True)
    table_version: Mapped[int]
    result: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class Front(Base):
    """The Pareto front of a device and a supernet, or an order of one. Its state is its job's, and its id as well.

    It holds for one predictor and the rows of one table, whatever calibration, device and supernet have become.
    """

    __tablename__ = "fronts"

    front_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.supernet_id", ondelete="CASCADE"), index=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id", ondelete="CASCADE"), index=True)
    table_version: Mapped[int]
    rows_sha256: Mapped[str] = mapped_column(String(64))
    predictor_sha256: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """`rows` and `accuracies`; set once, when the job succeeds."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class Job(Base):
    """Background work. The row is the truth for the API; the queue library only executes it.

    `attempt` fences: a worker may write a job's result only while the row still holds the attempt it was given.
    """

    __tablename__ = "jobs"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    payload: Mapped[dict[str, Any]]
    attempt: Mapped[int] = mapped_column(default=0)
    given_back: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts that ended because the worker was told to stop; they do not count towards the limit."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    stage: Mapped[str] = mapped_column(String(64), default="")
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state_known"),
        CheckConstraint("(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error_of_failed"),
        CheckConstraint("state != 'running' OR attempt >= 1", name="running_has_attempt"),
        CheckConstraint("progress >= 0 AND progress <= 1", name="progress_is_share"),
    )


class Deployment(Base):
    """One subnet on its way to, or available as, a verified ONNX file. Its state is its job's."""

    __tablename__ = "deployments"

    deployment_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), unique=True)
    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.supernet_id", ondelete="RESTRICT"), index=True)
    search_id: Mapped[str | None] = mapped_column(ForeignKey("searches.search_id", ondelete="SET NULL"))
    device_id: Mapped[str | None] = mapped_column(String(64))
    arch: Mapped[dict[str, Any]]
    arch_id: Mapped[str] = mapped_column(String(16))
    precision: Mapped[str] = mapped_column(String(8))
    opset: Mapped[int]
    artifact_prefix: Mapped[str | None]
    """Where model.onnx and manifest.json lie in the artefact store; set once, when the job succeeds."""
    manifest: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class Population(Base):
    """Archs of a supernet that were, or are being, evaluated. Its state is its job's, and its id as well."""

    __tablename__ = "populations"

    population_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.supernet_id", ondelete="CASCADE"), index=True)
    weights_sha256: Mapped[str] = mapped_column(String(64))
    """Other weights have other accuracies."""
    images: Mapped[str] = mapped_column(String(64))
    archs: Mapped[int]
    seed: Mapped[int]
    artifact_key: Mapped[str | None]
    """Where the CSV lies in the artefact store; set once, when the job succeeds."""
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """`archs`, `images`, `mean_top1`, `best_top1` and the CSV's `sha256`."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
