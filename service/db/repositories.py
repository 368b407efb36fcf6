"""All queries of the API. Functions take a session, never commit, and name what they read.

Lists are keyset pages: newest first by (created_at, id), so that what is inserted meanwhile shifts no later page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from sqlalchemy import and_, delete, exists, func, null, or_, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from service.db.models import Base, Deployment, Device, Front, Job, LatencyTableVersion, Population, Search, Supernet
from service.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import InstrumentedAttribute, Session

Item = TypeVar("Item")


class PageKey(NamedTuple):
    """Where a page ends: the last item's time and id."""

    created_at: datetime
    item_id: str


class PageRequest(NamedTuple):
    """How many items, after which one."""

    limit: int
    after: PageKey | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Items of one page, and the key the next page starts after; None on the last one."""

    items: list[Item]
    next_key: PageKey | None


class TableRef(NamedTuple):
    """One version of a latency table, without its document."""

    device_id: str
    space: str
    version: int
    document_sha256: str
    created_at: datetime
    shipped: bool


def insert(session: Session, row: Base) -> None:
    """Insert a row now, so that a broken constraint shows here.

    Raises:
        ConflictError: Another request inserted the same key, or deleted what the row refers to, at the same time.
    """
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(
            f"Another request changed the {row.__tablename__} this one needs at the same time. Ask again.",
        ) from error


# ---------------------------------------------------------------------------- supernets


def find_supernet(session: Session, supernet_id: str, *, lock: bool = False) -> Supernet | None:
    """One supernet, or None; locked, nobody else can change or delete it until the transaction ends."""
    # SQLite has no such lock: its writing transactions are alone anyway.
    return session.get(Supernet, supernet_id, with_for_update={"read": True} if lock else None)


def find_default_supernet(session: Session) -> Supernet | None:
    """The supernet of requests that name none, or None."""
    return session.scalars(select(Supernet).where(Supernet.is_default)).one_or_none()


def list_supernets(session: Session, page: PageRequest) -> Page[Supernet]:
    """One page of supernets."""
    return _page(session, select(Supernet), page, model=Supernet, key=Supernet.supernet_id)


def list_supernet_ids(session: Session) -> list[str]:
    """Every supernet's id, sorted: for error messages."""
    return list(session.scalars(select(Supernet.supernet_id).order_by(Supernet.supernet_id)))


def lock_supernets(session: Session) -> None:
    """Keep everybody else from adding or deleting supernets until the transaction ends.

    For what no constraint can say: one space per name, and files that several rows share.
    """
    # A writing transaction of SQLite is alone anyway.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE supernets IN SHARE ROW EXCLUSIVE MODE"))


def delete_supernet(session: Session, supernet_id: str) -> None:
    """Delete a supernet; the database deletes its searches with it, and refuses where it has deployments."""
    session.execute(delete(Supernet).where(Supernet.supernet_id == supernet_id))


def has_deployments(session: Session, supernet_id: str) -> bool:
    """Whether any deployment was made from a supernet."""
    query = select(Deployment.deployment_id).where(Deployment.supernet_id == supernet_id)
    return session.execute(query.limit(1)).first() is not None


def has_bundle(session: Session, bundle_uri: str) -> bool:
    """Whether any supernet has its files there."""
    query = select(Supernet.supernet_id).where(Supernet.bundle_uri == bundle_uri)
    return session.execute(query.limit(1)).first() is not None


def find_supernet_of_space(session: Session, space: str) -> Supernet | None:
    """The oldest supernet of a space, or None."""
    query = select(Supernet).where(Supernet.space == space).order_by(Supernet.created_at, Supernet.supernet_id)
    return session.scalars(query.limit(1)).one_or_none()


def list_supernet_spaces(session: Session) -> list[str]:
    """Names of the spaces that supernets have, sorted: for error messages."""
    return list(session.scalars(select(Supernet.space).distinct().order_by(Supernet.space)))


# ---------------------------------------------------------------------------- devices and tables


def find_device(session: Session, device_id: str, *, lock: bool = False) -> Device | None:
    """One device, or None. With `lock` nobody else who asks for it so gets it until the transaction ends."""
    return session.get(Device, device_id, with_for_update=lock or None)


def list_devices(session: Session, page: PageRequest) -> Page[Device]:
    """One page of devices."""
    return _page(session, select(Device), page, model=Device, key=Device.device_id)


def delete_device(session: Session, device_id: str) -> None:
    """Delete a device; the database deletes its tables and searches with it."""
    session.execute(delete(Device).where(Device.device_id == device_id))


