"""What a service counts of itself, for Prometheus: one set of metrics for each application."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.responses import Response
from starlette.types import Scope

import kuber
from kuber.services.database import Database
from kuber.wire import PROTOCOL

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOW = 300.0  # seconds; whoever asked within this and the part of the next that has gone by is online
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNMATCHED = "unmatched"  # in place of a path without a route: callers may send any, and a label holds few values

# Else each count would have a second series, the time it began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Series:
    """Where the requests of one method, route and status are counted."""

    seconds: Histogram
    received: Counter
    sent: Counter
    act: Counter | None


class Metrics:
    """The metrics of one application, which other parts of it add theirs to. Safe to use from several threads."""

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        told = {"service": service, "version": kuber.__version__, "protocol": str(PROTOCOL)}
        build = Gauge("kuber_build_info", "What runs here; always 1.", list(told), registry=self._registry)
        build.labels(**told).set(1)
        labels = ("method", "route", "status")
        self._seconds = Histogram(
            "kuber_http_request_seconds",
            "Requests, by the seconds from their head to the end of their answer.",
            labels,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._received = self.counter("kuber_http_received_bytes", "Bytes of bodies that came in.", "route")
        self._sent = self.counter("kuber_http_sent_bytes", "Bytes of bodies that were sent.", "route")
        self._under_way = self.gauge("kuber_http_requests_under_way", "Requests whose answer has not ended.")
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._acts: dict[tuple[str, str, int], Counter] = {}

    def counter(self, name: str, told: str, *labels: str) -> Counter:
        """A new metric that only rises; its name is told with `_total` behind it."""
        return Counter(name, told, labels, registry=self._registry)

    def gauge(self, name: str, told: str, read: Callable[[], float] | None = None) -> Gauge:
        """A new metric that rises and falls; `read` tells it when it is asked for."""
        made = Gauge(name, told, registry=self._registry)
        if read is not None:
            made.set_function(read)
        return made

    def count_answers(self, method: str, route: str, status: int, counted: Counter) -> None:
        """Count a route's answers of this status in a metric of their own, too."""
        self._acts[method, route, status] = counted

    def watch(self, database: Database) -> None:
        """Tell of a database's writes."""
        groups = Histogram(
            "kuber_database_group_writes", "Commits, by the writes in them.", buckets=WRITES, registry=self._registry
        )
        seconds = Histogram(
            "kuber_database_group_seconds", "Commits, by their seconds.", buckets=SECONDS, registry=self._registry
        )
        failed = self.counter("kuber_database_failed_groups", "Commits that failed, and all writes in them.")
        self.gauge("kuber_database_waiting_writes", "Writes that wait for a commit.", lambda: database.waiting)

        def count(writes: int, took: float, done: bool) -> None:
            groups.observe(writes)
            seconds.observe(took)
            if not done:
                failed.inc()

        database.on_group = count

    def begun(self) -> None:
        """A request came."""
        self._under_way.inc()

    def ended(self, scope: Scope, status: int, *, seconds: float, received: int, sent: int) -> None:
        """Its answer ended, or nobody was left to hear it: status 0."""
        self._under_way.dec()
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else "other"
        series = self._series.get((method, route, status))
        if series is None:
            series = self._series[method, route, status] = _Series(
                seconds=self._seconds.labels(method, route, str(status)),
                received=self._received.labels(route),
                sent=self._sent.labels(route),
                act=self._acts.get((method, route, status)),
            )
        series.seconds.observe(seconds)
        series.received.inc(received)
        series.sent.inc(sent)
        if series.act is not None:
            series.act.inc()

    def told(self) -> Response:
        """All of it, in Prometheus's text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class Presence:
    """How many entities asked of late. At most two windows of them are held."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._now: set[str] = set()
        self._before: set[str] = set()

    def note(self, entity: str) -> None:
        """This one asked."""
        self._turn()
        self._now.add(entity)

    def count(self) -> int:
        """How many asked within the last window, and the part of this one that has gone by."""
        self._turn()
        return len(self._now | self._before)

    def _turn(self) -> None:
        gone = self._monotonic() - self._since
        if gone >= WINDOW:
            self._before = self._now if gone < 2 * WINDOW else set()
            self._now, self._since = set(), self._monotonic()
