"""The registry's requests to its vault, and answers that do not come from there."""

from contextlib import closing

import pytest

from kuber.errors import RequestRejectedError, ServiceError, ServiceUnavailableError
from kuber.services.registry.vault_client import RegistryVault

SECRET = "s" * 40


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (502, ServiceUnavailableError, "The vault at {url} is not available now"),
        (504, ServiceUnavailableError, "The vault at {url} is not available now"),
        (413, RequestRejectedError, "Something between us and the vault takes no body of"),
        (403, ServiceUnavailableError, "Something between us and the vault at {url} forbids the request"),
        (400, ServiceError, "The server at {url} is not a KUber vault; check the address."),
    ],
)
def test_an_answer_of_an_intermediary_is_one_sentence(script, reply, status, error, sentence):
    url = script(reply(status=status, body=b"<html>", headers={})).url
    with closing(RegistryVault(url, SECRET)) as vault, pytest.raises(ServiceError) as caught:
        vault.pin("holder", [])
    assert type(caught.value) is error
    assert caught.value.message.startswith(sentence.format(url=url))
