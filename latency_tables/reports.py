"""Whole networks that a device reports after its table was made: each makes the table's estimates better."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum, log
from typing import TYPE_CHECKING, Any

from latency_tables.agreement import AgreementReport, check_agreement
from latency_tables.calibration import MIN_NETWORKS, Calibration
from latency_tables.errors import InvalidSettingError, TableFormatError
from latency_tables.estimator import LatencyEstimator, recalibrate_table
from latency_tables.json_values import finite_number
from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_tables.table import LatencyTable
    from supernet.spaces.space import SearchSpace

# Key of a table's `source`: the networks, the oldest first.
REPORTED = "reported_networks"
# As `recalibrate_table` writes it.
FITTED = "calibration_networks"
MAX_REPORTED = 1000
# Networks of about one size say how far off a table is, not why: several coefficients are not fitted to them.
LEAST_RANGE = 2.0
# No table is that far off; other units are.
MOST_OFF = 20.0


@dataclass(frozen=True)
class ReportOutcome:
    """What a report did to a table.

    Attributes:
        table: The new one; its `source` holds all reported networks.
        agreement: Of the table as it was, which had not seen these networks.
        networks: Reported so far.
        refitted: Whether the calibration was fitted again, to all of them; else it was scaled.
    """

    table: LatencyTable
    agreement: AgreementReport
    networks: int
    refitted: bool


def report_networks(
    table: LatencyTable, space: SearchSpace, archs: Sequence[Arch], *, measured_ms: Sequence[float]
) -> ReportOutcome:
    """Add measured networks to a table.

    Once as many were reported as the calibration was fitted to, and their latencies differ enough, it is fitted to them
    again. Until then it is scaled by how far off it was, each of the networks it was fitted to counting as one that it
    estimates correctly; and its residuals, where it has any, are joined by those of the reported networks.

    Args:
        table: Of the device that measured.
        space: With the number of classes in use.
        archs: At least one, of resolutions the table covers.
        measured_ms: Their latencies, measured as the table's.

    Raises:
        InvalidSettingError: No networks, lengths that differ, or a latency that is not positive and finite or so far
            off that it is hardly in milliseconds.
        InvalidArchError: An arch lies outside the space.
        MissingEntryError: The table does not cover an arch's resolution.
        TableFormatError: The table's own list of reported networks cannot be read.
    """
    estimator = LatencyEstimator(table, space)
    agreement = check_agreement(estimator, archs, measured_ms)
    estimated = [estimate.estimated_ms for estimate in estimator.estimate(archs)]
    for arch, estimate, measured in zip(archs, estimated, measured_ms, strict=True):
        if not 1 / MOST_OFF <= measured / estimate <= MOST_OFF:
            raise InvalidSettingError(
                f"The arch {arch.arch_id} was reported with {measured:.6g} ms, the table of "
                f"'{table.device.device_id}' says {estimate:.6g} ms. Report milliseconds per image, of this device; "
                "if they are right, measure the table again."
            )
    known = reported_networks(table, space)
    networks = [*known, *zip(map(space.canonicalize, archs), measured_ms, strict=True)][-MAX_REPORTED:]
    every_ms = [measured for _, measured in networks]
    n_fitted = _networks_of(table)
    refitted = len(networks) >= max(MIN_NETWORKS, n_fitted) and max(every_ms) / min(every_ms) >= LEAST_RANGE
    if refitted:
        improved = recalibrate_table(table, space, [arch for arch, _ in networks], measured_ms=every_ms)
    else:
        ratios = [measured / estimate for measured, estimate in zip(measured_ms, estimated, strict=True)]
        scaled = _scale(estimator.calibration, ratios, seen=n_fitted + len(known))
        improved = table.with_calibration(scaled, **{FITTED: n_fitted})
    listed = [{"arch": arch.to_dict(), "latency_ms": float(measured)} for arch, measured in networks]
    improved = improved.with_calibration(improved.calibration, **{REPORTED: listed})
    return ReportOutcome(improved, agreement, len(networks), refitted)


def reported_networks(table: LatencyTable, space: SearchSpace) -> list[tuple[Arch, float]]:
    """The networks that were reported so far, the oldest first, with their latencies in milliseconds.

    Raises:
        TableFormatError: They cannot be read: a table may come from anywhere.
    """
    networks = []
    try:
        for entry in table.source.get(REPORTED, []):
            latency_ms = finite_number("latency_ms", entry["latency_ms"])
            if latency_ms <= 0:
                raise TableFormatError(f"'latency_ms' must be positive, got {latency_ms}.")
            networks.append((space.canonicalize(Arch.from_dict(entry["arch"])), latency_ms))
    except (KeyError, TypeError, InvalidArchError, TableFormatError) as error:
        raise TableFormatError(
            f"'{REPORTED}' in the table's source must be a list of objects {{arch, latency_ms}}: {error}"
        ) from error
    return networks


def _networks_of(table: LatencyTable) -> int:
    """How many networks the calibration was fitted to."""
    if table.calibration is None:
        return 0
    n_residuals = len(table.calibration.residuals)
    stated: Any = table.source.get(FITTED)
    is_stated = isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0
    return max(stated if is_stated else n_residuals, min(n_residuals, 1))


def _scale(calibration: Calibration, ratios: Sequence[float], *, seen: int) -> Calibration:
    """Scale a calibration by measured over estimated latencies; `seen` networks say that it is right."""
    logs = [log(ratio) for ratio in ratios]
    total, count = fsum(logs), seen + len(logs)
    factor = exp(total / count)
    residuals: list[float] = []
    if calibration.residuals:
        # Each against what the others alone would have given.
        residuals = [ratio / factor for ratio in calibration.residuals]
        residuals += [exp(one - (total - one) / (count - 1)) for one in logs]
    return Calibration(
        calibration.call_ms * factor,
        calibration.per_block_ms * factor,
        calibration.slope * factor,
        tuple(residuals),
    )
