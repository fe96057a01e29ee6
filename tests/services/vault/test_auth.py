"""The vault's questions to its registry, and answers that do not come from there."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from kuber.errors import ServiceUnavailableError
from kuber.services.vault.auth import VaultAccess

SECRET = "s" * 40


def ask(access):
    """Ask for the caller of a token in another thread: after browser tests this one may have a running loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, access.caller("token")).result()


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
