"""Traces by OpenTelemetry, where its standard variables ask for them; without them, nothing is loaded.

Specification: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from kuber.errors import SettingsError

STOP_SECONDS = 3.0  # that a collector gets for the last spans
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
UNTRACED_URLS = "/healthz$,/metrics$"  # asked every few seconds, by machines

_provider: Any = None  # of this process, while it is traced


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces. SettingsError when they ask for what is not made here."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    asking = next((name for name in ("OTEL_TRACES_EXPORTER", *ENDPOINTS) if environ.get(name)), None)
    if exporter == "none" or asking is None:
        return False
    if exporter not in ("", "otlp"):
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {exporter!r}; KUber knows otlp and none.")
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; KUber speaks http/protobuf only.")
    return True


@contextmanager
def traced(service: str) -> Iterator[None]:
    """Trace this process under the name `service` while this is open, if the variables ask for it.

    Spans are sent by a thread of their own; those that a silent collector does not take in time are dropped. Raises
    SettingsError when OpenTelemetry is asked for and not installed.
    """
    global _provider
    if not wanted(os.environ):
        yield
        return
    try:
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        from kuber.tracing.redaction import provider_for
    except ImportError:
        raise SettingsError(
            "The OTEL_ variables ask for traces and OpenTelemetry is not installed: "
            "pip install 'kuber[tracing]', or set OTEL_SDK_DISABLED=true."
        ) from None
    _provider = provider_for(service)
    HTTPXClientInstrumentor().instrument(tracer_provider=_provider)
    try:
        yield
    finally:
        HTTPXClientInstrumentor().uninstrument()
        ending = threading.Thread(target=_provider.shutdown, name="last-spans", daemon=True)
        _provider = None
        ending.start()
        ending.join(STOP_SECONDS)


def follow_requests(app: Any) -> None:
    """Make a span of each request that this FastAPI application answers."""
    if _provider is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=_provider, excluded_urls=UNTRACED_URLS, exclude_spans=["receive", "send"]
        )


def follow_statements(engine: Any) -> None:
    """Make a span of each statement on this SQLAlchemy engine."""
    if _provider is not None:
        from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
        from opentelemetry.metrics import NoOpMeterProvider

        # Not by its instrumentor: that one takes a single engine, traces the pool too, and refuses SQLAlchemy 2.1.
        used = NoOpMeterProvider().get_meter("kuber").create_up_down_counter("connections")
        EngineTracer(_provider.get_tracer("kuber"), engine, used)  # type: ignore[no-untyped-call]


def span(name: str) -> Any:
    """A context manager: a span around what is done within, of which requests become part."""
    return nullcontext() if _provider is None else _provider.get_tracer("kuber").start_as_current_span(name)
