"""Pins of architectures: the manifest that the visible records of one name and arguments have in common."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, insert, or_, select, update

from kuber.domain.architecture_pin import ArchitecturePin
from kuber.domain.auth import OPERATOR, UNPIN
from kuber.domain.builtin_architectures import builtin_manifest
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, Manifest, TensorSpec
from kuber.domain.publication_checks import check_pinned
from kuber.domain.record_memory import architecture_memory, manifest_memory
from kuber.domain.verification import Standing
from kuber.errors import KnowledgeNotFoundError
from kuber.services.db.cache import SizedCache
from kuber.services.registry.audit import add_entry
from kuber.services.registry.schema import architectures, knowledge
from kuber.wire.base import canonical
from kuber.wire.registry import ArchitectureBody

CACHED = 32 << 20  # bytes of architectures
_PIN_BYTES = 500  # of a pin without its arguments, as JSON, about

_read_architectures: SizedCache[str, Architecture] = SizedCache(CACHED)

_row, _record = architectures.c, knowledge.c
_VISIBLE: ColumnElement[bool] = and_(
    _record.withdrawn_at.is_(None), or_(_record.standing.is_(None), _record.standing != Standing.QUARANTINED.value)
)
# Built once: SQLAlchemy takes longer to build a statement than to run it.
_PINNED = select(_row.seq, _row.body).where(_row.pin == bindparam("key"))
_USED = select(_record.seq).where(_record.architecture == bindparam("architecture"), _VISIBLE).limit(1)
_INSERT = insert(architectures)
PINS = select(_row.seq, _row.pin, _row.name, _row.arguments).order_by(_row.seq)  # without the long manifests


class ArchitecturePins:
    """Row numbers of architectures, and the check that one name and arguments have one manifest.

    The pin goes with the last visible record: the row of one whose records are all hidden gives it up to the next
    publisher. Rows that a reader saw are cached: those of a writer may be rolled back.
    """

    def __init__(self, *, shared: bool) -> None:
        """In a database that other processes share, nothing is cached: they may move a pin."""
        self._shared = shared
        self._cache: SizedCache[str, tuple[int, Manifest]] = SizedCache(CACHED)  # pin -> row number and manifest

    def learn(self, connection: Connection, architecture: Architecture) -> None:
        """Cache the row of an architecture. ConflictError when it is pinned to another manifest."""
        pin = pin_of(architecture)
        pinned = self._cache.get(pin)
        if pinned is None or not _is_same(pinned, architecture):
            pinned = _pinned(connection, pin)
        if pinned is None or _gives_up(connection, pinned, architecture):
            self._cache.drop(pin)
        elif not self._shared:
            self._cache.put(pin, pinned, manifest_memory(pinned[1]))

    def row(self, connection: Connection, architecture: Architecture) -> int:
        """Return the row number of an architecture; insert a row if it has none. ConflictError as `learn`."""
        pin = pin_of(architecture)
        pinned = self._cache.get(pin)
        if pinned is None or not _is_same(pinned, architecture):
            pinned = _pinned(connection, pin)
        if pinned is not None:
            if not _gives_up(connection, pinned, architecture):
                return pinned[0]
            _free(connection, pinned[0], pin)
            self._cache.drop(pin)
        row = {
            "name": architecture.name,
            "arguments": _arguments(architecture),
            "pin": pin,
            "body": canonical(ArchitectureBody.of(architecture)).decode(),
        }
        key = connection.execute(_INSERT, row).inserted_primary_key
        assert key is not None
        seq: int = key[0]
        return seq

    def forget(self, pin: str) -> None:
        """Forget a row whose pin the operator has removed."""
        self._cache.drop(pin)


def pin_of(architecture: Architecture) -> str:
    """Return the key that a manifest is pinned to: the digest of name and arguments, as hex digits."""
    return _pin(architecture.name, _arguments(architecture), bool(architecture.manifest))


def read_architecture(body: str) -> Architecture:
    """Return the architecture in a row's body; the same object for the same body, while it is cached."""
    found = _read_architectures.get(body)
    if found is None:
        values = json.loads(body)
        # The registry has checked the manifest before it stored it; to check thousands of tensors again takes long.
        manifest = {
            name: TensorSpec(dtype=tensor["dtype"], shape=tuple(tensor["shape"]))
            for name, tensor in values.pop("manifest").items()
        }
        bare = ArchitectureBody.model_validate_json(json.dumps({**values, "manifest": {}}))
        found = replace(bare.value(), manifest=manifest)
        _read_architectures.put(body, found, architecture_memory(found) + 2 * len(body))
    return found


def pin_sizes(_connection: Connection, rows: Sequence[Row[Any]]) -> list[int]:
    """Return about how many bytes of JSON these rows of `PINS` are."""
    return [_PIN_BYTES + len(row.arguments) for row in rows]


def read_pins(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[ArchitecturePin, ...]:
    """Return the pins of these rows of `PINS`, each with its number of visible records; not those given up."""
    count = select(_record.architecture, func.count()).where(_VISIBLE).group_by(_record.architecture)
    found = connection.execute(count.where(_record.architecture.in_([row.seq for row in rows]))).all()
    visible: dict[int, int] = {seq: number for seq, number in found}
    return tuple(
        ArchitecturePin(pin=row.pin, name=row.name, arguments=_read(row.arguments), records=visible.get(row.seq, 0))
        for row in rows
        if row.pin in (_pin(row.name, row.arguments, tensors) for tensors in (True, False))
    )


def remove_pin(connection: Connection, pin: str, now: datetime) -> None:
    """Remove a pin for the operator. KnowledgeNotFoundError when there is none; records keep their architecture."""
    row = connection.execute(select(_row.seq, _row.name).where(_row.pin == pin)).one_or_none()
    if row is None:
        raise KnowledgeNotFoundError(f"The registry has no pin {pin[:100]!r}.")
    _free(connection, row.seq, pin)
    add_entry(connection, now, OPERATOR, UNPIN, pin, {"architecture": row.name})


def _pinned(connection: Connection, pin: str) -> tuple[int, Manifest] | None:
    row = connection.execute(_PINNED, {"key": pin}).one_or_none()
    return None if row is None else (row.seq, read_architecture(row.body).manifest)


def _is_same(pinned: tuple[int, Manifest], architecture: Architecture) -> bool:
    return dict(pinned[1]) == dict(architecture.manifest)


def _gives_up(connection: Connection, pinned: tuple[int, Manifest], architecture: Architecture) -> bool:
    """Return whether a row gives up its pin to this architecture; False when both are the same.

    It does when no record of it is visible, or when the architecture is built in and the row is not: it is of an
    earlier version. ConflictError when it does not.
    """
    seq, manifest = pinned
    if _is_same(pinned, architecture):
        return False
    if builtin_manifest(architecture) is None and connection.scalar(_USED, {"architecture": seq}) is not None:
        check_pinned(architecture, manifest)
    return True


def _free(connection: Connection, seq: int, pin: str) -> None:
    """Take its pin from a row; its records stay readable."""
    connection.execute(
        update(architectures).where(_row.seq == seq).values(pin=Digest.of(f"{pin}\nfreed {seq}".encode()).hex)
    )


def _arguments(architecture: Architecture) -> str:
    return json.dumps(dict(architecture.arguments), sort_keys=True, separators=(",", ":"))


def _read(arguments: str) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(arguments).items()}


def _pin(name: str, arguments: str, tensors: bool) -> str:
    parts = json.dumps(name).encode(), b"\n", arguments.encode()
    # A record without a manifest does not pin the tensors of the records that have one.
    return Digest.of(*parts, b"" if tensors else b"\nno tensors").hex
