"""What a service counts of itself, for Prometheus: one set of metrics for each application."""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import Scope

import kuber
from kuber.services.db.database import Database
from kuber.wire import PROTOCOL

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOW = 300.0  # seconds; whoever asked within this and the part of the next that has gone by is online
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNMATCHED = "unmatched"  # in place of a path without a route: callers may send any, and a label holds few values

# Else each count would have a second series, the time it began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class _Series:
    """The requests of one method, route and status."""

    __slots__ = ("buckets", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)  # requests that took longer than the bound before
        self.seconds = 0.0
        self.received = self.sent = 0


class Metrics(Collector):
    """The metrics of one application, which other parts of it add theirs to.

    Requests are begun, ended and told by one thread, that of the event loop: so they are counted without the locks of
    prometheus_client, which cost several times as much. All else is safe to use from several threads.
    """

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        told = {"service": service, "version": kuber.__version__, "protocol": str(PROTOCOL)}
        build = Gauge("kuber_build_info", "What runs here; always 1.", list(told), registry=self._registry)
        build.labels(**told).set(1)
        self._under_way = 0
        self._series: dict[tuple[str, str, int], _Series] = defaultdict(_Series)
        self._acts: list[tuple[str, str, tuple[str, str, int]]] = []
        self._registry.register(self)

    def counter(self, name: str, told: str) -> prometheus_client.Counter:
        """A new metric that only rises; its name is told with `_total` behind it."""
        return prometheus_client.Counter(name, told, registry=self._registry)

    def gauge(self, name: str, told: str, read: Callable[[], float] | None = None) -> Gauge:
        """A new metric that rises and falls; `read` tells it when it is asked for."""
        made = Gauge(name, told, registry=self._registry)
        if read is not None:
            made.set_function(read)
        return made

    def count_answers(self, name: str, told: str, method: str, route: str, status: int) -> None:
        """A new metric that counts a route's answers of this status."""
        self._acts.append((name, told, (method, route, status)))

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
        self._under_way += 1

    def ended(self, scope: Scope, status: int, *, seconds: float, received: int, sent: int) -> None:
        """Its answer ended, or nobody was left to hear it: status 0."""
        self._under_way -= 1
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else "other"
        series = self._series[method, route, status]
        series.buckets[bisect_left(SECONDS, seconds)] += 1
        series.seconds += seconds
        series.received += received
        series.sent += sent

    def collect(self) -> Iterator[Metric]:
        """What was counted of requests, for the registry of prometheus_client."""
        yield GaugeMetricFamily(
            "kuber_http_requests_under_way", "Requests whose answer has not ended.", self._under_way
        )
        times = HistogramMetricFamily(
            "kuber_http_request_seconds",
            "Requests, by the seconds from their head to the end of their answer.",
            labels=("method", "route", "status"),
        )
        received, sent = Counter[str](), Counter[str]()
        for (method, route, status), series in self._series.items():
            bounds = [*map(str, SECONDS), "+Inf"]
            below = list(zip(bounds, accumulate(series.buckets), strict=True))
            times.add_metric((method, route, str(status)), below, series.seconds)
            received[route] += series.received
            sent[route] += series.sent
        yield times
        for name, told, counts in (
            ("kuber_http_received_bytes", "Bytes of bodies that came in.", received),
            ("kuber_http_sent_bytes", "Bytes of bodies that were sent.", sent),
        ):
            family = CounterMetricFamily(name, told, labels=("route",))
            for route, count in counts.items():
                family.add_metric((route,), count)
            yield family
        for name, told, place in self._acts:
            count = sum(self._series[place].buckets) if place in self._series else 0
            yield CounterMetricFamily(name, told, count)

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
