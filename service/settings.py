"""Settings of the service, from `TAILOR_…` environment variables. Nothing else in the project reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, computed_field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings; each is documented in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore", frozen=True)

    data_dir: Path = Field(
        default=Path(".tailor"), description="Folder of the database, the artefacts and the worker's lock."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; by default a SQLite file in the data folder."
    )
    artifacts_url: str | None = Field(default=None, description="obstore URL; by default a folder in the data folder.")
    max_body_bytes: int = Field(default=64 * 2**20, gt=0, description="Largest request body.")
    search_evaluations: int = Field(default=10_000, ge=100, description="Evaluations of a search that names no number.")
    job_poll_s: float = Field(default=0.2, gt=0, description="Seconds between two looks of the worker at its queue.")
    job_timeout_s: float = Field(default=600, gt=0, description="Seconds after which one attempt of a job is stopped.")
    max_attempts: int = Field(default=3, ge=1, description="Attempts of a job before it fails for good.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def effective_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'tailor.sqlite').resolve()}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def effective_artifacts_url(self) -> str:
        """The artefact store to use."""
        return self.artifacts_url or (self.data_dir / "artifacts").resolve().as_uri()
