"""The token comes before the body, and bodies in progress are bounded."""

import asyncio
import errno
import json
import sqlite3
from datetime import UTC, datetime

import httpx
import pytest
from starlette.exceptions import HTTPException

from kuber.domain.auth import Caller, Scope
from kuber.errors import ServiceError, ServiceUnavailableError
from kuber.services.http import json_route
from kuber.services.http.admission import Admission, Share
from kuber.services.http.exhaustion import exhausted_resource
from tests.fixtures.coroutines import run_coroutine

from .servers import sample_app

ENTITY = {"Authorization": "Bearer e-1"}


@pytest.fixture
def app():
    return sample_app()


def ask(app, *requests):
    """Send requests at once, each (method, path, options); return the responses."""

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            return await asyncio.gather(*(client.request(method, path, **more) for method, path, more in requests))

    return run_coroutine(run())


async def body_that_is_not_read():
    raise AssertionError("the body was read")
    yield b""


def test_the_token_comes_before_the_body(app):
    headers = {"Content-Type": "application/json"}
    wrong = headers | {"Authorization": "Bearer wrong"}
    for sent in (headers, wrong):
        (answer,) = ask(app, ("POST", "/v1/samples", {"content": body_that_is_not_read(), "headers": sent}))
        assert answer.status_code == 401


def test_a_caller_without_a_token_may_send_little(app):
    (answer,) = ask(app, ("POST", "/v1/joins", {"json": {"a": "b" * 70_000}}))
    assert answer.status_code == 413
    (answer,) = ask(app, ("POST", "/v1/joins", {"json": {"a": "b" * 1000}}))
    assert answer.status_code == 200
    assert app.state.admission.bodies.used == 0


def test_json_of_too_many_values_is_refused_before_it_is_parsed(app, monkeypatch):
    monkeypatch.setattr(json_route, "MAX_VALUES", 50_000)
    headers = ENTITY | {"Content-Type": "application/json"}
    bodies = [json.dumps({"a": [[] for _ in range(number)]}) for number in (50_000, 20_000)]
    requests = [("POST", "/v1/samples", {"content": body, "headers": headers}) for body in bodies]
    many, few = ask(app, *requests)
    assert (many.status_code, few.status_code) == (413, 200)
    assert app.state.admission.bodies.used == 0


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        ('{"a": "' + "b" * 70_000 + '"}', 200, None),
        ('{"a": "' + "b" * 70_000, 422, "The body of the request is not JSON; send a JSON object."),
        ("[" * 70_000, 422, "The body of the request is not JSON; send a JSON object."),
        ("[" + " " * 70_000 + "]", 422, "The field body is refused: input should be a valid dictionary"),
        ('{"a": ' + "1" * 70_000 + "}", 422, "The body of the request is not JSON; send a JSON object."),
    ],
    ids=["valid", "cut off", "deep", "no object", "a long number"],
)
def test_large_json_is_validated_as_small_json_is(app, content, status, sentence):
    (answer,) = ask(
        app, ("POST", "/v1/samples", {"content": content, "headers": ENTITY | {"Content-Type": "application/json"}})
    )
    assert answer.status_code == status
    if sentence:
        assert answer.json()["detail"].startswith(sentence)
    assert app.state.admission.bodies.used == 0


def test_bodies_in_progress_are_bounded_for_each_caller_and_in_all(app):
    bodies = app.state.admission.bodies
    bodies.each, bodies.total, bodies.least = 100_000, 150_000, 0
    bodies.take("e-1", 90_000)
    requests = [
        ("POST", "/v1/samples", {"json": {"a": "b" * 20_000}, "headers": {"Authorization": f"Bearer {token}"}})
        for token in ("e-1", "e-2", "secret")
    ]
    first, second, peer = ask(app, *requests)
    assert (first.status_code, first.headers["Retry-After"], first.json()["code"]) == (
        429,
        "1",
        "service-unavailable",
    )
    assert second.status_code == peer.status_code == 200
    bodies.take("e-3", 50_000)
    _, second, peer = ask(app, *requests)
    assert (second.status_code, second.headers["Retry-After"], peer.status_code) == (503, "1", 200)
    bodies.give("e-1", 90_000)
    assert [answer.status_code for answer in ask(app, *requests)] == [200] * 3
    assert bodies.used == 50_000


def test_what_a_caller_has_does_not_keep_small_bodies_of_others_out():
    share = Share(each=50, total=100, least=10)
    assert [share.take("a", 50), share.take("b", 50), share.take("c", 11), share.take("c", 10)] == [
        None,
        None,
        "total",
        None,
    ]


def test_streams_are_bounded_for_each_caller_and_in_all(app):
    app.state.admission.streams.each, app.state.admission.streams.total = 2, 3

    async def run():
        end = asyncio.Event()
        app.state.until_end = end.wait
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:

            def stream(token):
                return client.get("/v1/stream", headers={"Authorization": f"Bearer {token}"})

            followers = [asyncio.create_task(stream(token)) for token in ("e-1", "e-1", "e-2")]
            while app.state.admission.streams.used < 3:
                await asyncio.sleep(0)
            third, other = await stream("e-1"), await stream("e-2")
            end.set()
            ended = [answer.status_code for answer in await asyncio.gather(*followers)]
            return third, other, ended, await stream("e-1")

    third, other, ended, after = run_coroutine(run())
    assert (third.status_code, third.headers["Retry-After"]) == (429, "1")
    assert (other.status_code, other.headers["Retry-After"]) == (503, "1")
    assert ended == [200] * 3
    assert after.status_code == 200
    assert app.state.admission.streams.used == app.state.admission.requests.used == 0


def test_requests_are_bounded_for_each_caller():
    admission = Admission("registry")
    admission.resize(40)
    caller = Caller(scope=Scope.ENTITY, entity="e", expires_at=datetime.max.replace(tzinfo=UTC))
    scopes = [{} for _ in range(10)]
    for scope in scopes:
        admission.enter(scope, caller)
    with pytest.raises(HTTPException):
        admission.enter({}, caller)
    admission.leave(scopes[0])
    admission.enter({}, caller)


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "file descriptors"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (OSError(errno.ENOENT, "No such file"), None),
        (sqlite3.OperationalError("no such table"), None),
        (ValueError(), None),
    ],
)
def test_what_is_exhausted_is_a_503(app, error, resource):
    @app.get("/fails")
    def fails() -> None:
        try:
            raise error
        except Exception as cause:
            raise KeyError("wrapped") from cause

    assert exhausted_resource(error) == resource
    (answer,) = ask(app, ("GET", "/fails", {}))
    if resource:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["code"] == ServiceUnavailableError.code
    else:
        assert (answer.status_code, answer.json()["code"]) == (500, ServiceError.code)
