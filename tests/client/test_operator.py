"""What an operator asks."""

import pytest

from kuber.client.operator import Operator
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError


@pytest.fixture
def operator(hub):
    with Operator(hub.registry, hub.operator) as client:
        yield client


@pytest.mark.parametrize("id", ["nothing", "", "..", "a/b", "a?block=true", "x" * 201, "\u00e9"])
def test_what_is_no_record_is_not_found(operator, id):
    for act in (lambda: operator.quarantine(id, "Because."), lambda: operator.release(id)):
        with pytest.raises(KnowledgeNotFoundError, match="has no knowledge"):
            act()


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 201])
def test_a_reason_that_cannot_be_one_is_not_sent(script, reply, reason):
    service = script(reply())
    with Operator(service.url, "token") as client, pytest.raises(RequestRejectedError, match="field reason"):
        client.quarantine("id", reason)
    assert not service.requests
