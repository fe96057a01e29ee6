"""The table of a hub's records: search, filters, order and pages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.domain.verification import Standing
from kuber.views.record_table import COLUMNS, STATES, HubRecord, RecordFilter, filter_records

START = datetime(2026, 1, 2, tzinfo=UTC)


def record(number: int, **changes: Any) -> HubRecord:
    fields: dict[str, Any] = {
        "id": f"id-{number:03d}",
        "publisher": f"entity-{number % 3}",
        "name": f"ward {number % 3}",
        "time": START + timedelta(minutes=number),
        "round": number,
        "claimed": number / 100,
        "task": "ecg" if number % 2 else "x-ray",
        "architecture": "cnn",
        "bytes": 1000 * number,
    }
    return HubRecord(**fields | changes)


def ids(records: list[HubRecord], **criteria: Any) -> list[str]:
    return [found.id for found in filter_records(records, RecordFilter(**criteria)).rows]


def test_the_newest_come_first_unless_another_order_is_given() -> None:
    records = [record(number) for number in (2, 10, 1)]
    assert ids(records) == ["id-010", "id-002", "id-001"]
    assert ids(records, sort="claimed", descending=False) == ["id-001", "id-002", "id-010"]


def test_records_without_a_value_come_last_in_both_orders() -> None:
    records = [record(1), record(2, found=0.4), record(3, found=0.2)]
    assert ids(records, sort="found") == ["id-002", "id-003", "id-001"]
    assert ids(records, sort="found", descending=False) == ["id-003", "id-002", "id-001"]


def test_every_word_of_a_search_is_in_the_row() -> None:
    records = [record(number) for number in range(6)]
    assert ids(records, text="ECG ward") == ["id-005", "id-003", "id-001"]
    assert ids(records, text="id-004 x-ray") == ["id-004"]
    assert ids(records, text="-004") == ["id-004"]
    assert ids(records, text="ward 2") == ["id-005", "id-002"]  # not every id that holds a 2
    assert ids(records, text="nothing") == []


def test_names_are_sorted_naturally() -> None:
    records = [record(1, name="10"), record(2, name="9"), record(3, name="b")]
    assert ids(records, sort="name", descending=False) == ["id-002", "id-001", "id-003"]


def test_discoverable_records_are_shown_unless_another_state_is_given() -> None:
    records = [
        record(1),
        record(2, withdrawn=True),
        record(3, standing=Standing.QUARANTINED),
        record(4, standing=Standing.VERIFIED),
        record(5, standing=Standing.UNVERIFIABLE),
    ]
    assert ids(records) == ["id-005", "id-004", "id-001"]
    shown = {state: ids(records, state=state) for state in STATES}
    assert shown == {
        "discoverable": ["id-005", "id-004", "id-001"],
        "pending": ["id-001"],
        "verified": ["id-004"],
        "unverifiable": ["id-005"],
        "quarantined": ["id-003"],
        "withdrawn": ["id-002"],
        "all": ["id-005", "id-004", "id-003", "id-002", "id-001"],
    }


def test_task_and_publisher_filter_records() -> None:
    records = [record(number) for number in range(6)]
    assert ids(records, task="ecg", publisher="entity-0") == ["id-003"]


def test_one_page_is_returned() -> None:
    page = filter_records([record(number) for number in range(60)], RecordFilter(page=3))
    assert (page.page, page.pages, page.total) == (3, 3, 60)
    assert [found.round for found in page.rows] == list(range(9, -1, -1))


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_sorts(column: str) -> None:
    records = [record(number, found=0.5 - number / 10) for number in range(3)]
    up = ids(records, sort=column, descending=False)
    assert sorted(up) == ["id-000", "id-001", "id-002"]
    assert len(ids(records, sort=column)) == 3
