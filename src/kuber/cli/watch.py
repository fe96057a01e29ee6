"""`kuber watch`: live view of a hub on the terminal."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Annotated

import typer

from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    OPERATOR_TOKEN,
    AdminToken,
    IdentityFolder,
    RegistryUrl,
    open_registry,
)
from kuber.cli.setting_options import Ca
from kuber.domain.event import utc_now
from kuber.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from kuber.cli.console import Console
    from kuber.client.registry import HttpRegistry
    from kuber.domain.auth import AuditEntry
    from kuber.views.delivery import HubDelivery
    from kuber.views.hub import HubEntity, HubView

REFRESHES = 4  # per second
PAUSE = 1.0  # seconds between two attempts to reach an unreachable hub
WIDE = 100  # columns from which on a curve is drawn
_FEED = 6  # most deliveries below the table
_OTHER_ROWS = 8  # lines that are neither entities nor deliveries
_SHORT_ID = 8  # last characters of an id that are shown; the first are a time


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Watch a hub live in the terminal. Shows entities, accuracies and deliveries; Ctrl-C ends it."""
    from kuber.cli.console import Console
    from kuber.client.event_stream import EventReader
    from kuber.views.hub import HubView

    console = Console()
    view = HubView()
    # No retries here: an unreachable hub is shown at once, and `_follow` reconnects.
    with open_registry(registry, identity, admin_token, ca, patience=0) as records:
        if once:
            reader = EventReader(records, view.apply, on_missed=partial(setattr, view, "missed_until"))
            reader.read()
            console.print(HubScreen(console, view, records.url).render(whole=True))
        elif console.is_terminal and not console.is_dumb_terminal:
            _live(console, view, records)
        else:
            _follow(records, HubLines(console, view))


def _live(console: "Console", view: "HubView", records: "HttpRegistry") -> None:
    from rich.live import Live

    screen = HubScreen(console, view, records.url)
    with Live(console=console, refresh_per_second=REFRESHES, get_renderable=screen.render, screen=True):
        _follow(records, screen)


def _follow(records: "HttpRegistry", shown: "HubScreen | HubLines") -> None:
    """Show events until Ctrl-C, reconnecting to an unreachable hub."""
    from kuber.client.event_stream import EventReader

    reader = EventReader(
        records,
        shown.apply,
        on_open=shown.mark_online,
        on_restart=shown.begin_again,
        on_missed=shown.note_missed,
    )
    while True:
        try:
            reader.read(follow=True)
            reason = f"The registry at {records.url} ended the connection."
        except ServiceUnavailableError as error:
            reason = error.message
        except KeyboardInterrupt:
            return
        shown.mark_offline(reason)
        try:
            time.sleep(PAUSE)
        except KeyboardInterrupt:
            return


def missed(until: datetime) -> str:
    """Return the notice about events that a hub has removed because of their age."""
    return f"The hub has removed reports and deliveries up to {until:%Y-%m-%d %H:%M} UTC."