def list_latest_tables(session: Session, device_ids: Sequence[str]) -> dict[str, list[TableRef]]:
    """The newest table of each space, by device, the spaces sorted."""
    newest = (
        select(
            LatencyTableVersion.device_id, LatencyTableVersion.space, func.max(LatencyTableVersion.version).label("top")
        )
        .where(LatencyTableVersion.device_id.in_(device_ids))
        .group_by(LatencyTableVersion.device_id, LatencyTableVersion.space)
        .subquery()
    )
    query = (
        _select_refs()
        .join(
            newest,
            and_(
                LatencyTableVersion.device_id == newest.c.device_id,
                LatencyTableVersion.space == newest.c.space,
                LatencyTableVersion.version == newest.c.top,
            ),
        )
        .order_by(LatencyTableVersion.device_id, LatencyTableVersion.space)
    )
    tables: dict[str, list[TableRef]] = {device_id: [] for device_id in device_ids}
    for row in session.execute(query):
        tables[row.device_id].append(TableRef(*row))
    return tables


def find_table(session: Session, device_id: str, *, space: str, version: int | None = None) -> TableRef | None:
    """One version of a table, the newest where none is named; None where there is none."""
    query = _select_refs().where(LatencyTableVersion.device_id == device_id, LatencyTableVersion.space == space)
    if version is not None:
        query = query.where(LatencyTableVersion.version == version)
    row = session.execute(query.order_by(LatencyTableVersion.version.desc()).limit(1)).one_or_none()
    return None if row is None else TableRef(*row)


def load_table_document(session: Session, table: TableRef) -> dict[str, Any]:
    """The stored document of a version.

    Raises:
        ConflictError: It was deleted meanwhile.
    """
    query = select(LatencyTableVersion.document).where(
        LatencyTableVersion.device_id == table.device_id,
        LatencyTableVersion.space == table.space,
        LatencyTableVersion.version == table.version,
    )
    return _still_there(session.scalars(query).one_or_none(), f"The table of '{table.device_id}'")


def list_other_tables(session: Session, space: str, *, but_not: str, limit: int) -> list[TableRef]:
    """The newest version of a space's table of every other device, the latest stored first."""
    newer = aliased(LatencyTableVersion)
    query = (
        _select_refs()
        .where(LatencyTableVersion.space == space, LatencyTableVersion.device_id != but_not)
        .where(
            ~exists().where(
                newer.device_id == LatencyTableVersion.device_id,
                newer.space == LatencyTableVersion.space,
                newer.version > LatencyTableVersion.version,
            )
        )
        .order_by(LatencyTableVersion.created_at.desc(), LatencyTableVersion.device_id)
    )
    return [TableRef(*row) for row in session.execute(query.limit(limit))]


def has_table_document(session: Session, device_id: str, *, space: str, document_sha256: str) -> bool:
    """Whether any version of the table holds exactly this document."""
    query = select(LatencyTableVersion.version).where(
        LatencyTableVersion.device_id == device_id,
        LatencyTableVersion.space == space,
        LatencyTableVersion.document_sha256 == document_sha256,
    )
    return session.execute(query.limit(1)).first() is not None


# ---------------------------------------------------------------------------- searches


def find_search(session: Session, search_id: str) -> Search | None:
    """One search, or None."""
    return session.get(Search, search_id)


def list_searches(session: Session, page: PageRequest) -> Page[Search]:
    """One page of searches."""
    return _page(session, select(Search), page, model=Search, key=Search.search_id)


# ---------------------------------------------------------------------------- fronts


def find_known_front(session: Session, *, rows_sha256: str, predictor_sha256: str) -> str | None:
    """Id of the newest front of a table's rows and a predictor, or None."""
    query = select(Front.front_id).where(
        Front.rows_sha256 == rows_sha256, Front.predictor_sha256 == predictor_sha256, Front.document.is_not(null())
    )
    return session.scalars(query.order_by(Front.created_at.desc(), Front.front_id).limit(1)).one_or_none()


def find_newest_front(session: Session, *, rows_sha256: str, predictor_sha256: str) -> tuple[str, Job] | None:
    """Id of the newest front of a table's rows and a predictor, known or ordered, with its job; or None."""
    query = (
        select(Front.front_id, Job)
        .join(Job, Front.front_id == Job.job_id)
        .where(Front.rows_sha256 == rows_sha256, Front.predictor_sha256 == predictor_sha256)
    )
    row = session.execute(query.order_by(Front.created_at.desc(), Front.front_id).limit(1)).one_or_none()
    return None if row is None else (row.front_id, row.Job)


def load_front_document(session: Session, front_id: str) -> dict[str, Any]:
    """The stored document of a known front.

    Raises:
        ConflictError: It was deleted meanwhile.
    """
    query = select(Front.document).where(Front.front_id == front_id)
    return _still_there(session.scalars(query).one_or_none(), f"The front '{front_id}'")


# ---------------------------------------------------------------------------- deployments and jobs


def find_deployment(session: Session, deployment_id: str) -> tuple[Deployment, Job] | None:
    """One deployment with its job, or None."""
    row = session.execute(_select_deployments().where(Deployment.deployment_id == deployment_id)).one_or_none()
    return None if row is None else (row.Deployment, row.Job)


def list_deployments(session: Session, page: PageRequest) -> Page[tuple[Deployment, Job]]:
    """One page of deployments with their jobs."""
    found = _page(session, select(Deployment), page, model=Deployment, key=Deployment.deployment_id)
    jobs = _jobs_by_id(session, [item.job_id for item in found.items])
    return Page([(item, jobs[item.job_id]) for item in found.items], found.next_key)


