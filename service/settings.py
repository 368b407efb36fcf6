"""Settings of the service, from `TAILOR_…` environment variables. Nothing else in the project reads the environment."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, computed_field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "TAILOR_"


# Searches that look at more archs are jobs.
MAX_EVALUATIONS_AT_ONCE = 200_000


class Settings(BaseSettings):
    """All settings; each is documented in docs/settings.md. An empty variable is one that is not set."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a URL may hold a password
    )

    data_dir: Path = Field(
        default=Path(".tailor"), description="Folder of the database, the artefacts and the worker's lock."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; by default a SQLite file in the data folder."
    )
    artifacts_url: str | None = Field(default=None, description="obstore URL; by default a folder in the data folder.")
    images_dir: Path | None = Field(
        default=None, description="Folder below which populations find their images; none are evaluated without."
    )
    max_image_bytes: int = Field(
        default=2 * 2**30, gt=0, description="Most that the images of a population may take in memory, decoded."
    )
    max_body_bytes: int = Field(default=64 * 2**20, gt=0, description="Largest request body.")
    max_bundle_bytes: int = Field(
        default=2**30, gt=0, description="Largest supernet bundle, as it is sent and as it unpacks."
    )
    search_evaluations: int = Field(
        default=10_000,
        ge=100,
        le=MAX_EVALUATIONS_AT_ONCE,
        description="Evaluations of a search that names no number.",
    )
    front_evaluations: int = Field(default=500_000, ge=100, description="Evaluations of a front of a device.")
    job_poll_s: float = Field(
        default=0.2, gt=0, le=60, description="Seconds between two looks of the worker at its queue."
    )
    job_timeout_s: float = Field(default=600, gt=0, description="Seconds after which one attempt of a job is stopped.")
    long_job_timeout_s: float = Field(
        default=6 * 3600, gt=0, description="The same for populations and predictors, which take minutes to hours."
    )
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


def load_settings(*, data_dir: Path | None = None) -> Settings:
    """Read the environment.

    Args:
        data_dir: In place of `TAILOR_DATA_DIR`.

    Raises:
        InvalidRequestError: A variable has a value it cannot have; the message names all that do.
    """
    try:
        return Settings() if data_dir is None else Settings(data_dir=data_dir)
    except ValidationError as error:
        raise InvalidRequestError(
            " ".join(_describe(item) for item in error.errors()) + " Change or unset it.", code="invalid_setting"
        ) from error


def list_unknown_settings(names: Iterable[str] | None = None) -> list[str]:
    """A sentence for every variable, by default of the environment, that looks like a setting and is none."""
    known = [f"{_PREFIX}{field.upper()}" for field in Settings.model_fields]
    unknown = sorted(name for name in names or os.environ if name.startswith(_PREFIX) and name not in known)  # noqa: TID251
    sentences = []
    for name in unknown:
        meant = get_close_matches(name, known, n=1, cutoff=0.8)
        sentences.append(f"{name} is no setting and is ignored" + (f"; is {meant[0]} meant?" if meant else "."))
    return sentences


def _describe(item: Any) -> str:
    variable = f"{_PREFIX}{str(item['loc'][0]).upper()}"
    given = "" if variable.endswith("_URL") else f" is {item['input']!r}, but"
    return f"{variable}{given} {str(item['msg']).replace('Input should', 'should')}."
