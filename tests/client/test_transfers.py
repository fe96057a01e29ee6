"""Client and vault over a faulty connection: every transfer succeeds or is refused, none is wrong."""

import random
from contextlib import suppress

import pytest

from kuber.client import http
from kuber.client import vault as client
from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.errors import KUberError, ServiceUnavailableError
from tests.fixtures.proxy import proxy

SIZE = 3_000_000


def service(hub):
    return Credentials(token=hub.secret)


@pytest.fixture(autouse=True)
def _small_uploads(monkeypatch):
    """Send small blobs as uploads too, and notice a stalled connection soon."""
    monkeypatch.setattr(client, "SINGLE_REQUEST_BYTES", 1 << 18)
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_lost_and_stalled_connections_only_delay(hub, seed):
    data = random.Random(f"cut {seed}").randbytes(SIZE)
    mishaps = ["cut"] * 5 + ["stall"]
    with (
        proxy(hub.vault, seed=seed, mishaps=mishaps, reach=SIZE) as line,
        HttpVault(line.url, credentials=service(hub), patience=20) as vault,
    ):
        artifact = vault.put(data)
        assert artifact.digest == Digest.of(data)
        assert vault.get(artifact.digest) == data
    with HttpVault(hub.vault, credentials=service(hub)) as direct:
        assert direct.get(artifact.digest) == data
    assert line.struck


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_are_refused(hub, seed):
    data = random.Random(f"flip {seed}").randbytes(SIZE // 10)
    mishaps = ["flip", "cut", "none"]
    with (
        proxy(hub.vault, seed=seed, mishaps=mishaps, reach=SIZE // 10) as line,
        HttpVault(hub.vault, credentials=service(hub)) as direct,
    ):
        with HttpVault(line.url, credentials=service(hub), patience=3) as vault:
            try:
                artifact = vault.put(data)
            except KUberError:
                assert direct.size(Digest.of(data)) in (None, len(data))
                artifact = direct.put(data)
            else:
                assert direct.get(artifact.digest) == data
        with HttpVault(line.url, credentials=service(hub), patience=3) as vault, suppress(KUberError):
            assert vault.get(artifact.digest) == data
        assert direct.get(artifact.digest) == data


def test_an_upload_resumes_after_a_lost_connection(hub):
    """Each connection carries less than a third of the blob, so a client that starts over would never finish."""
    data = random.Random("on").randbytes(SIZE)
    with (
        proxy(hub.vault, seed=1, mishaps=["cut"], reach=SIZE // 3) as line,
        HttpVault(line.url, credentials=service(hub), patience=20) as vault,
    ):
        vault.put(data)
        assert vault.get(Digest.of(data)) == data


def test_gives_up_when_patience_ends(hub):
    data = random.Random("end").randbytes(SIZE)
    with (
        proxy(hub.vault, seed=2, mishaps=["cut"], reach=2) as line,
        HttpVault(line.url, credentials=service(hub), patience=0.3) as vault,
        pytest.raises(ServiceUnavailableError),
    ):
        vault.put(data)
