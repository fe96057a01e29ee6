"""Traces of real processes, as a collector receives them over HTTP."""

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kuber import tracing
from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.query import Query
from kuber.errors import ServiceError, SettingsError
from tests.fixtures.commands import called, finished
from tests.fixtures.hub import SigningRegistry, running_service
from tests.fixtures.waiting import LIMIT, wait_until


@dataclass
class Collector:
    url: str = ""
    raw: list[bytes] = field(default_factory=list)

    def spans(self) -> list[tuple[str, Span]]:
        """Return each span with the name of its service."""
        found = []
        for body in self.raw:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = [item.value.string_value for item in group.resource.attributes if item.key == "service.name"]
                found += [(names[0], span) for scope in group.scope_spans for span in scope.spans]
        return found

    def wait_for(self, *wanted: tuple[str, str]) -> list[tuple[str, Span]]:
        """Return the spans of the first trace that has all of these pairs of service and span name."""

        def whole() -> list[tuple[str, Span]]:
            traces = defaultdict(list)
            for service, span in self.spans():
                traces[span.trace_id].append((service, span))
            found = (
                spans for spans in traces.values() if set(wanted) <= {(service, span.name) for service, span in spans}
            )
            return next(found, [])

        return wait_until(whole, f"a trace with {wanted}")


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            made.raw.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_publication_is_one_trace_that_shows_no_name(own_hub, collector, samples, monkeypatch, tmp_path):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    hub = own_hub("--open-enrolment")
    me = Credentials()
    with tracing.traced("kuber-entity"), ExitStack() as stack:
        registry = stack.enter_context(SigningRegistry(hub.registry, credentials=me))
        vault = stack.enter_context(HttpVault(hub.vault, credentials=me))
        member = registry.register(samples.name())
        draft = samples.draft(member.id, vault.put(samples.weights()))
        with tracing.span("publish"):
            vault.put(samples.weights())
            record = registry.publish(draft, key="a-key-of-mine")
        registry.discover(Query(task=samples.task.name))
        registry.withdraw(record.id)  # its id is in the path, and a query parameter at the vault
        httpx.get(f"{hub.registry}/v1/nowhere/{member.id}?name={member.name}", trust_env=False)
        with pytest.raises(ServiceError):
            registry.report(samples.token, round=1)
        for _ in range(3):
            registry.check()  # /healthz

    spans = collector.wait_for(
        ("kuber-entity", "publish"),
        ("kuber-vault", "PUT /v1/blobs/{digest}"),
        ("kuber-registry", "POST /v1/knowledge"),
        ("kuber-vault", "POST /v1/pins"),
        ("kuber-registry", "INSERT"),
        ("kuber-vault", "INSERT"),
    )
    by_id = {span.span_id: span for _, span in spans}
    roots = [span for _, span in spans if span.parent_span_id not in by_id]
    assert [span.name for span in roots] == ["publish"]
    shown = {attribute.key for _, span in spans for attribute in span.attributes}
    assert "http.route" in shown or "http.status_code" in shown
    assert any(attribute.key == "db.statement" for _, span in spans for attribute in span.attributes)

    collector.wait_for(("kuber-registry", "DELETE /v1/knowledge/{id}"), ("kuber-vault", "DELETE /v1/pins"))
    collector.wait_for(("kuber-registry", "POST /v1/entities/{id}/reports"))
    sent = b"".join(collector.raw)
    for secret in (member.name, member.id, record.id, me.token(), hub.secret, samples.token, "a-key-of-mine"):
        assert secret.encode() not in sent
    assert not any("healthz" in span.name for _, span in collector.spans())

    collector.raw.clear()
    run_entity(hub, tmp_path)
    collector.wait_for(
        ("kuber-entity", "publish"), ("kuber-registry", "POST /v1/knowledge"), ("kuber-vault", "POST /v1/pins")
    )


def run_entity(hub, folder):
    """Run `kuber entity` to its end."""
    arguments = ["entity", "0", "--registry", hub.registry, "--vault", hub.vault, "--local-epochs", "1"]
    arguments += ["--dataset", "digits", "--architecture", "mlp", "--num-rounds", "1", "--num-entities", "2"]
    done = finished(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["registry", "vault"])
@pytest.mark.process
def test_a_collector_that_is_unreachable_or_silent_does_no_harm(tmp_path, monkeypatch, service):
    """The registry's collector does not listen; the vault's accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
        if service == "registry":
            silent.close()
        with running_service(service, tmp_path) as url, httpx.Client(trust_env=False, timeout=LIMIT) as client:
            for _ in range(100):  # an export is given up only after 10 s
                assert client.get(f"{url}/v1/{'entities' if service == 'registry' else 'blobs'}").status_code == 401
        # `running_service` checks that the service ends with exit code 0 and in time.


@pytest.mark.parametrize("command", [["registry"], ["vault"], ["entity", "0"]], ids=" ".join)
def test_without_the_extra_the_error_is_one_sentence(hide, tmp_path, monkeypatch, command):
    # FastAPI itself needs OpenTelemetry's API.
    hide("opentelemetry.sdk", "opentelemetry.instrumentation", "opentelemetry.exporter")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    done = called(*command, *([] if command[0] == "entity" else ["--port", "0"]))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: The OTEL_ variables ask for traces and OpenTelemetry is not"
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),  # the specification: an empty value means unset
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_the_variables_decide(environ, enabled):
    assert tracing.is_enabled(environ) is enabled


@pytest.mark.parametrize(
    "more",
    [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
    ids=lambda more: next(iter(more)),
)
def test_other_exporters_and_protocols_are_refused(more):
    with pytest.raises(SettingsError, match="KUber supports"):
        tracing.is_enabled({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **more})
