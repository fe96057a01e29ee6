"""Requests of an operator, which only the operator may send."""

import pytest

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.errors import KnowledgeNotFoundError, NotAuthorizedError, RequestRejectedError, ServiceUnavailableError


@pytest.fixture
def operator(hub):
    with AdminClient(hub.registry, hub.operator) as client:
        yield client


def test_distinguishes_the_operators_token_from_others(hub, operator, samples):
    operator.check_token()
    me = Credentials()
    with HttpRegistry(hub.registry, credentials=me) as registry:
        registry.register(samples.name())
    for token in (me.token(), hub.verifier, hub.secret, "x" * 43):
        with AdminClient(hub.registry, token) as client, pytest.raises(NotAuthorizedError) as caught:
            client.check_token()
        assert caught.value.message == (
            "This token is not the operator's; use the one in admin-token in the registry's folder."
        )


@pytest.mark.parametrize("token", ["", " ", "two words", "two\r\nlines", "x" * 201, "\u00e9", "\ud800"])
def test_a_malformed_token_is_not_the_operators(hub, token):
    with AdminClient(hub.registry, token, patience=0.2) as client:
        with pytest.raises(NotAuthorizedError, match="not the operator's"):
            client.check_token()
        with pytest.raises(NotAuthorizedError, match="no token"):
            client.audit()


def test_without_an_answer_no_token_is_refused(script, reply):
    service = script(reply(status=None))
    with AdminClient(service.url, "token", patience=0) as client, pytest.raises(ServiceUnavailableError):
        client.check_token()


@pytest.mark.parametrize("id", ["nothing", "", "..", "a/b", "a?block=true", "x" * 201, "\u00e9"])
def test_an_invalid_record_id_is_not_found(operator, id):
    for act in (lambda: operator.quarantine(id, "Because."), lambda: operator.release(id)):
        with pytest.raises(KnowledgeNotFoundError, match="has no knowledge"):
            act()


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 201])
def test_an_invalid_reason_is_not_sent(script, reply, reason):
    service = script(reply())
    with AdminClient(service.url, "token") as client, pytest.raises(RequestRejectedError, match="field reason"):
        client.quarantine("id", reason)
    assert not service.requests
