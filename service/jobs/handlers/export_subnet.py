"""The child's side of an `export_subnet` job: payload to library call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.jobs.states import ExportPayload
from supernet.deployment import build_deployment
from supernet.errors import InvalidBundleError
from supernet.spaces.arch import Arch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PLACES = ("shipped", "folder")


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Write the deployment's files into `out_dir` and return its manifest.

    Raises:
        InvalidBundleError: The bundle lies where this version cannot read it.
        SupernetError: Whatever else `build_deployment` raises.
    """
    export = ExportPayload.model_validate(payload)
    place, _, bundle = export.bundle_uri.partition(":")
    if place not in _PLACES:
        raise InvalidBundleError(
            f"Supernet '{export.supernet_id}' lies at '{export.bundle_uri}', which this version cannot read. "
            f"Use one that starts with one of {_PLACES}."
        )
    latency = export.latency
    if latency is not None:
        latency = {**latency, "device": export.device_id, "table_version": str(export.table_version)}
    return build_deployment(
        bundle,
        Arch.from_dict(export.arch),
        out_dir,
        opset=export.opset,
        precision=export.precision,
        accuracy=export.accuracy,
        latency=latency,
        report=report,
    )
