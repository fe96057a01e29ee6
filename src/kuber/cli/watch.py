"""`kuber watch`: a hub as it goes on, on the terminal."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Annotated

import typer

from kuber.cli.hub import REGISTRY_HERE, TOKEN, AdminToken, RegistryUrl
from kuber.cli.knowledge import IdentityFolder, open_registry
from kuber.cli.setting_options import Ca
from kuber.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from kuber.client.registry import HttpRegistry
    from kuber.domain.auth import AuditEntry
    from kuber.views import HubDelivery, HubEntity, HubView

REFRESHES = 4  # a second
PAUSE = 1.0  # seconds between two tries to reach a hub that is away
WIDE = 100  # columns from which on a curve is drawn
_FEED = 6  # most deliveries below the table
_OTHER_ROWS = 8  # lines that are neither an entity nor a delivery
_SHORT_ID = 8  # characters of an id that are shown: its last, as the first ones tell the time


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print what is there now, and end.")] = False,
    registry: RegistryUrl = REGISTRY_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Watch a hub: who is there, how good each is, who learnt from whom. Ctrl-C ends it."""
    from rich.console import Console

    from kuber.client.event_stream import EventReader
    from kuber.views import HubView

    console = Console()
    view = HubView()
    # Without patience: that the hub is away is told at once, and it is asked again.
    with open_registry(registry, identity, admin_token, ca, patience=0) as records:
        if once:
            EventReader(records, view.apply).read()
            console.print(HubScreen(console, view, records.url).render(whole=True))
        elif console.is_terminal and not console.is_dumb_terminal:
            _live(console, view, records)
        else:
            lines = HubLines(console, view)
            _follow(records, lines.apply, on_open=lines.found, on_away=lines.lose)


def _live(console: "Console", view: "HubView", records: "HttpRegistry") -> None:
    from rich.live import Live

    screen = HubScreen(console, view, records.url)
    with Live(console=console, refresh_per_second=REFRESHES, get_renderable=screen.render, screen=True):
        _follow(records, screen.apply, on_open=screen.found, on_away=screen.lose)


def _follow(
    records: "HttpRegistry",
    take: Callable[[int, "AuditEntry"], None],
    *,
    on_open: Callable[[], None],
    on_away: Callable[[str], None],
) -> None:
    """Read until Ctrl-C; a hub that is away is asked again."""
    from kuber.client.event_stream import EventReader

    reader = EventReader(records, take, on_open=on_open)
    while True:
        try:
            reader.read(follow=True)
            reason = f"The registry at {records.url} ended the connection."
        except ServiceUnavailableError as error:
            reason = error.message
        except KeyboardInterrupt:
            return
        on_away(reason)
        try:
            time.sleep(PAUSE)
        except KeyboardInterrupt:
            return


