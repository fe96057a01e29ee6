"""Pins that wait at the same time go to the vault in one request."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Artifact
from kuber.errors import RequestRejectedError, ServiceUnavailableError
from kuber.services.registry import pin_batches
from kuber.services.registry.pin_batches import PinBatches
from kuber.wire.vault import MAX_BATCH, PinsBody

from ...fixtures.waiting import LIMIT, wait_until


def pins(holder):
    return PinsBody.of(holder, [(WEIGHTS, Artifact(digest=Digest.of(holder.encode()), size=1))])


class Vault:
    """The sending end: each batch waits until it is allowed to go on."""

    def __init__(self):
        self.batches = []
        self.allowed = threading.Event()
        self.result = lambda body: {}

    def send(self, bodies):
        self.batches.append([body.holder for body in bodies])
        assert self.allowed.wait(LIMIT)
        return [self.result(body) for body in bodies]


@pytest.fixture
def vault():
    return Vault()


@pytest.fixture
def waiting(vault, monkeypatch):
    """Pin for 20 holders, of which the first occupies the only sender until the others wait; return their futures."""
    monkeypatch.setattr(pin_batches, "SENDERS", 1)
    with closing(PinBatches(vault.send)) as batches, ThreadPoolExecutor(20) as threads:
        futures = [threads.submit(batches.pin, pins("0"))]
        wait_until(lambda: vault.batches, "the first request")
        futures += [threads.submit(batches.pin, pins(str(number))) for number in range(1, 20)]
        wait_until(lambda: batches._queue.qsize() == 19, "those behind it")
        yield futures
        vault.allowed.set()


def test_what_waits_is_sent_together(vault, waiting):
    vault.allowed.set()
    assert [future.result() for future in waiting] == [{}] * 20
    assert list(map(len, vault.batches)) == [1, MAX_BATCH, 19 - MAX_BATCH]
    assert sorted(holder for batch in vault.batches for holder in batch) == sorted(map(str, range(20)))


def test_a_refusal_concerns_one_holder(vault, waiting):
    vault.result = lambda body: RequestRejectedError("no such blob") if body.holder == "7" else {}
    vault.allowed.set()
    with pytest.raises(RequestRejectedError, match="no such blob"):
        waiting[7].result()
    assert [future.result() for number, future in enumerate(waiting) if number != 7] == [{}] * 19


def test_a_failed_request_is_an_error_of_each(vault, waiting):
    def fail(body):
        raise ServiceUnavailableError("the vault is away")

    vault.result = fail
    vault.allowed.set()
    for future in waiting:
        with pytest.raises(ServiceUnavailableError, match="away"):
            future.result()
    assert len(vault.batches) == 1  # those behind it did not wait as long again


def test_after_closing_nothing_is_accepted(vault):
    vault.allowed.set()
    batches = PinBatches(vault.send)
    batches.close()
    batches.close()
    with pytest.raises(ServiceUnavailableError, match="stopping"):
        batches.pin(pins("late"))
