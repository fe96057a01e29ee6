"""Reading the events of a registry, over lost connections."""

import json
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from kuber.client.credentials import Credentials
from kuber.client.event_stream import MAX_LINE, EventReader, _lines
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import AuditEntry
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.errors import ServiceUnavailableError

EVENT = {"time": "2026-01-02T03:04:05Z", "actor": "a", "act": "report", "subject": "a", "detail": {"round": 1}}


def stream(*numbers: int) -> bytes:
    return b": ping\n\n" + b"".join(
        f"id: {number}\r\nevent: report\r\ndata: {json.dumps(EVENT)}\r\n\r\n".encode() for number in numbers
    )


class Received(list[int]):
    def __call__(self, number: int, entry: AuditEntry) -> None:
        assert entry.actor == "a"
        self.append(number)


def test_a_reader_resumes_after_a_lost_connection(script: Callable, reply: Callable) -> None:
    half = stream(1, 2, 5)
    cut = reply(body=half[:-40], length=len(half))
    service = script(cut, reply(body=stream(2, 5, 6)))
    received, opened = Received(), []
    with HttpRegistry(service.url, patience=0) as registry:
        reader = EventReader(registry, received, on_open=lambda: opened.append(True))
        with pytest.raises(ServiceUnavailableError):
            reader.read(follow=True)
        assert (received, reader.last) == ([1, 2], 2)
        reader.read(follow=True)
    assert (received, reader.last, len(opened)) == ([1, 2, 5, 6], 6, 2)
    assert [headers["last-event-id"] for _, _, headers in service.requests] == ["0", "2"]


def test_a_reader_with_patience_reconnects(script: Callable, reply: Callable) -> None:
    service = script(reply(status=None), reply(body=stream(1)[:-5], length=1000), reply(body=stream(1, 2)))
    received = Received()
    with HttpRegistry(service.url, patience=10) as registry:
        EventReader(registry, received).read()
    assert received == [1, 2]


@pytest.mark.parametrize(
    "data", [b"{}", b"nonsense", b"x" * (MAX_LINE + 1)], ids=["no fields", "no JSON", "too long"]
)
@pytest.mark.parametrize("order", [b"data: %b\nid: %d\n\n", b"id: %d\ndata: %b\n\n"], ids=["data, id", "id, data"])
def test_an_event_that_cannot_be_read_is_skipped_with_one_warning(
    data: bytes, order: bytes, script: Callable, reply: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [order % ((data, n) if order.startswith(b"data") else (n, data)) for n in (2, 3)]
    service = script(reply(body=stream(1) + b"".join(bad) + stream(4)), reply(body=b""))
    received = Received()
    with HttpRegistry(service.url, patience=0) as registry:
        reader = EventReader(registry, received)
        reader.read()
        reader.read()
    assert (received, reader.last, reader.skipped) == ([1, 4], 4, 2)
    assert service.requests[1][2]["last-event-id"] == "4"
    (record,) = [record for record in caplog.records if record.name == "kuber"]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("Event 2 of the registry at http")


def test_a_long_line_is_not_kept_in_memory() -> None:
    pieces = ["a", "b\r", "\nc\n", *["x" * (1 << 16)] * 64, "y\n\nlast", " line\nunfinished"]
    response = SimpleNamespace(iter_text=lambda: iter(pieces))
    tracemalloc.start()
    assert list(_lines(response)) == ["ab", "c", None, "", "last line"]
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_LINE
    tracemalloc.stop()


def test_reads_all_events_of_a_registry(hub) -> None:
    with HttpRegistry(hub.registry) as registry:
        me = registry.register("read by events")
        registry.report(
            me.id, round=2, evaluation=Evaluation(correct=(1, 2), total=(4, 4), test_set=Digest.of(b"samples"))
        )
    found: dict[int, AuditEntry] = {}
    with HttpRegistry(hub.registry, credentials=Credentials(token=hub.operator)) as registry:
        reader = EventReader(registry, found.__setitem__)
        reader.read()
        count = len(found)
        reader.read()
    assert len(found) == count
    assert reader.last == max(found)
    mine = [entry for entry in found.values() if entry.actor == me.id]
    assert [(entry.act, dict(entry.detail)) for entry in mine] == [
        ("enrol", {}),
        ("report", {"round": 2, "correct": [1, 2], "total": [4, 4]}),
    ]


def test_a_hub_restored_from_an_older_backup_is_read_again(script: Callable, reply: Callable) -> None:
    service = script(reply(body=stream(1, 2, 5)), reply(body=b"id: 2\n\n" + stream(3)), reply(body=stream(1, 2, 3)))
    received, restarts = Received(), []
    with HttpRegistry(service.url, patience=10) as registry:
        reader = EventReader(registry, received, on_restart=lambda: restarts.append(list(received)))
        reader.read(follow=True)
        reader.read(follow=True)
    assert (received, restarts, reader.last) == ([1, 2, 5, 1, 2, 3], [[1, 2, 5]], 3)
    assert [headers["last-event-id"] for _, _, headers in service.requests] == ["0", "5", "0"]
