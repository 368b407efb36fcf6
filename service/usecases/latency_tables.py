"""Latency tables: checked, stored as immutable versions, read in any version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from latency_tables.check import TableReport, check_table, space_of
from latency_tables.errors import TableFormatError
from latency_tables.reports import ReportOutcome, report_networks
from latency_tables.table import LatencyTable
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import LatencyTableVersion
from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.usecases.devices import get_device, register_device
from service.usecases.supernets import get_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session, sessionmaker

    from latency_tables.estimator import LatencyEstimator
    from service.db.repositories import TableRef
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

# Tables of other devices that a new one is compared with.
_MAX_COMPARED = 20
# Of a report, while others store theirs.
_ATTEMPTS = 2


def check_registration(session: Session, table: LatencyTable, *, device_id: str, space: str) -> TableReport:
    """Check a table against where it is to be stored, its space and the tables of other devices. Stores nothing.

    Raises:
        NotFoundError: `unknown_space`.
        InvalidRequestError: `path_mismatch`; or `refused_table`, with the report: the table is of no use.
        TableFormatError: A text in `source` cannot be stored.
    """
    known_space = space_of(table, get_space(session, space))
    for name, given, wanted in (("device", table.device.device_id, device_id), ("space", table.space, space)):
        if given != wanted:
            raise InvalidRequestError(
                f"The table's {name} is {given[:80]!r}, the path says {wanted[:80]!r}. PUT it to "
                "/v1/devices/{its device}/tables/{its space}.",
                code="path_mismatch",
            )
    try:
        json.dumps(dict(table.source), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise TableFormatError(f"A text in 'source' holds half a surrogate pair: {error.reason}.") from error
    compared = repositories.list_other_tables(session, space, but_not=device_id, limit=_MAX_COMPARED)
    others = [LatencyTable.from_dict(repositories.load_table_document(session, other)) for other in compared]
    report = check_table(table, known_space, others=others)
    if report.errors:
        raise InvalidRequestError(
            f"The table cannot be used: {' '.join(report.errors)} Nothing was stored.",
            code="refused_table",
            report=report.to_dict(),
        )
    return report


def register_table(session: Session, table: LatencyTable, *, shipped: bool = False) -> tuple[TableRef, bool]:
    """Store a checked table as the newest version; creates its device.

    Args:
        session: A writing transaction.
        table: The table.
        shipped: It comes with the package.

    Returns:
        The version, and whether it is new: the newest version once more is not stored again.

    Raises:
        ConflictError: `device_mismatch`.
    """
    device, _ = register_device(session, table.device)
    newest = repositories.find_table(session, device.device_id, space=table.space)
    if newest is not None and newest.document_sha256 == table.fingerprint:
        return newest, False
    return _insert_version(session, table, after=newest, shipped=shipped), True


def get_table(session: Session, device_id: str, space: str, *, version: int | None) -> tuple[TableRef, LatencyTable]:
    """One version of a table, the newest for None.

    Raises:
        NotFoundError: `unknown_device`, `unknown_space` or `unknown_table`.
    """
    found, document = load_version(session, device_id, space=space, version=version)
    return found, LatencyTable.from_dict(document)


def load_version(
    session: Session, device_id: str, *, space: str, version: int | None
) -> tuple[TableRef, dict[str, Any]]:
    """As `get_table`, with the stored document in place of the table."""
    get_device(session, device_id)
    get_space(session, space)
    found = repositories.find_table(session, device_id, space=space, version=version)
    if found is None:
        which = "no latency table" if version is None else f"no version {version} of a latency table"
        raise NotFoundError(
            f"Device '{device_id}' has {which} for space '{space}'. GET /v1/devices/{device_id} lists its tables.",
            code="unknown_table",
        )
    return found, repositories.load_table_document(session, found)


def report_measurements(
    sessions: sessionmaker[Session], device_id: str, space: str, measured: Sequence[tuple[Arch, float]]
) -> tuple[TableRef, ReportOutcome]:
    """Recalibrate the newest version of a table by networks its device measured, and store the result as a new one.

    Fitting takes a while, so no transaction is held meanwhile; it starts over where another version was stored by then.

    Args:
        sessions: Of the database.
        device_id: Of the device.
        space: Name of the table's space.
        measured: Archs with their latencies in milliseconds.

    Raises:
        NotFoundError: `unknown_device`, `unknown_space` or `unknown_table`.
        ConflictError: Another table was registered at the same moment.
        LatencyError: As `report_networks`; nothing is stored.
        InvalidArchError: An arch lies outside the space.
    """
    archs, measured_ms = zip(*measured, strict=True)

    for _ in range(_ATTEMPTS):
        with session_scope(sessions, write=False) as session:
            newest, table, known_space = _load_newest(session, device_id, space)
        outcome = report_networks(table, known_space, archs, measured_ms=measured_ms)
        with session_scope(sessions) as session:
            repositories.find_device(session, device_id, lock=True)
            if repositories.find_table(session, device_id, space=space) == newest:
                return _store_outcome(session, newest, outcome), outcome
    # Many report at once: this one has the table to itself now.
    with session_scope(sessions) as session:
        repositories.find_device(session, device_id, lock=True)
        newest, table, known_space = _load_newest(session, device_id, space)
        outcome = report_networks(table, known_space, archs, measured_ms=measured_ms)
        return _store_outcome(session, newest, outcome), outcome


def _load_newest(session: Session, device_id: str, space: str) -> tuple[TableRef, LatencyTable, SearchSpace]:
    newest, table = get_table(session, device_id, space, version=None)
    return newest, table, space_of(table, get_space(session, space))


def _store_outcome(session: Session, newest: TableRef, outcome: ReportOutcome) -> TableRef:
    """The version that holds a report: a new one, unless it said nothing new."""
    is_known = outcome.table.fingerprint == newest.document_sha256
    return newest if is_known else _insert_version(session, outcome.table, after=newest)


def _insert_version(
    session: Session, table: LatencyTable, *, after: TableRef | None, shipped: bool = False
) -> TableRef:
    row = LatencyTableVersion(
        device_id=table.device.device_id,
        space=table.space,
        version=1 if after is None else after.version + 1,
        document=table.to_dict(),
        document_sha256=table.fingerprint,
        shipped=shipped,
    )
    repositories.insert(session, row)
    return repositories.TableRef(
        row.device_id, row.space, row.version, row.document_sha256, row.created_at, row.shipped
    )


def find_estimator(
    session: Session, catalog: Catalog, device_id: str, *, supernet: LoadedSupernet
) -> tuple[TableRef, LatencyEstimator]:
    """The newest table of a device for a supernet's space, compiled.

    Raises:
        NotFoundError: `unknown_device`.
        ConflictError: `no_table`.
        MissingEntryError: The table lacks blocks of the supernet.
    """
    get_device(session, device_id)
    space = supernet.space.name
    table = repositories.find_table(session, device_id, space=space)
    if table is None:
        raise ConflictError(
            f"Device '{device_id}' has no latency table for space '{space}'. Measure one with `tailor profile` and "
            f"register it: PUT /v1/devices/{device_id}/tables/{space}.",
            code="no_table",
        )
    estimator = catalog.estimator(
        table, supernet.space, load_document=lambda: repositories.load_table_document(session, table)
    )
    return table, estimator
