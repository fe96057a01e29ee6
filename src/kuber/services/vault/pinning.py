"""Pins for several holders, and the small blobs that come with them, in one transaction."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import BindParameter, Connection, bindparam, insert, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.domain.publication_checks import check_text
from kuber.errors import KUberError, ServiceError
from kuber.services.vault.artifact_verdicts import ValidArtifact, check_size, examine_bytes, require_valid
from kuber.services.vault.quota import check_quota
from kuber.services.vault.schema import blob_rows, pin_rows, verdict_rows
from kuber.wire.sent_blobs import decode_blob

if TYPE_CHECKING:
    from kuber.services.vault.store import VaultStore

P = ParamSpec("P")
T = TypeVar("T")

Pinned = Mapping[Digest, Manifest] | KUberError
"""Manifests of the pinned weights, or why nothing was pinned."""

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_DIGESTS: BindParameter[str] = bindparam("digests", expanding=True)
_HOLDERS: BindParameter[str] = bindparam("holders", expanding=True)
_SIZES = select(blob_rows.c.digest, blob_rows.c.size).where(blob_rows.c.digest.in_(_DIGESTS))
_HELD = select(pin_rows.c.holder, pin_rows.c.digest).where(pin_rows.c.holder.in_(_HOLDERS))
_JUDGED = select(verdict_rows.c.digest, verdict_rows.c.kind).where(verdict_rows.c.digest.in_(_DIGESTS))
_BLOB, _PIN, _VERDICT = insert(blob_rows), insert(pin_rows), insert(verdict_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class PinRequest:
    """Blobs to keep for a holder; those that were `sent`, as base64, are stored for their owner first."""

    holder: str
    artifacts: Sequence[tuple[str, Artifact]]  # with their kinds
    owner: str | None = None
    sent: Mapping[Digest, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A request whose artifacts are valid, and the bytes that were sent."""

    request: PinRequest
    valid: Mapping[tuple[str, Artifact], ValidArtifact]
    blobs: Mapping[Artifact, bytes]

    @property
    def manifests(self) -> Mapping[Digest, Manifest]:
        return {
            artifact.digest: found.manifest
            for (_, artifact), found in self.valid.items()
            if found.manifest is not None
        }


def pin_all(store: "VaultStore", requests: Iterable[PinRequest]) -> list[Pinned]:
    """Pin for each holder all of its artifacts or none; return the result or the refusal of each, in their order.

    As everywhere, the bytes of a blob are durable before there is a row.
    """
    checked = [_attempt(_check, store, request) for request in requests]
    with _stored(store, checked) as ready:
        if all(isinstance(found, KUberError) for found in ready):
            results: list[Pinned] = [found for found in ready if isinstance(found, KUberError)]
        else:
            results = store.database.write(lambda connection: _insert(connection, store, ready))
        _remove_refused(store, ready, results)
    return results


def _check(store: "VaultStore", request: PinRequest) -> _Checked:
    check_text(request.holder, "The name of a holder")
    blobs = {
        artifact: decode_blob(artifact, request.sent[artifact.digest])
        for artifact in {artifact for _, artifact in request.artifacts}
        if artifact.digest in request.sent
    }
    valid = {
        (kind, artifact): examine_bytes(blobs[artifact], kind, artifact)
        if artifact in blobs
        else require_valid(store, kind, artifact)
        for kind, artifact in dict.fromkeys(request.artifacts)
    }
    if blobs and _is_limited(store):  # again when they are inserted, but then their bytes are on the disk
        with store.database.read_snapshot() as connection:
            known = _sizes(connection, (artifact.digest.hex for artifact in blobs))
            new = [artifact for artifact in blobs if artifact.digest.hex not in known]
            _check_quotas(connection, store, new, request.owner)
    return _Checked(request, valid, blobs)


@contextmanager
def _stored(store: "VaultStore", checked: Sequence[_Checked | KUberError]) -> Iterator[list[_Checked | KUberError]]:
    """Store what was sent, and hold its locks until it is indexed. Yield the requests, with errors of the storage."""
    found = [each for each in checked if isinstance(each, _Checked)]
    blobs = {artifact.digest: data for each in found for artifact, data in each.blobs.items()}
    if not blobs:
        yield list(checked)
        return
    with store.lock(*blobs):
        ready = list(checked)
        try:
            store.storage.put_all(blobs)
        except ServiceError as error:
            _remove_unindexed(store, blobs)
            ready = [error if isinstance(each, _Checked) and each.blobs else each for each in checked]
        try:
            yield ready
        except ServiceError:
            _remove_unindexed(store, blobs)
            raise


