import math
import socket
import time

import pytest

from kuber.client.http import HttpService
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.errors import (
    KUberError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
    all_errors,
)
from kuber.wire import PROTOCOL
from kuber.wire.problem import problem_from
from kuber.wire.registry import HealthBody

HEALTH = HealthBody(status="ok", service="registry", protocol=PROTOCOL, version="1").model_dump_json().encode()

BAD = [
    "",
    "nowhere",
    "127.0.0.1:5001",
    "localhost:5001",
    "ftp://host",
    "http://",
    "http://a:b:c",
    "http://host:99999",
]
BAD += ["http://host/?a=b", "http://host/#top", "http://me:secret@host", "http://ho st", "http://\0"]
BAD += ["http://a..b:5001", f"http://{'a' * 64}.example:5001", f"http://{'a.' * 150}example"]


@pytest.fixture
def closed_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def client(script):
    """Return a registry client of a service that sends these replies, and the service."""
    clients = []

    def make(*replies, patience=10.0):
        service = script(*replies)
        clients.append(HttpService(service.url, service="registry", patience=patience))
        return clients[-1], service

    yield make
    for made in clients:
        made.close()


@pytest.mark.parametrize("error", all_errors())
def test_every_error_is_raised_as_itself(client, reply, error):
    problem = problem_from(error("Something is wrong; mend it."), 418)
    service, _ = client(reply(status=418, body=problem.model_dump_json().encode()), patience=0)
    with pytest.raises(KUberError, match=r"^Something is wrong; mend it\.$") as caught:
        service.request("GET", "/v1/knowledge")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("status", "error"), [(503, ServiceUnavailableError), (404, RequestRejectedError), (500, ServiceError)]
)
def test_an_unknown_error_is_classified_by_its_status(client, reply, status, error):
    problem = problem_from(NotAuthorizedError("Renew it."), status).model_dump() | {"code": "expired", "since": 3}
    service, _ = client(reply(status=status, body=str(problem).replace("'", '"').encode()), patience=0)
    with pytest.raises(error, match=r"^Renew it\.$") as caught:
        service.request("GET", "/")
    assert type(caught.value) is error


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}"])
def test_a_failure_without_a_problem_is_a_sentence_too(client, reply, body):
    service, _ = client(reply(status=500, body=body))
    with pytest.raises(ServiceError, match="failed with status 500"):
        service.request("GET", "/")


@pytest.mark.parametrize("make", [HttpRegistry, HttpVault])
def test_a_closed_port_is_one_sentence(closed_url, make):
    name = "registry" if make is HttpRegistry else "vault"
    with make(closed_url, patience=0.2) as service, pytest.raises(ServiceUnavailableError) as caught:
        service.check()
    assert caught.value.message == (
        f"No answer from the {name} at {closed_url}: is it running? Start it with `kuber {name}`."
    )


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("make", [HttpRegistry, HttpVault])
def test_an_invalid_address_is_a_settings_error(make, url):
    with pytest.raises(SettingsError, match="give one like http://"):
        make(url)


def test_an_address_may_have_a_path(client, reply, script):
    service = script(reply(body=HEALTH))
    with HttpRegistry(f"{service.url}/hub/") as registry:
        registry.check()
    assert service.requests[0][:2] == ("GET", "/hub/healthz")


@pytest.mark.process
@pytest.mark.parametrize("fixture", ["registry_url", "vault_url"])
def test_recognises_the_other_service(request, fixture):
    url = request.getfixturevalue(fixture)
    right, wrong = (HttpRegistry, HttpVault) if fixture == "registry_url" else (HttpVault, HttpRegistry)
    with right(url) as service:
        service.check()
    with wrong(url) as service, pytest.raises(ServiceError, match=r"is a KUber \w+, not a \w+; check the address"):
        service.check()


@pytest.mark.parametrize("status", [200, 400, 404, 405, 501])
def test_recognises_another_server(client, reply, status):
    service, _ = client(reply(status=status, body=b"It works!", headers={}))
    with pytest.raises(ServiceError, match="is not a KUber registry; check the address"):
        service.check()


def test_a_malformed_health_message_is_one_sentence(client, reply):
    service, _ = client(reply(body=b'{"status":"ok"}'))
    with pytest.raises(ServiceError, match="sent a malformed answer: The field service is refused: field required"):
        service.check()


@pytest.mark.parametrize(("version", "side"), [("2", "this client"), ("0", "the registry"), ("x", "the registry")])
def test_another_protocol_names_the_side_to_upgrade(client, reply, version, side):
    service, _ = client(reply(status=400, headers={"KUber-Protocol": version}))
    with pytest.raises(ServiceError, match=f"upgrade {side}"):
        service.check()


def test_a_service_refuses_another_protocol(registry_url):
    with HttpRegistry(registry_url) as registry, pytest.raises(RequestRejectedError, match="upgrade the registry"):
        registry.request("GET", "/healthz", headers={"KUber-Protocol": "2"})


def test_sends_its_protocol(client, reply):
    service, script = client(reply(body=HEALTH))
    service.check()
    assert script.requests[0][2]["kuber-protocol"] == "1"


RETRIED = {
    "get": {"method": "GET"},
    "head": {"method": "HEAD"},
    "put": {"method": "PUT", "content": b"x"},
    "key": {"method": "POST", "content": b"{}", "key": "one"},
    "idempotent": {"method": "POST", "content": b"{}", "idempotent": True},
}


