"""Whole networks that a device reports after its table was made: each makes the table's estimates better."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum, log
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

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

# Keys of a table's `source`: the networks, the oldest first; and the calibration from before the first of them.
REPORTED, BEFORE = "reported_networks", "calibration_before_reports"
# As `recalibrate_table` writes it.
FITTED = "calibration_networks"
MAX_REPORTED = 1000
# Networks of about one size say how far off a table is, not why: several coefficients are not fitted to them. Between
# the second or, of many, the tenth part from either end.
LEAST_RANGE = 1.5
# No table is that far off; other units are.
MOST_OFF = 20.0


@dataclass(frozen=True)
class ReportOutcome:
    """What a report did to a table.

    Attributes:
        table: The new one; its `source` holds all reported networks.
        agreement: Of the table as it was with the networks of this report.
        networks: Different ones that were reported so far.
        refitted: Whether the calibration was fitted again, to all of them; else it was scaled.
    """

    table: LatencyTable
    agreement: AgreementReport
    networks: int
    refitted: bool


def report_networks(
    table: LatencyTable, space: SearchSpace, archs: Sequence[Arch], *, measured_ms: Sequence[float]
) -> ReportOutcome:
    """Add measured networks to a table; of a network that is reported again the newest latency counts.

    Once as many different networks are known as the calibration was fitted to, small and large ones, it is fitted to
    them instead. Until then it is scaled by how far off it is, each of the networks it was fitted to counting as one
    that it estimates correctly; and its residuals, where it has any, are joined by those of the reported networks.

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
        TableFormatError: What the table's own `source` says of reports cannot be read.
    """
    current, before = LatencyEstimator(table, space), _before_reports(table)
    agreement = check_agreement(current, archs, measured_ms)
    original = current if before is table else LatencyEstimator(before, space)
    known = reported_networks(table, space)
    given: dict[Arch, list[float]] = {}
    for arch, measured in zip(map(space.canonicalize, archs), measured_ms, strict=True):
        given.setdefault(arch, []).append(measured)
    reported = {arch: median(latencies) for arch, latencies in given.items()}
    networks = list(({arch: ms for arch, ms in known.items() if arch not in reported} | reported).items())
    networks = networks[-MAX_REPORTED:]
    estimated = [estimate.estimated_ms for estimate in original.estimate([arch for arch, _ in networks])]
    for (arch, measured), estimate in zip(networks, estimated, strict=True):
        if not estimate / MOST_OFF <= measured <= MOST_OFF * estimate:
            raise InvalidSettingError(
                f"The arch {arch.arch_id} was reported with {measured:.6g} ms, the table of "
                f"'{table.device.device_id}' says {estimate:.6g} ms. Report milliseconds per image, of this device; "
                "if they are right, measure the table again."
            )
    n_fitted = _networks_of(before)
    refitted = len(networks) >= max(MIN_NETWORKS, n_fitted) and _range_of(estimated) >= LEAST_RANGE
    if refitted:
        every_ms = [measured for _, measured in networks]
        improved = recalibrate_table(before, space, [arch for arch, _ in networks], measured_ms=every_ms)
    else:
        ratios = [measured / estimate for (_, measured), estimate in zip(networks, estimated, strict=True)]
        improved = before.with_calibration(_scale(original.calibration, ratios, seen=n_fitted), **{FITTED: n_fitted})
    notes = {
        REPORTED: [{"arch": arch.to_dict(), "latency_ms": float(measured)} for arch, measured in networks],
        BEFORE: None if before.calibration is None else before.calibration.to_dict() | {"networks": n_fitted},
    }
    improved = improved.with_calibration(improved.calibration, **notes)
    LatencyEstimator(improved, space)  # what cannot be searched is not given out
    return ReportOutcome(improved, agreement, len(networks), refitted)


def reported_networks(table: LatencyTable, space: SearchSpace) -> dict[Arch, float]:
    """The networks that were reported so far, the oldest first, with their latencies in milliseconds.

    Raises:
        TableFormatError: They cannot be read: a table may come from anywhere.
    """
    networks: dict[Arch, float] = {}
    try:
        for entry in table.source.get(REPORTED, [])[-MAX_REPORTED:]:
            arch = space.canonicalize(Arch.from_dict(entry["arch"]))
            networks[arch] = finite_number("latency_ms", entry["latency_ms"])
    except (KeyError, TypeError, InvalidArchError, TableFormatError) as error:
        raise TableFormatError(
            f"'{REPORTED}' in the table's source must be a list of objects {{arch, latency_ms}}: {error}"
        ) from error
    return networks


def _before_reports(table: LatencyTable) -> LatencyTable:
    """The table with the calibration it had before the first report."""
    if REPORTED not in table.source:
        return table
    noted = table.source.get(BEFORE)
    if noted is None:
        return table.with_calibration(None)
    if not isinstance(noted, dict) or "networks" not in noted:
        raise TableFormatError(f"'{BEFORE}' in the table's source must be null or a calibration with 'networks'.")
    fields = {name: value for name, value in noted.items() if name != "networks"}
    return table.with_calibration(Calibration.from_dict(fields), **{FITTED: noted["networks"]})


def _networks_of(table: LatencyTable) -> int:
    """How many networks the calibration was fitted to."""
    if table.calibration is None:
        return 0
    n_residuals = len(table.calibration.residuals)
    stated: Any = table.source.get(FITTED)
    is_stated = isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated <= MAX_REPORTED
    return max(stated if is_stated else n_residuals, min(n_residuals, 1))


def _range_of(estimated: Sequence[float]) -> float:
    """Large over small latency, the outermost left out."""
    ordered = np.sort(estimated)
    outermost = max(1, len(ordered) // 10)
    return float(ordered[-1 - outermost] / ordered[outermost]) if len(ordered) > 2 * outermost else 1.0


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