def _remove_refused(store: "VaultStore", checked: Sequence[_Checked | KUberError], results: Sequence[Pinned]) -> None:
    """Remove the bytes that were stored for a request that was then refused."""
    for each, result in zip(checked, results, strict=True):
        if isinstance(result, KUberError) and isinstance(each, _Checked):
            _remove_unindexed(store, [artifact.digest for artifact in each.blobs])


def _remove_unindexed(store: "VaultStore", digests: Iterable[Digest]) -> None:
    """Remove bytes without a row; where that fails, the next start does it."""
    for digest in digests:
        with suppress(ServiceError):
            if store.size(digest) is None:
                store.storage.delete(digest)


def _insert(connection: Connection, store: "VaultStore", checked: Sequence[_Checked | KUberError]) -> list[Pinned]:
    """Insert rows of blobs, pins and verdicts with a few statements for all requests."""
    now = store.clock()
    found = [each for each in checked if isinstance(each, _Checked)]
    digests = {artifact.digest.hex for each in found for _, artifact in each.valid}
    sizes = _sizes(connection, digests)
    held = {tuple(row) for row in connection.execute(_HELD, {"holders": [each.request.holder for each in found]})}
    judged = {tuple(row) for row in connection.execute(_JUDGED, {"digests": sorted(digests)})}
    blobs: list[dict[str, Any]] = []
    pins: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    results: list[Pinned] = []
    for each in checked:
        if isinstance(each, KUberError):
            results.append(each)
            continue
        request = each.request
        new = [artifact for artifact in each.blobs if artifact.digest.hex not in sizes]
        try:
            if new and _is_limited(store):
                if blobs:  # they count
                    connection.execute(_BLOB, blobs)
                    blobs = []
                _check_quotas(connection, store, new, request.owner)
            for _, artifact in each.valid:
                if artifact not in new:
                    check_size(artifact, sizes.get(artifact.digest.hex))
        except KUberError as error:
            results.append(error)
            continue
        for artifact in new:
            sizes[artifact.digest.hex] = artifact.size
            store.total.add(artifact.size)
            row = {"digest": artifact.digest.hex, "size": artifact.size, "stored_at": now, "owner": request.owner}
            blobs.append({**row, "leased_until": now + store.lease})
        for digest in sorted({artifact.digest.hex for _, artifact in each.valid}):
            if (request.holder, digest) not in held:
                held.add((request.holder, digest))
                pins.append({"holder": request.holder, "digest": digest, "pinned_at": now})
        for (kind, artifact), valid in each.valid.items():
            if valid.new and (artifact.digest.hex, kind) not in judged:
                judged.add((artifact.digest.hex, kind))
                verdicts.append({"digest": artifact.digest.hex, "kind": kind, "fault": None})
        results.append(each.manifests)
    for statement, rows in ((_BLOB, blobs), (_PIN, pins), (_VERDICT, verdicts)):
        if rows:
            connection.execute(statement, rows)
    return results


def _is_limited(store: "VaultStore") -> bool:
    return bool(store.quota or store.total.quota)


def _check_quotas(connection: Connection, store: "VaultStore", new: Sequence[Artifact], owner: str | None) -> None:
    """Raise InsufficientStorageError when new blobs would exceed the owner's quota, or that of all."""
    check_quota(connection, *new, owner=owner, quota=store.quota)
    if owner is not None and new:
        store.total.check(sum(artifact.size for artifact in new), connection=connection)


def _sizes(connection: Connection, digests: Iterable[str]) -> dict[str, int]:
    """Return the sizes of those blobs that have a row, by their digest as hex digits."""
    return {row.digest: row.size for row in connection.execute(_SIZES, {"digests": sorted(digests)})}


def _attempt(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | KUberError:
    """Return the result of a call, or the error that it raises."""
    try:
        return do(*args, **kwargs)
    except KUberError as error:
        return error