@pytest.mark.parametrize("failure", [503, None], ids=["unavailable", "cut off"])
@pytest.mark.parametrize("call", RETRIED.values(), ids=RETRIED)
def test_retries_idempotent_requests(client, reply, call, failure):
    service, script = client(reply(status=failure), reply(status=failure), reply(body=b"done"))
    answer = service.request(path="/", **call)
    assert answer.status == 200
    assert len(script.requests) == 3
    assert {headers.get("idempotency-key") for *_, headers in script.requests} == {call.get("key")}


@pytest.mark.parametrize("failure", [503, None], ids=["unavailable", "cut off"])
def test_does_not_retry_other_requests(client, reply, failure):
    service, script = client(reply(status=failure), reply())
    with pytest.raises(ServiceUnavailableError):
        service.request("POST", "/", content=b"{}")
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 501])
def test_does_not_retry_refused_requests(client, reply, status):
    service, script = client(reply(status=status), reply())
    with pytest.raises(ServiceError):
        service.request("GET", "/")
    assert len(script.requests) == 1


def test_loses_patience(client, reply):
    service, script = client(reply(status=503), patience=0.3)
    with pytest.raises(ServiceUnavailableError):
        service.request("GET", "/")
    assert len(script.requests) > 1


@pytest.mark.parametrize("headers", [{}, {"KUber-Protocol": "1"}], ids=["intermediary", "service"])
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 520, 522, 524, 530])
def test_a_gateway_without_its_service_is_unavailable(client, reply, status, headers):
    page = b"<h1>Gateway</h1>"
    service, script = client(*[reply(status=status, body=page, headers=headers)] * 2, reply(body=HEALTH))
    service.check()
    assert len(script.requests) == 3


def test_a_gateway_that_stays_without_its_service_is_one_sentence(client, reply):
    service, _ = client(reply(status=502, headers={}), patience=0)
    with pytest.raises(ServiceUnavailableError) as caught:
        service.check()
    assert caught.value.message == (
        f"The registry at {service.url} is not available now: an intermediary, such as a proxy, answers for it with "
        "status 502; try again."
    )


def test_a_limit_on_requests_is_kept(client, reply):
    """A service that wants a longer pause than there is patience is not sent another request."""
    headers = {"Retry-After": "60"}
    service, script = client(reply(status=429, headers=headers), reply(body=HEALTH))
    with pytest.raises(ServiceUnavailableError) as caught:
        service.check()
    assert (len(script.requests), caught.value.retry_after) == (1, 60)
    service, script = client(reply(status=429, headers={"Retry-After": "1"}), reply(body=HEALTH))
    began = time.monotonic()
    service.check()
    assert time.monotonic() - began >= 1


IN_THE_WAY = {
    401: r"Something between us and the registry at \S+ asks for a login \(status 401\): log in there, or have it",
    403: r"Something between us and the registry at \S+ forbids the request \(status 403\): have it let requests",
    407: r"The proxy between us and the registry at \S+ asks for a login \(status 407\): give it in the variable",
}


@pytest.mark.parametrize("status", IN_THE_WAY)
def test_an_intermediary_in_the_way_is_one_sentence(client, reply, status):
    """It says nothing about the token, which is not renewed; the entity may wait, but a retry is in vain."""
    service, script = client(reply(status=status, body=b"<html>", headers={}), reply())
    with pytest.raises(ServiceUnavailableError, match=f"^{IN_THE_WAY[status]}.*\\.$") as caught:
        service.check()
    assert (len(script.requests), caught.value.retry_after) == (1, math.inf)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_names_the_new_address(client, reply, status):
    headers = {"Location": "https://hub.example/registry/healthz"}
    service, script = client(reply(status=status, headers=headers), reply())
    with pytest.raises(ServiceUnavailableError) as caught:
        service.check()
    assert caught.value.message == (
        f"The registry at {service.url} has moved to 'https://hub.example/registry' (status {status}): give that "
        "address."
    )
    assert len(script.requests) == 1


@pytest.mark.parametrize("target", ["/login?next=1", "https://login.example/", "http://[", ""])
def test_a_redirection_to_a_login_names_it(client, reply, target):
    service, _ = client(reply(status=302, headers={"Location": target}))
    with pytest.raises(
        ServiceUnavailableError, match=r"are redirected to '\S+' \(status 302\), as to the page of a login"
    ):
        service.check()


def test_plain_http_to_a_port_for_https_is_one_sentence(client, reply):
    page = b"<center>The plain HTTP request was sent to HTTPS port</center>"
    service, _ = client(reply(status=400, body=page, headers={}))
    with pytest.raises(ServiceUnavailableError, match=r"uses TLS: give its address with https://\.$"):
        service.check()


@pytest.mark.parametrize("headers", [{}, {"KUber-Protocol": "1"}], ids=["intermediary", "service"])
def test_a_limit_on_bodies_is_one_sentence(client, reply, headers):
    service, _ = client(reply(status=413, body=b"<html>", headers=headers))
    with pytest.raises(RequestRejectedError) as caught:
        service.request("POST", "/v1/knowledge", content=b"x" * 2_100_000)
    assert caught.value.message == (
        "Something between us and the registry takes no body of 2.1 MB (status 413); raise its limit, such as "
        "client_max_body_size of nginx."
    )


def test_a_wrongly_encoded_answer_is_one_sentence(client, reply):
    headers = {"KUber-Protocol": "1", "Content-Encoding": "gzip"}
    service, _ = client(reply(body=b"not gzip", headers=headers))
    with pytest.raises(ServiceError, match="cannot be read"):
        service.request("GET", "/")


def test_stops_reading_an_endless_answer(client, reply, monkeypatch):
    monkeypatch.setattr("kuber.client.http.MAX_ANSWER", 1000)
    service, _ = client(reply(body=bytes(1001)))
    with pytest.raises(ServiceError, match="more than 1000 bytes"):
        service.request("GET", "/")
