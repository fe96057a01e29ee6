"""What leaves the process of a span: no address, token, name or text of an error. Loaded by `tracing` only."""

import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import Status
from opentelemetry.util.types import Attributes

# Everything else may hold an id: the path, the question, the address of the caller. Statements name no value.
SHOWN = frozenset(
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


def provider_for(service: str) -> TracerProvider:
    """A provider whose spans go to the collector that the variables name."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(OTLPSpanExporter())))
    return provider


class RedactingExporter(SpanExporter):
    """Hands spans on to another exporter with what is SHOWN, and without statements that no request asked for."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand these on."""
        told = [_redact(span) for span in spans if not _without_request(span)]
        return self._exporter.export(told) if told else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_request(span: ReadableSpan) -> bool:
    """A statement outside of a request, such as those of a collection."""
    return span.parent is None and any(name.startswith("db.") for name in span.attributes or ())


def _redact(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name.partition(" ")[0] if span.kind is SpanKind.CLIENT else span.name,  # a verb, of HTTP or SQL
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_shown(span),
        events=[Event(event.name, _shown(event), event.timestamp) for event in span.events],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _shown(of: ReadableSpan | Event) -> Attributes:
    return {name: value for name, value in (of.attributes or {}).items() if name in SHOWN}
