"""Behaviour common to both services, tested on the running processes."""

import json
import math

import httpx
import pytest

from kuber.errors import ServiceUnavailableError
from kuber.services.http.application import application, problem
from kuber.services.http.metrics import Metrics
from kuber.wire.registry import HealthBody
from tests.fixtures.coroutines import run_coroutine

PROBLEM = "application/problem+json"
HEX = "sha256:" + "0" * 64


@pytest.fixture(params=["registry", "vault"])
def service(process, request):
    return request.getfixturevalue(f"{request.param}_service")


@pytest.fixture
def name(service):
    return service.log.stem


def test_healthz_names_service_protocol_and_version(service, name):
    answer = service.client.get("/healthz")
    found = HealthBody.read(answer.content)
    assert found == HealthBody(status="ok", service=name, protocol=1, version="0.1.0", hub=found.hub)
    assert (found.hub is not None) == (name == "registry")
    assert answer.headers["KUber-Protocol"] == "1"


@pytest.mark.parametrize(
    ("version", "side"), [("2", "upgrade the {}"), ("0", "upgrade the client"), ("x", "upgrade the client")]
)
def test_an_incompatible_client_is_refused_in_one_sentence(service, name, version, side):
    answer = service.client.get("/healthz", headers={"KUber-Protocol": version})
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert answer.json()["code"] == "request-rejected"
    assert side.format(name) in answer.json()["detail"]


def test_a_compatible_client_is_served(service):
    assert service.client.get("/healthz", headers={"KUber-Protocol": "1"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "There is no route /nothing"),
        ("GET", "/healthz/", 404, "There is no route"),
        ("DELETE", "/healthz", 405, "/healthz does not support DELETE"),
    ],
)
def test_an_unknown_route_or_method_is_a_problem(service, method, path, status, sentence):
    answer = service.client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.headers["KUber-Protocol"] == "1"
    problem = answer.json()
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, "request-rejected")
    assert problem["detail"].startswith(sentence)


def test_a_wrong_method_is_answered_with_the_allowed_ones(service, name):
    path, methods = {"registry": ("/v1/entities", "GET, POST"), "vault": (f"/v1/blobs/{HEX}", "GET, HEAD, PUT")}[name]
    assert service.client.delete(path).headers["allow"] == methods


def test_a_huge_body_is_refused(service, name):
    path = {"registry": "/v1/entities", "vault": "/v1/pins"}[name]

    def pieces():
        for _ in range(40):
            yield bytes(1 << 20)

    for body in (bytes(17 << 20), pieces()):
        answer = service.client.post(path, content=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "request-rejected")
    assert service.client.get("/healthz").status_code == 200


def test_openapi_describes_every_route(service, name):
    document = service.client.get("/openapi.json").json()
    routes = {
        "vault": {
            "/healthz",
            "/metrics",
            "/v1/blobs/{digest}",
            "/v1/blobs/{digest}/owner",
            "/v1/blobs",
            "/v1/uploads",
            "/v1/uploads/{id}",
            "/v1/pins",
            "/v1/pins/batch",
            "/v1/collections",
            "/v1/scrubs",
            "/v1/status",
        },
        "registry": {
            "/healthz",
            "/metrics",
            "/v1/entities",
            "/v1/entities/{id}",
            "/v1/entities/{id}/keys",
            "/v1/entities/{id}/tokens",
            "/v1/entities/{id}/reports",
            "/v1/tokens/check",
            "/v1/events",
            "/v1/news",
            "/v1/invitations",
            "/v1/audit",
            "/v1/knowledge",
            "/v1/knowledge/{id}",
            "/v1/knowledge/{id}/attestations",
            "/v1/knowledge/{id}/verification",
            "/v1/knowledge/{id}/quarantine",
            "/v1/deliveries",
            "/v1/architectures",
            "/v1/architectures/{pin}",
            "/v1/ids",
            "/v1/suspicions",
            "/v1/challenges",
            "/v1/entities/{id}/rekey",
            "/v1/status",
        },
    }
    assert set(document["paths"]) == routes[name]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert PROBLEM in operation["responses"]["4XX"]["content"]
            assert "422" not in operation["responses"]
            assert operation["description"] or operation["summary"]


def test_requests_are_logged_as_json(service, name):
    service.client.get("/healthz")
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert {"up", "request"} <= {line["message"] for line in lines}
    requests = [line for line in lines if line["message"] == "request" and line["path"] == "/healthz"]
    assert {"service": name, "method": "GET", "status": 200, "level": "info"}.items() <= requests[-1].items()


@pytest.mark.parametrize("kind", ["vault", "registry"])
def test_requests_beyond_the_limit_per_minute_are_refused(start, tmp_path, kind):
    service = start(kind, "--data", str(tmp_path / "data"), "--requests-per-minute", "5")
    del service.client.headers["Authorization"]  # with the secret of the hub there is no limit
    answers = [
        service.client.get("/healthz") for _ in range(12)
    ]  # a minute may end during these requests, but not twice
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 2
    assert refused[0].json()["code"] == "service-unavailable"  # so that clients retry
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60


def test_the_other_service_of_the_hub_has_no_limit_on_its_requests():
    app = application("vault", description="", metrics=Metrics("vault"), secret="s" * 40, requests_per_minute=2)

    async def scenario():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://vault") as client:
            inner, wrong = ({"Authorization": f"Bearer {letter * 40}"} for letter in "sw")
            statuses = [(await client.get("/healthz", headers=inner)).status_code for _ in range(5)]
            statuses += [(await client.get("/healthz", headers=wrong)).status_code for _ in range(3)]
            return [*statuses, (await client.get("/healthz", headers=inner)).status_code]

    assert run_coroutine(scenario()) == [*[200] * 7, 429, 200]


def test_an_error_that_says_when_to_try_again_says_so_in_its_header():
    assert problem(ServiceUnavailableError("Busy.", retry_after=1.2)).headers["Retry-After"] == "2"
    assert "Retry-After" not in problem(ServiceUnavailableError("Busy.")).headers
    assert "Retry-After" not in problem(ServiceUnavailableError("Never.", retry_after=math.inf)).headers
