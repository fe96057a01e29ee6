"""The progress of a run: a live table on a terminal, plain lines elsewhere."""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from statistics import fmean
from threading import Lock
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kuber.cli.alert_lines import SHORT_ID, AlertLines
from kuber.cli.console import WIDEST, Console
from kuber.domain.event import Event, utc_now
from kuber.settings import Settings
from kuber.views.delivery import DeliveryView, absorption, why_kept
from kuber.views.formatting import duration, percent, printable, sparkline
from kuber.views.run import EntityView, RunView

Clock = Callable[[], datetime]

REFRESHES = 4  # per second
EVALUATION_SECONDS = 5.0  # between lines on the final evaluation
WIDE = 100  # columns from which on a curve is drawn
_WIDEST_BAR = 40  # columns
_CURVE = 20  # rounds
_FEED = 5  # most deliveries below the table
_OTHER_ROWS = 6  # lines of the live table that are not entities
_STYLES = {"waiting": "dim", "done": "green", "failed": "red", "stopped": "yellow", "distilling": "magenta"}


def live_view(settings: Settings, console: Console) -> "LiveTable | PlainLines":
    """Return a live table for a terminal, plain lines for anything else."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTable(console, settings)
    return PlainLines(console, rounds=settings.num_rounds)


class LiveTable:
    """Table with a row for each entity, redrawn in place. A context manager."""

    def __init__(self, console: Console, settings: Settings, *, clock: Clock = utc_now) -> None:
        self._console = console
        self._settings = settings
        self._clock = clock
        self._view = RunView(rounds=settings.num_rounds)
        self._progress: dict[str, float] = {}  # of entities whose work step has started
        self._latest: deque[DeliveryView] = deque(maxlen=_FEED)
        self._alerts = AlertLines()
        self._since = clock()
        self._evaluated: tuple[int, int] | None = None  # models on the held-out test set, of all
        self._lock = Lock()  # rich draws from a thread of its own
        self._live = Live(
            console=console, refresh_per_second=REFRESHES, redirect_stdout=False, get_renderable=self.render
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def echo(self, sentence: str) -> None:
        """Print a sentence above the table."""
        self._console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        with self._lock:
            self._view.apply(event)
            if event.entity is None:
                self._progress.clear()
            else:
                self._progress.pop(event.entity, None)
                if event.kind == "absorbed":
                    self._latest.append(self._view.entity(event.entity).deliveries[-1])
            alert = self._alerts.line(event)
        if alert is not None and event.time >= self._since:  # else it is in the log of a resumed run
            self._console.print_folded(f"entity {event.entity}  round {event.round}  {alert}")

    def on_progress(self, entity: str, fraction: float) -> None:
        with self._lock:
            self._progress[entity] = fraction

    def on_evaluation(self, done: int, total: int) -> None:
        with self._lock:
            self._evaluated = done, total

    def render(self) -> RenderableType:
        """Return the current table, no higher than the terminal."""
        with self._lock:
            now = self._clock()
            room = max(1, self._console.height - _OTHER_ROWS - 2 * bool(self._evaluated))
            shown = self._busiest(room)
            rest = [entity for entity in self._view.entities.values() if entity not in shown]
            parts: list[RenderableType] = [self._header(now), "", self._table(shown, now)]
            if rest:
                parts.append(self._summary(rest))
            recent = list(self._latest)[::-1][: max(0, room - len(shown) - 1 - bool(rest))]
            if recent:
                parts += ["", *map(self._delivery, recent)]
            if self._evaluated:
                parts += ["", self._evaluation(*self._evaluated)]
            return Group(*parts)

    def _header(self, now: datetime) -> Text:
        settings = self._settings
        entities = "1 entity" if settings.num_entities == 1 else f"{settings.num_entities} entities"
        text = Text("KUber ", style="bold", no_wrap=True, overflow="ellipsis")
        dataset = settings.dataset.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        text.append(f"{settings.strategy} on {dataset}, {entities}, seed {settings.seed}", style="not bold")
        text.append(f"   {duration(self._view.stopwatch.seconds(now))}", style="not bold cyan")
        eta = self._view.eta_of_all(now)
        if eta and len(self._view.entities) == settings.num_entities:
            text.append(f", about {duration(eta)} left", style="not bold cyan")
        return text

    def _table(self, shown: list[EntityView], now: datetime) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("entity", no_wrap=True)
        table.add_column("round", justify="right", no_wrap=True)
        table.add_column("work", max_width=_WIDEST_BAR)  # shrinks on narrow terminals
        table.add_column("accuracy", justify="right", no_wrap=True)
        wide = self._console.width >= WIDE
        if wide:
            table.add_column("over time", no_wrap=True, min_width=_CURVE)
        for name in ("published", "absorbed"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("ETA", justify="right", no_wrap=True, min_width=5)
        table.add_column("state", no_wrap=True, min_width=10)
        for entity in shown:
            state = self._state(entity)
            eta = self._view.eta(entity.name, now)
            table.add_row(
                Text(printable(entity.name)),
                f"{entity.round}/{entity.rounds}",
                ProgressBar(total=1.0, completed=self._fraction(entity)),
                "-" if entity.accuracy is None else percent(entity.accuracy),
                *([self._curve(entity)] if wide else []),
                str(entity.published),
                str(entity.absorbed),
                "" if state == "done" else "-" if eta is None else duration(eta),
                Text(state, style=_STYLES.get(state, "")),
            )
        return table

    def _evaluation(self, done: int, total: int) -> Table:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(
            Text("held-out test set", no_wrap=True),
            ProgressBar(total=total, completed=done, width=_WIDEST_BAR),
            Text(f"{done} of {total} models", no_wrap=True),
        )
        return line

    def _curve(self, entity: EntityView) -> Text:
        return Text(sparkline([accuracy for _, accuracy in entity.history], width=_CURVE), style="cyan")

    def _delivery(self, delivery: DeliveryView) -> Text:
        text = Text(absorption(delivery, self._view.name_of), style="" if delivery.kept else "dim", no_wrap=True)
        text.truncate(min(self._console.width, WIDEST), overflow="ellipsis")
        return text

    def _busiest(self, room: int) -> list[EntityView]:
        """Return the entities to show, in order: all, or those that are working or changed last."""
        entities = list(self._view.entities.values())
        if len(entities) <= room:
            return entities
        chosen = sorted(entities, key=lambda entity: (entity.name in self._progress, entity.changed), reverse=True)
        names = {entity.name for entity in chosen[:room]}
        return [entity for entity in entities if entity.name in names]

    def _summary(self, rest: list[EntityView]) -> Text:
        states = Counter(self._state(entity) for entity in rest)
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        known = [entity.accuracy for entity in self._view.entities.values() if entity.accuracy is not None]
        mean = f"; mean accuracy {percent(fmean(known))}" if known else ""
        return Text(f"and {len(rest)} more: {counts}{mean}", style="dim", no_wrap=True, overflow="ellipsis")

    def _state(self, entity: EntityView) -> str:
        """Return the entity's state; `waiting` while its work step waits for a turn on the machine."""
        if entity.state in ("training", "distilling") and entity.name not in self._progress:
            return "waiting"
        return entity.state

    def _fraction(self, entity: EntityView) -> float:
        """Return how much of the current work step is done, 0 to 1."""
        if entity.state in ("training", "distilling"):
            return self._progress.get(entity.name, 0.0)
        return 0.0 if entity.state in ("joining", "waiting", "stopped", "failed") else 1.0


