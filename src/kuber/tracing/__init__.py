"""OpenTelemetry traces, if its standard environment variables ask for them; otherwise nothing is loaded.

Specification: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from kuber.errors import SettingsError

STOP_SECONDS = 3.0  # for a collector to take the last spans
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
UNTRACED_URLS = "/healthz$,/metrics$"  # polled by machines every few seconds

_provider: Any = None  # of this process, while it is traced


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Return whether the variables ask for traces. Raises SettingsError for an exporter or protocol KUber lacks."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    configured = any(environ.get(name) for name in ("OTEL_TRACES_EXPORTER", *ENDPOINTS))
    if exporter == "none" or not configured:
        return False
    if exporter not in ("", "otlp"):
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {exporter!r}; KUber supports otlp and none.")
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; KUber supports http/protobuf only.")
    return True


@contextmanager
def traced(service: str) -> Iterator[None]:
    """Trace this process under the name `service` inside the `with` block, if the variables ask for it.

    A background thread sends the spans; spans that the collector does not accept in time are dropped. Raises
    SettingsError when traces are asked for and OpenTelemetry is not installed.
    """
    global _provider
    if not is_enabled(os.environ):
        yield
        return
    try:
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        from kuber.tracing.redaction import make_provider
    except ImportError:
        raise SettingsError(
            "The OTEL_ variables ask for traces and OpenTelemetry is not installed: "
            "pip install 'kuber[tracing]', or set OTEL_SDK_DISABLED=true."
        ) from None
    _provider = make_provider(service)
    HTTPXClientInstrumentor().instrument(tracer_provider=_provider)
    try:
        yield
    finally:
        HTTPXClientInstrumentor().uninstrument()
        shutdown = threading.Thread(target=_provider.shutdown, name="last-spans", daemon=True)
        _provider = None
        shutdown.start()
        shutdown.join(STOP_SECONDS)


def instrument_app(app: Any) -> None:
    """Record a span for each request to this FastAPI application."""
    if _provider is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=_provider, excluded_urls=UNTRACED_URLS, exclude_spans=["receive", "send"]
        )


def instrument_engine(engine: Any) -> None:
    """Record a span for each statement on this SQLAlchemy engine."""
    if _provider is not None:
        from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
        from opentelemetry.metrics import NoOpMeterProvider

        # SQLAlchemyInstrumentor takes a single engine, traces the pool too, and refuses SQLAlchemy 2.1.
        used = NoOpMeterProvider().get_meter("kuber").create_up_down_counter("connections")
        EngineTracer(_provider.get_tracer("kuber"), engine, used)  # type: ignore[no-untyped-call]


def span(name: str) -> Any:
    """Return a context manager that records a span, the parent of the requests made within."""
    return nullcontext() if _provider is None else _provider.get_tracer("kuber").start_as_current_span(name)
