"""One page of numbers of a hub, for the terminal."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kuber.views.formatting import ago, printable, size
from kuber.wire.status import GrowthBody, RegistryStatusBody, VaultStatusBody

WIDTH = 80
_NAME, _NUMBER = 22, 17  # columns


@dataclass(frozen=True, kw_only=True, slots=True)
class NoStatus:
    """Reason why a service gives no numbers, and whether it runs all the same."""

    reason: str
    runs: bool = False


def status_lines(
    registry: RegistryStatusBody | NoStatus, vault: VaultStatusBody | NoStatus, *, addresses: tuple[str, str]
) -> list[str]:
    """Return the page of a registry and its vault at these addresses, in lines of at most WIDTH columns."""
    lines = [*_heading("Registry", addresses[0], registry)]
    if isinstance(registry, RegistryStatusBody):
        lines += _registry_lines(registry)
    lines += ["", *_heading("Vault", addresses[1], vault)]
    if isinstance(vault, VaultStatusBody):
        lines += _vault_lines(vault)
    return [line[:WIDTH].rstrip() for line in lines]


def _heading(service: str, address: str, status: RegistryStatusBody | VaultStatusBody | NoStatus) -> list[str]:
    if isinstance(status, NoStatus):
        return [
            f"{service} {printable(address)}: {'RUNS, BUT GIVES NO NUMBERS' if status.runs else 'NO ANSWER'}",
            *textwrap.wrap(printable(status.reason), WIDTH, initial_indent="  ", subsequent_indent="  "),
        ]
    version = f", version {printable(status.version)}"
    return [f"{service} {printable(address)}{version}", _row("", "now", "last day", "last week")]


def _registry_lines(status: RegistryStatusBody) -> Iterator[str]:
    yield _grown("entities", status.entities)
    yield _row("  active, blocked", _number(status.active), _number(status.blocked))
    yield _grown("records", status.records)
    yield _row("  visible", _number(status.visible))
    yield _row("  not yet verified", _number(status.pending))
    yield _row("  quarantined", _number(status.quarantined))
    yield _row("  withdrawn", _number(status.withdrawn))
    yield _row("tasks", _number(status.tasks))
    yield _grown("deliveries", status.deliveries)
    yield _grown("events", status.events)
    yield _row("  oldest", "-" if status.first_event is None else _moment(status.first_event, status.at))
    if status.removed_events or status.removed_records:
        removed = f"{_number(status.removed_events)} events, {_number(status.removed_records)} records"
        yield _row("  removed by age", removed)
    yield _row("database", size(status.database_bytes))
    yield _row("free disk", "-" if status.free_bytes is None else size(status.free_bytes))
    yield _row("last backup", "none known" if status.backup_at is None else _moment(status.backup_at, status.at))
    if status.backup_folder is not None:
        yield _row("  in", printable(status.backup_folder))


def _vault_lines(status: VaultStatusBody) -> Iterator[str]:
    yield _grown("blobs", status.blobs)
    bytes_ = status.blob_bytes
    yield _row("  bytes", size(bytes_.total), f"+{size(bytes_.day)}", f"+{size(bytes_.week)}")
    if status.total_quota:
        yield _row("  of at most", size(status.total_quota))
    yield _row("  pinned", _number(status.pinned))
    yield _row("  damaged, set aside", _number(status.damaged))
    yield _row("unfinished uploads", _number(status.uploads))
    if status.uploads:
        yield _row("  received", f"{size(status.received_bytes)} of {size(status.announced_bytes)}")
    yield _row("database", size(status.database_bytes))
    if status.free_bytes is not None:
        kept = f", {size(status.kept_free_bytes)} of it stay free" if status.kept_free_bytes else ""
        yield _row("free disk", size(status.free_bytes) + kept)


def _grown(name: str, growth: GrowthBody) -> str:
    return _row(name, _number(growth.total), f"+{_number(growth.day)}", f"+{_number(growth.week)}")


def _row(name: str, *values: str) -> str:
    """Return a line with a name and right-aligned values; a single long value is left-aligned."""
    if len(values) == 1 and len(values[0]) > _NUMBER:
        return f"  {name:<{_NAME}}{values[0]}"
    return f"  {name:<{_NAME}}" + "".join(f"{value:>{_NUMBER}}" for value in values)


def _number(count: int) -> str:
    return f"{count:,}"


def _moment(time: datetime, now: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC, {ago(max(0.0, (now - time).total_seconds()))} ago"
