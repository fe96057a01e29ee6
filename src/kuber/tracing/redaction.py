"""An exporter that strips addresses, tokens, names and error texts from spans. Loaded by `kuber.tracing` only."""

import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import Status
from opentelemetry.util.types import Attributes

# All other attributes may hold an id: the path, the query, the address of the caller. Statements hold no values.
ALLOWED = frozenset(
    {
        "http.method",
        "http.request.method",
        "http.route",
        "http.status_code",
        "http.response.status_code",
        "db.system",
        "db.system.name",
        "db.statement",
        "db.query.text",
        "error.type",
        "exception.type",
    }
)


def make_provider(service: str) -> TracerProvider:
    """Return a provider that sends redacted spans to the collector named by the environment variables."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(OTLPSpanExporter())))
    return provider


class RedactingExporter(SpanExporter):
    """Pass spans to another exporter with the ALLOWED attributes only, without statements outside of a request."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Redact and export these spans."""
        redacted = [_redact(span) for span in spans if not _without_request(span)]
        return self._exporter.export(redacted) if redacted else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_request(span: ReadableSpan) -> bool:
    """Return whether this is a statement outside of a request, such as those of a garbage collection."""
    return span.parent is None and any(name.startswith("db.") for name in span.attributes or ())


def _redact(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name.partition(" ")[0] if span.kind is SpanKind.CLIENT else span.name,  # the HTTP or SQL verb
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_allowed(span),
        events=[Event(event.name, _allowed(event), event.timestamp) for event in span.events],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _allowed(recorded: ReadableSpan | Event) -> Attributes:
    return {name: value for name, value in (recorded.attributes or {}).items() if name in ALLOWED}
