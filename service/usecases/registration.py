"""Supernets come and go: a user's bundle becomes one, or is taken away again.

A bundle may be large, so its files are moved outside of any transaction. Files first, then the row: whatever is killed
in between, no supernet is there without its files.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, TYPE_CHECKING

from service.bundle_archive import extract_bundle
from service.bundles import ARTIFACT, uri_of
from service.db import job_repository, repositories
from service.db.engine import DatabaseError, session_scope
from service.db.models import Supernet
from service.errors import ConflictError, InvalidRequestError, NotFoundError, ServiceError, StorageError
from service.names import RULE, is_name
from service.usecases.catalog import SHIPPED
from service.usecases.shipped import describe_bundle
from service.usecases.supernets import get_space, get_supernet
from supernet.bundle import shipped_bundles
from supernet.errors import InvalidBundleError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from service.bundles import BundleStore
    from supernet.bundle import Bundle
    from supernet.spaces.space import SearchSpace

POPULATIONS = "populations"
"""Folder of the artefact store that holds one per population."""
# Nothing takes that long between a bundle's files and its row: whoever stored them was killed.
_ABANDONED_S = 24 * 3600.0


def register_archive(
    sessions: sessionmaker[Session],
    bundles: BundleStore,
    archive: IO[bytes],
    *,
    max_bytes: int,
    supernet_id: str | None = None,
    default: bool = False,
) -> tuple[Supernet, bool]:
    """Register the bundle in a tar or tar.gz; see `register_bundle`.

    Args:
        sessions: Of the database.
        bundles: Gets the files.
        archive: The archive, with a position that can be set.
        max_bytes: Most bytes it may unpack to.
        supernet_id: By default the manifest's name.
        default: Whether requests that name no supernet shall mean it.

    Raises:
        InvalidBundleError: The archive holds anything but one whole bundle.
    """
    with bundles.workspace() as folder:
        bundle = extract_bundle(archive, folder, max_bytes=max_bytes)
        row, is_new = register_bundle(sessions, bundles, bundle, supernet_id=supernet_id, default=default)
        if row.bundle_uri == uri_of(bundle):
            bundles.adopt(bundle)
    return row, is_new


def register_bundle(
    sessions: sessionmaker[Session],
    bundles: BundleStore,
    bundle: Bundle,
    *,
    supernet_id: str | None = None,
    default: bool = False,
) -> tuple[Supernet, bool]:
    """Make a supernet of an opened bundle; the first one becomes the default in any case.

    Args:
        sessions: Of the database.
        bundles: Gets the files.
        bundle: Whose hashes were checked.
        supernet_id: By default the manifest's name.
        default: Whether requests that name no supernet shall mean it.

    Returns:
        The supernet, and whether it is new: the same bundle under the same id again changes only the default.

    Raises:
        InvalidRequestError: The id cannot be one.
        InvalidBundleError: The predictor is damaged, or the space's name cannot be a path segment.
        FingerprintMismatchError: The predictor belongs to another space.
        ConflictError: `supernet_exists`: the id has another bundle. `space_mismatch`: the space's name has another
            space.
        StorageError: The artefact store cannot be written.
    """
    supernet_id = bundle.manifest.name if supernet_id is None else supernet_id
    _validate_names(supernet_id, bundle.space.name)
    manifest = describe_bundle(bundle)
    with session_scope(sessions, write=False) as session:
        known = _find_registered(session, bundle, supernet_id)
    try:
        if known is None:
            bundles.save(bundle)
        with session_scope(sessions) as session:
            repositories.lock_supernets(session)
            row = known = _find_registered(session, bundle, supernet_id)
            if row is None:
                if not bundles.holds(bundle):
                    raise ConflictError("Another request deleted this very bundle at the same time. Ask again.")
                row = Supernet(
                    supernet_id=supernet_id,
                    space=bundle.space.name,
                    bundle_uri=uri_of(bundle),
                    bundle_sha256=bundle.sha256,
                    manifest=manifest,
                )
                repositories.insert(session, row)
            _set_default(session, row, wanted=default)
    except (ServiceError, DatabaseError):
        # The first error is the one to tell.
        with suppress(ServiceError, DatabaseError):
            delete_unused_bundle(sessions, bundles, uri_of(bundle))
        raise
    return row, known is None


def delete_supernet(sessions: sessionmaker[Session], bundles: BundleStore, supernet_id: str) -> None:
    """Delete a supernet with its searches and populations, and its files where no other has the same bundle.

    Raises:
        NotFoundError: `unknown_supernet`.
        ConflictError: `shipped_supernet`: it comes with the package. `supernet_in_use`: deployments refer to it, or
            a job works on it. `default_supernet`: it is the default, and others could be.
        StorageError: It is deleted, but its files could not be.
    """
    with session_scope(sessions) as session:
        repositories.lock_supernets(session)
        row = get_supernet(session, supernet_id)
        _validate_deletable(session, row)
        populations = repositories.list_population_ids(session, supernet_id)
        repositories.delete_supernet(session, supernet_id)
    try:
        for population_id in populations:
            bundles.artifacts.delete_prefix(f"{POPULATIONS}/{population_id}")
        delete_unused_bundle(sessions, bundles, row.bundle_uri)
    except StorageError as error:
        raise StorageError(
            f"Supernet '{supernet_id}' is deleted, but files of it remain in the artefact store: {error} Those of its "
            f"bundle ('{row.bundle_uri}') go when a worker starts a day later; nothing refers to the others."
        ) from error


def delete_unused_bundle(sessions: sessionmaker[Session], bundles: BundleStore, uri: str) -> None:
    """Delete the files of a bundle that no supernet has and no job needs; none can get it meanwhile.

    Raises:
        StorageError: The store cannot be written.
    """
    if not uri.startswith(ARTIFACT):
        return
    with session_scope(sessions) as session:
        repositories.lock_supernets(session)
        needed = any(job.payload.get("bundle_uri") == uri for job in job_repository.list_unfinished(session))
        if not needed and not repositories.has_bundle(session, uri):
            bundles.delete(uri)


def delete_abandoned_bundles(sessions: sessionmaker[Session], bundles: BundleStore) -> None:
    """Delete the files that were stored a day ago for a supernet which then did not come to be, or has them no more.

    Raises:
        StorageError: The store cannot be read or written.
    """
    for uri in bundles.list_older(_ABANDONED_S):
        delete_unused_bundle(sessions, bundles, uri)


def validate_supernet_id(supernet_id: str) -> None:
    """Refuse an id that no path could name.

    Raises:
        InvalidRequestError: Names what is allowed.
    """
    if not is_name(supernet_id):
        raise InvalidRequestError(
            f"A supernet's id has {RULE}; got {supernet_id[:80]!a}. Give one with the parameter 'id' (`--id`)."
        )


def is_shipped(row: Supernet) -> bool:
    """Whether a supernet comes with the package, whose start would bring it back as it was."""
    return row.bundle_uri.startswith(SHIPPED) and row.bundle_uri.removeprefix(SHIPPED) in shipped_bundles()


def _validate_names(supernet_id: str, space: str) -> None:
    validate_supernet_id(supernet_id)
    if not is_name(space):
        raise InvalidBundleError(
            f"In a service the name of a space has {RULE}; the bundle's is {space[:80]!a}. Rename the space."
        )


def _find_registered(session: Session, bundle: Bundle, supernet_id: str) -> Supernet | None:
    """The supernet this bundle already is under this id; None where it may become one."""
    known = repositories.find_supernet(session, supernet_id)
    if known is None:
        _validate_space(session, bundle.space)
    elif known.bundle_sha256 != bundle.sha256:
        raise ConflictError(
            f"Supernet '{supernet_id}' has another bundle ({known.bundle_sha256[:12]}, given {bundle.sha256[:12]}). "
            "Choose another id, or delete that supernet first.",
            code="supernet_exists",
        )
    return known


def _validate_space(session: Session, space: SearchSpace) -> None:
    """Latency tables are keyed by the name of a space: one name, one space, whatever its number of classes."""
    try:
        known = get_space(session, space.name)
    except NotFoundError:
        return
    if space.with_classes(known.classes).fingerprint != known.fingerprint:
        raise ConflictError(
            f"The bundle's space is not the one this service knows as '{space.name}', for which it keeps latency "
            "tables. Give the bundle's space another name.",
            code="space_mismatch",
        )


def _set_default(session: Session, row: Supernet, *, wanted: bool) -> None:
    current = repositories.find_default_supernet(session)
    if current is row or not (wanted or current is None):
        return
    if current is not None:
        current.is_default = False
        session.flush()  # there may never be two
    row.is_default = True


def _validate_deletable(session: Session, row: Supernet) -> None:
    supernet_id = row.supernet_id
    if is_shipped(row):
        raise ConflictError(
            f"Supernet '{supernet_id}' comes with Tailor and would be there again after the next start. Leave it, and "
            "name another one in requests or make that the default.",
            code="shipped_supernet",
        )
    if repositories.has_deployments(session, supernet_id):
        raise ConflictError(
            f"Supernet '{supernet_id}' has deployments, which stay and refer to it. Register a new bundle under "
            "another id.",
            code="supernet_in_use",
        )
    for job in job_repository.list_unfinished(session):
        if job.payload.get("supernet_id") == supernet_id:
            raise ConflictError(
                f"The job {job.job_id} works on supernet '{supernet_id}'. Wait for its end, or cancel it with "
                f"POST /v1/jobs/{job.job_id}/cancel.",
                code="supernet_in_use",
            )
    others = [known for known in repositories.list_supernet_ids(session) if known != supernet_id]
    if row.is_default and others:
        raise ConflictError(
            f"Supernet '{supernet_id}' is the default. Make another one the default first (registering its bundle "
            f"again with default=true does); there are {', '.join(others[:20])}.",
            code="default_supernet",
        )
