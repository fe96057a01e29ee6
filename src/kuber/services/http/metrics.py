"""Prometheus metrics of a service."""

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
WINDOW = 300.0  # seconds; an entity is online if it sent a request in this window or the one before
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNMATCHED = "unmatched"  # instead of a path without a route: callers may send any, and a label must have few values

# Otherwise each counter would have a second series, its creation time.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class _Series:
    """Requests of one method, route and status."""

    __slots__ = ("buckets", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)  # requests by the smallest bound that they did not exceed
        self.seconds = 0.0
        self.received = self.sent = 0


class Metrics(Collector):
    """Metrics of one application, to which its parts add their own.

    Requests are counted and reported by one thread, that of the event loop, hence without the locks of
    prometheus_client, which cost several times as much. All else is safe to use from several threads.
    """

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = {"service": service, "version": kuber.__version__, "protocol": str(PROTOCOL)}
        build = Gauge(
            "kuber_build_info", "Service, version and protocol; always 1.", list(labels), registry=self._registry
        )
        build.labels(**labels).set(1)
        self._under_way = 0
        self._series: dict[tuple[str, str, int], _Series] = defaultdict(_Series)
        self._response_counts: list[tuple[str, str, tuple[str, str, int]]] = []
        self._registry.register(self)

    def counter(self, name: str, description: str) -> prometheus_client.Counter:
        """Add a metric that only rises; Prometheus sees its name with the suffix `_total`."""
        return prometheus_client.Counter(name, description, registry=self._registry)

    def gauge(self, name: str, description: str, read: Callable[[], float] | None = None) -> Gauge:
        """Add a metric that rises and falls; `read` returns its value on each scrape."""
        gauge = Gauge(name, description, registry=self._registry)
        if read is not None:
            gauge.set_function(read)
        return gauge

    def count_responses(self, name: str, description: str, method: str, route: str, status: int) -> None:
        """Add a metric that counts the responses of a route with this status."""
        self._response_counts.append((name, description, (method, route, status)))

    def watch_database(self, database: Database) -> None:
        """Add metrics of the writes of a database."""
        groups = Histogram(
            "kuber_database_group_writes", "Commits, by the writes in them.", buckets=WRITES, registry=self._registry
        )
        seconds = Histogram(
            "kuber_database_group_seconds", "Commits, by their seconds.", buckets=SECONDS, registry=self._registry
        )
        failed = self.counter("kuber_database_failed_groups", "Commits that failed, and all writes in them.")
        self.gauge("kuber_database_waiting_writes", "Writes that wait for a commit.", lambda: database.waiting)

        def count(writes: int, took: float, succeeded: bool) -> None:
            groups.observe(writes)
            seconds.observe(took)
            if not succeeded:
                failed.inc()

        database.on_commit = count

    def count_start(self) -> None:
        """Count a request that has arrived."""
        self._under_way += 1

    def count_end(self, scope: Scope, status: int, *, seconds: float, received: int, sent: int) -> None:
        """Count a request whose response has ended; status 0 when the caller had disconnected before."""
        self._under_way -= 1
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else "other"
        series = self._series[method, route, status]
        series.buckets[bisect_left(SECONDS, seconds)] += 1
        series.seconds += seconds
        series.received += received
        series.sent += sent

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of requests, for the registry of prometheus_client."""
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
        for name, description, counts in (
            ("kuber_http_received_bytes", "Bytes of bodies that came in.", received),
            ("kuber_http_sent_bytes", "Bytes of bodies that were sent.", sent),
        ):
            family = CounterMetricFamily(name, description, labels=("route",))
            for route, count in counts.items():
                family.add_metric((route,), count)
            yield family
        for name, description, key in self._response_counts:
            count = sum(self._series[key].buckets) if key in self._series else 0
            yield CounterMetricFamily(name, description, count)

    def exposition(self) -> Response:
        """Return all metrics in Prometheus's text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class Presence:
    """Number of entities that recently sent a request. Holds the names of at most two windows."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._current: set[str] = set()
        self._previous: set[str] = set()

    def note(self, entity: str) -> None:
        """Note that this entity sent a request."""
        self._advance()
        self._current.add(entity)

    def count(self) -> int:
        """Return how many entities sent a request in the last window or the current one."""
        self._advance()
        return len(self._current | self._previous)

    def _advance(self) -> None:
        elapsed = self._monotonic() - self._since
        if elapsed >= WINDOW:
            self._previous = self._current if elapsed < 2 * WINDOW else set()
            self._current, self._since = set(), self._monotonic()