class PlainLines(AbstractContextManager["PlainLines"]):
    """Prints a short line for each notable event, without control characters.

    Events from before its creation, as in the log of a resumed run, print nothing.
    """

    def __init__(self, console: Console, *, rounds: int | None = None, clock: Clock = utc_now) -> None:
        self._console = console
        self._rounds = rounds
        self._alerts = AlertLines()
        self._since = self._evaluation_said = clock()
        self._clock = clock
        self._names: dict[str, str] = {}  # entity id -> name
        self._accuracies: dict[str, float] = {}  # of the entity's latest evaluation
        self._last_round: dict[str, int] = {}  # with a line, by entity name

    def __exit__(self, *_: object) -> None: ...

    def echo(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        if event.entity is None:
            return
        line = self._line(event, event.entity)
        if line is None:
            return
        self._last_round[event.entity] = event.round
        if event.time >= self._since:
            of = "" if self._rounds is None else f"/{self._rounds}"
            when = f"  round {event.round}{of}" if event.round else ""
            self._console.print_folded(f"entity {event.entity}{when}  {line}")

    def on_progress(self, entity: str, fraction: float) -> None:
        """Ignore progress within a work step."""

    def on_evaluation(self, done: int, total: int) -> None:
        """Print how many models are evaluated, every few seconds."""
        now = self._clock()
        if not done:
            self._evaluation_said = now
        elif done < total and (now - self._evaluation_said).total_seconds() >= EVALUATION_SECONDS:
            self._evaluation_said = now
            self.echo(f"{done} of {total} models are evaluated on the held-out test set")

    def _line(self, event: Event, entity: str) -> str | None:
        """Return the line of a notable event, or None for other events."""
        detail = event.detail
        match event.kind:
            case "joined":
                self._names[detail["id"]] = entity
                return f"joined with {detail['samples']:,} samples"
            case "evaluated":
                self._accuracies[entity] = detail["accuracy"]
                return None
            case "published":
                return self._with_accuracy(entity, f"published {detail['knowledge'][-SHORT_ID:]}")
            case "queued":
                return self._with_accuracy(entity, "will publish when the hub accepts it")
            case "sought" if not detail["candidates"]:
                return self._with_accuracy(entity, "found no better knowledge")
            case "absorbed":
                teachers = ", ".join(self._names.get(id, id[-SHORT_ID:]) for id in detail["publishers"])
                change = f"accuracy {percent(detail['before'])} -> {percent(detail['after'])}"
                line = f"{change}  {'absorbed' if detail['kept'] else 'did not keep'} knowledge of entity {teachers}"
                why = why_kept(detail.get("reason")) if detail["kept"] else ""
                return f"{line}; {why}" if why else line
            case "stopped":
                return {"crashed": "crashed", "away": "went offline", "left": "left"}[detail["reason"]]
            case "resumed":
                return "resumed"
            case "round-ended" if self._last_round.get(entity, 0) < event.round:
                return f"accuracy {percent(detail['accuracy'])}"
        return self._alerts.line(event)

    def _with_accuracy(self, entity: str, action: str) -> str:
        """Prefix an action with the entity's latest accuracy, which is unknown before its first evaluation."""
        accuracy = self._accuracies.get(entity)
        return action if accuracy is None else f"accuracy {percent(accuracy)}  {action}"
