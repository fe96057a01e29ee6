"""The vault's questions to its registry, and answers that do not come from there."""

import asyncio
import json
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from starlette.exceptions import HTTPException

from kuber.domain.auth import Caller, Scope
from kuber.errors import NotAuthorizedError, ServiceUnavailableError
from kuber.services.http.application import problem
from kuber.services.http.auth import FOREVER, Origin
from kuber.services.vault.auth import READ_SECONDS, REFUSALS_PER_MINUTE, WRITE_SECONDS, VaultAccess
from kuber.wire.registry import CallerBody, TokenBody

SECRET = "s" * 40
TOKEN = "t" * 43
STRANGER, ANN = Origin(address="192.0.2.1"), Origin(address="192.0.2.2")


def run(coroutine):
    """Run it in another thread: after browser tests this one may have a running loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def ask(access, token=TOKEN, origin=ANN):
    return run(access.caller(token, origin))


def junk():
    return secrets.token_urlsafe(32)


class FakeRegistry:
    """Registry that knows some tokens, and counts what it is asked."""

    def __init__(self, *tokens):
        self.tokens = set(tokens)
        self.asked = Counter()
        self.now = 0.0

    def access(self):
        access = VaultAccess("http://127.0.0.1:9", SECRET, monotonic=lambda: self.now)
        access.close()
        access._client = httpx.Client(base_url=access.url, transport=httpx.MockTransport(self._answer))
        return closing(access)

    def _answer(self, request):
        token = TokenBody(**json.loads(request.content)).token
        self.asked[token] += 1
        headers = {"KUber-Protocol": "1"}
        if token not in self.tokens:
            refusal = problem(NotAuthorizedError("The token was revoked; enrol again."))
            return httpx.Response(refusal.status_code, headers=headers, content=refusal.body)
        caller = Caller(scope=Scope.ENTITY, entity="ann", expires_at=FOREVER)
        return httpx.Response(200, headers=headers, content=CallerBody.of(caller).model_dump_json())


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (502, {}, "The registry at {url} is not available now: an intermediary, such as a proxy, answers for it"),
        (401, {}, "Something between us and the registry at {url} asks for a login"),
        (200, {}, "The server at {url} is not a KUber registry; check the address."),
        (401, {"KUber-Protocol": "1"}, "The registry at {url} does not know this vault"),
        (200, {"KUber-Protocol": "1"}, "The vault's registry at {url} sends what the vault cannot read"),
    ],
)
def test_an_answer_that_says_nothing_about_the_token_is_unavailable(script, reply, status, headers, sentence):
    url = script(reply(status=status, body=b"<html>", headers=headers)).url
    with closing(VaultAccess(url, SECRET)) as access, pytest.raises(ServiceUnavailableError) as caught:
        ask(access)
    assert caught.value.message.startswith(sentence.format(url=url))


def test_a_registry_that_does_not_run_is_one_sentence():
    with (
        closing(VaultAccess("http://127.0.0.1:9", SECRET)) as access,
        pytest.raises(ServiceUnavailableError) as caught,
    ):
        ask(access)
    assert caught.value.message == (
        "No answer from the vault's registry at http://127.0.0.1:9: is it running? Start it with `kuber registry`."
    )


def test_what_has_not_the_form_of_a_token_is_refused_without_a_question():
    registry = FakeRegistry()
    with registry.access() as access:
        for token in ("token", "a" * 32, "a" * 44, "ä" * 43, "a" * 42 + "."):
            with pytest.raises(NotAuthorizedError, match="no token of a registry"):
                ask(access, token, STRANGER)
    assert not registry.asked


def test_a_refusal_is_remembered():
    registry = FakeRegistry()
    with registry.access() as access:
        for _ in range(3):
            with pytest.raises(NotAuthorizedError, match="was revoked"):
                ask(access)
    assert registry.asked == {TOKEN: 1}


def test_an_address_with_many_wrong_tokens_is_limited_and_only_there():
    other, late = junk(), junk()
    registry = FakeRegistry(TOKEN, other, late)
    with registry.access() as access:
        ask(access, TOKEN, STRANGER)
        for _ in range(REFUSALS_PER_MINUTE):
            with pytest.raises(NotAuthorizedError):
                ask(access, junk(), STRANGER)
        for token in (junk(), late):
            with pytest.raises(HTTPException) as caught:
                ask(access, token, STRANGER)
            assert caught.value.status_code == 429
            assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
        registry.now = READ_SECONDS
        assert ask(access, TOKEN, STRANGER).entity == "ann"  # it is known here, so it is checked again
        assert ask(access, other, ANN).entity == "ann"
    assert registry.asked.total() == REFUSALS_PER_MINUTE + 3


def test_an_ipv6_network_counts_as_one_address():
    with FakeRegistry().access() as access:
        for number in range(REFUSALS_PER_MINUTE):
            with pytest.raises(NotAuthorizedError):
                ask(access, junk(), Origin(address=f"2001:db8::{number:x}"))
        with pytest.raises(HTTPException):
            ask(access, junk(), Origin(address="2001:db8::ffff"))
        with pytest.raises(NotAuthorizedError):
            ask(access, junk(), Origin(address="2001:db8:0:1::1"))


def test_a_revoked_token_soon_writes_no_more_and_later_reads_no_more():
    registry = FakeRegistry(TOKEN)
    writes = Origin(writes=True)
    with registry.access() as access:
        ask(access)
        registry.tokens.clear()
        registry.now = WRITE_SECONDS - 0.1
        ask(access, origin=writes)
        registry.now = READ_SECONDS - 0.1
        ask(access)
        with pytest.raises(NotAuthorizedError):
            ask(access, origin=writes)
        with pytest.raises(NotAuthorizedError):
            ask(access)
    assert registry.asked == {TOKEN: 2}


def test_requests_with_one_token_share_a_question():
    registry = FakeRegistry(TOKEN)

    async def many(access):
        return await asyncio.gather(*(access.caller(TOKEN, ANN) for _ in range(20)))

    with registry.access() as access:
        assert {caller.entity for caller in run(many(access))} == {"ann"}
    assert registry.asked == {TOKEN: 1}


def test_one_address_does_not_hold_all_threads_of_a_silent_registry():
    registry = FakeRegistry(TOKEN)

    async def flood(access):
        stuck = access._unknown_checks
        strangers = [asyncio.create_task(access.caller(junk(), STRANGER)) for _ in range(stuck._queue)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stuck.running <= stuck._threads // 2
        found = await access.caller(TOKEN, ANN)
        await asyncio.gather(*strangers, return_exceptions=True)
        return found

    with registry.access() as access:
        assert run(flood(access)).entity == "ann"


def test_the_secret_of_the_hub_needs_no_question():
    registry = FakeRegistry()
    with registry.access() as access:
        assert ask(access, SECRET).scope is Scope.SERVICE
    assert not registry.asked