class HubScreen:
    """What a hub looks like now, no higher than the terminal; it is drawn from a thread of its own."""

    def __init__(
        self,
        console: "Console",
        view: "HubView",
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._console = console
        self._view = view
        self._url = url
        self._clock = clock
        self._away: str | None = None  # why
        self._lock = Lock()

    def apply(self, number: int, entry: "AuditEntry") -> None:
        """Take in an event."""
        with self._lock:
            self._view.apply(number, entry)

    def found(self) -> None:
        """Show that the hub is there again."""
        with self._lock:
            self._away = None

    def lose(self, reason: str) -> None:
        """Show that the hub is away, above what was known of it."""
        with self._lock:
            self._away = reason

    def render(self, *, whole: bool = False) -> "RenderableType":
        """The screen; `whole` leaves nobody out, however high it becomes."""
        from rich.console import Group
        from rich.text import Text

        from kuber.views import printable

        with self._lock:
            now = self._clock()
            parts: list[RenderableType] = [*self._header(now)]
            if self._away is not None:
                parts.append(Text(f"{printable(self._away)} Trying again.", style="bold red"))
            if not self._view.entities:
                parts += ["", Text("Nobody has joined yet. `kuber entity` and `kuber.Entity` do.", style="dim")]
                return Group(*parts)
            told = list(self._view.deliveries)[-_FEED:][::-1]
            room = max(1, self._console.height - _OTHER_ROWS - len(told) - (self._away is not None))
            ranked = self._view.ranked(now)
            shown = ranked if whole else ranked[:room]
            parts += ["", self._entities(shown, now)]
            if len(ranked) > len(shown):
                parts.append(Text(f"and {len(ranked) - len(shown)} more", style="dim"))
            if told:
                parts += ["", *(self._delivery(one, now) for one in told)]
            return Group(*parts)

    def _header(self, now: datetime) -> tuple["Text", "Text"]:
        from rich.text import Text

        view = self._view
        online = sum(one.online(now) for one in view.entities.values())
        title = Text("KUber ", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(self._url, style="not bold cyan")
        told = f"{online} of {len(view.entities)} online, {view.shelved} records, "
        told += f"{view.kept} of {view.delivered} deliveries kept"
        return title, Text(told, no_wrap=True, overflow="ellipsis")

    def _entities(self, shown: list["HubEntity"], now: datetime) -> "Table":
        from rich.table import Table
        from rich.text import Text

        from kuber.views import ago, percent, points, printable, sparkline

        wide = self._console.width >= WIDE
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("entity", overflow="ellipsis", no_wrap=True)
        for name in ("round", "accuracy"):
            table.add_column(name, justify="right", no_wrap=True)
        if wide:
            table.add_column("over time", no_wrap=True, min_width=24)
        for name in ("shared", "kept", "gained", "taught"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("seen", justify="right", no_wrap=True)
        for one in shown:
            here = one.online(now)
            label = Text("● " if here else "○ ", style="green" if here else "dim")
            label.append(printable(one.name), style="default" if here else "dim")
            curve = sparkline([accuracy for _, _, accuracy in one.curve], width=24)
            table.add_row(
                label,
                str(one.round),
                "-" if one.accuracy is None else percent(one.accuracy),
                *([Text(curve, style="cyan")] if wide else []),
                str(one.published),
                f"{one.absorbed}/{one.absorbed + one.declined}",
                points(one.gained) if one.absorbed else "-",
                str(one.taught),
                ago((now - one.seen).total_seconds()),
                style="" if here else "dim",
            )
        return table

    def _delivery(self, one: "HubDelivery", now: datetime) -> "Text":
        from rich.text import Text

        from kuber.views import absorption, ago

        text = Text(f"{ago((now - one.time).total_seconds()):>6}  ", style="dim", no_wrap=True, overflow="ellipsis")
        text.append(absorption(one, self._view.name_of), style="not dim" if one.kept else "dim")
        return text


class HubLines:
    """One line for each event, without control characters, where there is no terminal."""

    def __init__(self, console: "Console", view: "HubView") -> None:
        self._console = console
        self._view = view
        self._away: str | None = None  # why

    def apply(self, number: int, entry: "AuditEntry") -> None:
        """Take in an event, and tell it."""
        self._view.apply(number, entry)
        self._say(f"{entry.time:%H:%M:%SZ}  {self._line(entry)}")

    def found(self) -> None:
        """Tell that the hub is there again."""
        if self._away is not None:
            self._say("The registry answers again.")
        self._away = None

    def lose(self, reason: str) -> None:
        """Tell, once, that the hub is away."""
        if self._away is None:
            self._say(f"{reason} Trying again.")
        self._away = reason

    def _line(self, entry: "AuditEntry") -> str:
        from kuber.views import absorption, percent

        who = self._view.name_of(entry.actor)
        match entry.act:
            case "enrol":
                return f"{entry.subject} joined"
            case "report":
                total = sum(entry.detail.get("total", ()))
                told = f", accuracy {percent(sum(entry.detail['correct']) / total)}" if total else ""
                return f"{who} ended round {entry.detail.get('round', '?')}{told}"
            case "deliver" if "teachers" in entry.detail and self._view.deliveries:
                return absorption(self._view.deliveries[-1], self._view.name_of)
        return f"{who} {entry.act} {entry.subject[-_SHORT_ID:]}"

    def _say(self, line: str) -> None:
        from kuber.views import printable

        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