class HubScreen:
    """Screen of a hub, no higher than the terminal. Rich draws it from its own thread."""

    def __init__(
        self, console: "Console", view: "HubView", url: str, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._console = console
        self._view = view
        self._url = url
        self._clock = clock
        self._offline: str | None = None  # the reason
        self._lock = Lock()

    def apply(self, number: int, entry: "AuditEntry") -> None:
        """Apply an event to the view."""
        with self._lock:
            self._view.apply(number, entry)

    def begin_again(self) -> None:
        """Forget what a hub that was restored from an older backup has lost."""
        with self._lock:
            self._view = type(self._view)()

    def note_missed(self, until: datetime) -> None:
        """Show that the hub has removed older events."""
        with self._lock:
            self._view.missed_until = until

    def mark_online(self) -> None:
        """Show that the hub answers again."""
        with self._lock:
            self._offline = None

    def mark_offline(self, reason: str) -> None:
        """Show why the hub is unreachable, above its last known state."""
        with self._lock:
            self._offline = reason

    def render(self, *, whole: bool = False) -> "RenderableType":
        """Return the screen; a `whole` one lists all entities, however high it becomes."""
        from rich.console import Group
        from rich.text import Text

        from kuber.views.formatting import printable

        with self._lock:
            now = self._clock()
            parts: list[RenderableType] = [*self._header(now)]
            if self._offline is not None:
                parts.append(Text(f"{printable(self._offline)} Retrying.", style="bold red"))
            if self._view.missed_until is not None:
                parts.append(Text(missed(self._view.missed_until), style="dim", no_wrap=True, overflow="ellipsis"))
            if not self._view.entities:
                sentence = "No entity has joined yet. Start one with `kuber entity` or `kuber.Entity`."
                return Group(*parts, "", Text(sentence, style="dim"))
            recent = list(self._view.deliveries)[-_FEED:][::-1]
            notices = (self._offline is not None) + (self._view.missed_until is not None)
            room = max(1, self._console.height - _OTHER_ROWS - len(recent) - notices)
            ranked = self._view.ranked(now)
            shown = ranked if whole else ranked[:room]
            parts += ["", self._entities(shown, now)]
            if len(ranked) > len(shown):
                parts.append(Text(f"and {len(ranked) - len(shown)} more", style="dim"))
            if recent:
                parts += ["", *(self._delivery(delivery, now) for delivery in recent)]
            return Group(*parts)

    def _header(self, now: datetime) -> tuple["Text", "Text"]:
        from rich.text import Text

        view = self._view
        online = sum(entity.online(now) for entity in view.entities.values())
        title = Text("KUber ", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(self._url, style="not bold cyan")
        totals = f"{online} of {len(view.entities)} entities online, {view.discoverable} records, "
        totals += f"{view.kept} of {view.delivered} deliveries kept"
        return title, Text(totals, no_wrap=True, overflow="ellipsis")

    def _entities(self, shown: list["HubEntity"], now: datetime) -> "Table":
        from rich.table import Table
        from rich.text import Text

        from kuber.views.formatting import ago, percent, points, printable, sparkline

        wide = self._console.width >= WIDE
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("entity", overflow="ellipsis", no_wrap=True)
        for name in ("round", "accuracy"):
            table.add_column(name, justify="right", no_wrap=True)
        if wide:
            table.add_column("over time", no_wrap=True, min_width=24)
        for name in ("published", "absorbed", "gained", "taught", "seen"):
            table.add_column(name, justify="right", no_wrap=True)
        for entity in shown:
            online = entity.online(now)
            label = Text("● " if online else "○ ", style="green" if online else "dim")
            label.append(printable(entity.name), style="default" if online else "dim")
            curve = sparkline([accuracy for _, _, accuracy in entity.curve], width=24)
            table.add_row(
                label,
                str(entity.round),
                "-" if entity.accuracy is None else percent(entity.accuracy),
                *([Text(curve, style="cyan")] if wide else []),
                str(entity.published),
                f"{entity.absorbed}/{entity.absorbed + entity.declined}",
                points(entity.gained) if entity.absorbed else "-",
                str(entity.taught),
                ago((now - entity.seen).total_seconds()),
                style="" if online else "dim",
            )
        return table

    def _delivery(self, delivery: "HubDelivery", now: datetime) -> "Text":
        from rich.text import Text

        from kuber.views.delivery import absorption
        from kuber.views.formatting import ago

        age = ago((now - delivery.time).total_seconds())
        text = Text(f"{age:>6}  ", style="dim", no_wrap=True, overflow="ellipsis")
        text.append(absorption(delivery, self._view.name_of), style="not dim" if delivery.kept else "dim")
        return text


class HubLines:
    """Prints a line for each event, without control characters, where there is no terminal."""

    def __init__(self, console: "Console", view: "HubView") -> None:
        self._console = console
        self._view = view
        self._offline: str | None = None  # the reason

    def apply(self, number: int, entry: "AuditEntry") -> None:
        """Apply an event to the view, and print it."""
        self._view.apply(number, entry)
        self._print(f"{entry.time:%H:%M:%SZ}  {self._line(entry)}")

    def begin_again(self) -> None:
        """Forget what a hub that was restored from an older backup has lost."""
        self._view = type(self._view)()
        self._print("The hub was restored from an older backup. All its events follow again.")

    def note_missed(self, until: datetime) -> None:
        """Print that the hub has removed older events."""
        self._view.missed_until = until
        self._print(missed(until))

    def mark_online(self) -> None:
        """Print that the hub answers again, if it was unreachable."""
        if self._offline is not None:
            self._print("The registry answers again.")
        self._offline = None

    def mark_offline(self, reason: str) -> None:
        """Print, once, why the hub is unreachable."""
        if self._offline is None:
            self._print(f"{reason} Retrying.")
        self._offline = reason

    def _line(self, entry: "AuditEntry") -> str:
        from kuber.views.delivery import absorption
        from kuber.views.formatting import percent

        actor = self._view.name_of(entry.actor)
        match entry.act:
            case "enrol":
                return f"{entry.subject} joined"
            case "report":
                total = sum(entry.detail.get("total", ()))
                accuracy = f", accuracy {percent(sum(entry.detail['correct']) / total)}" if total else ""
                return f"{actor} ended round {entry.detail.get('round', '?')}{accuracy}"
            case "deliver" if "teachers" in entry.detail and self._view.deliveries:
                return absorption(self._view.deliveries[-1], self._view.name_of)
        return f"{actor} {entry.act} {entry.subject[-_SHORT_ID:]}"

    def _print(self, line: str) -> None:
        self._console.print_folded(line)