def newest_deployments(session: Session, search_ids: Sequence[str]) -> dict[str, tuple[Deployment, Job]]:
    """By search: the newest deployment made from it, with its job; searches without one are absent."""
    query = _select_deployments().where(Deployment.search_id.in_(search_ids))
    ordered = session.execute(query.order_by(Deployment.created_at, Deployment.deployment_id))
    return {str(row.Deployment.search_id): (row.Deployment, row.Job) for row in ordered}


def find_population(session: Session, population_id: str) -> tuple[Population, Job] | None:
    """One population with its job, or None."""
    row = session.execute(_select_populations().where(Population.population_id == population_id)).one_or_none()
    return None if row is None else (row.Population, row.Job)


def find_newest_population(session: Session, supernet_id: str, *, weights_sha256: str) -> Population | None:
    """The newest population of these weights that has its CSV, or None."""
    query = select(Population).where(
        Population.supernet_id == supernet_id,
        Population.weights_sha256 == weights_sha256,
        Population.artifact_key.is_not(None),
    )
    newest = query.order_by(Population.created_at.desc(), Population.population_id.desc())
    return session.scalars(newest.limit(1)).one_or_none()


def list_populations(session: Session, supernet_id: str, page: PageRequest) -> Page[tuple[Population, Job]]:
    """One page of a supernet's populations with their jobs."""
    query = select(Population).where(Population.supernet_id == supernet_id)
    found = _page(session, query, page, model=Population, key=Population.population_id)
    jobs = _jobs_by_id(session, [item.population_id for item in found.items])
    return Page([(item, jobs[item.population_id]) for item in found.items], found.next_key)


def list_population_ids(session: Session, supernet_id: str) -> list[str]:
    """Ids of all of a supernet's populations: their files go with it."""
    return list(session.scalars(select(Population.population_id).where(Population.supernet_id == supernet_id)))


def find_job(session: Session, job_id: str) -> Job | None:
    """One job, or None."""
    return session.get(Job, job_id)


def list_jobs(session: Session, page: PageRequest) -> Page[Job]:
    """One page of jobs."""
    return _page(session, select(Job), page, model=Job, key=Job.job_id)


def list_deployment_states(
    session: Session, supernet_id: str, *, arch_ids: Sequence[str], limit: int
) -> dict[str, list[tuple[str, str]]]:
    """By arch: id and state of the newest deployments of it made from a supernet; archs without are absent."""
    newest_first = (Deployment.created_at.desc(), Deployment.deployment_id.desc())
    ranked = (
        select(
            Deployment.deployment_id,
            func.row_number().over(partition_by=Deployment.arch_id, order_by=newest_first).label("place"),
        )
        .where(Deployment.supernet_id == supernet_id, Deployment.arch_id.in_(arch_ids))
        .subquery()
    )
    query = (
        select(Deployment.arch_id, Deployment.deployment_id, Job.state)
        .join(ranked, Deployment.deployment_id == ranked.c.deployment_id)
        .join(Job, Deployment.job_id == Job.job_id)
        .where(ranked.c.place <= limit)
        .order_by(*newest_first)
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for arch_id, deployment_id, state in session.execute(query):
        found.setdefault(arch_id, []).append((deployment_id, state))
    return found


# ---------------------------------------------------------------------------- private


def _select_refs() -> Select[str, str, int, str, datetime, bool]:
    return select(
        LatencyTableVersion.device_id,
        LatencyTableVersion.space,
        LatencyTableVersion.version,
        LatencyTableVersion.document_sha256,
        LatencyTableVersion.created_at,
        LatencyTableVersion.shipped,
    )


def _select_deployments() -> Select[Deployment, Job]:
    return select(Deployment, Job).join(Job, Deployment.job_id == Job.job_id)


def _select_populations() -> Select[Population, Job]:
    return select(Population, Job).join(Job, Population.population_id == Job.job_id)


def _jobs_by_id(session: Session, job_ids: Sequence[str]) -> dict[str, Job]:
    return {job.job_id: job for job in session.scalars(select(Job).where(Job.job_id.in_(job_ids)))}


def _still_there(document: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if document is None:
        raise ConflictError(f"{what} was deleted meanwhile. Ask again.")
    return document


def _page(
    session: Session, query: Select[Item], page: PageRequest, *, model: Any, key: InstrumentedAttribute[str]
) -> Page[Item]:
    """Read one item more than asked for: it tells whether there is a next page."""
    created: InstrumentedAttribute[datetime] = model.created_at
    if page.after is not None:
        at, item_id = page.after
        query = query.where(or_(created < at, and_(created == at, key < item_id)))
    items = list(session.scalars(query.order_by(created.desc(), key.desc()).limit(page.limit + 1)))
    if len(items) <= page.limit:
        return Page(items, None)
    last = items[page.limit - 1]
    return Page(items[: page.limit], PageKey(getattr(last, created.key), getattr(last, key.key)))
