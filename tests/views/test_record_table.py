"""The table of a hub's records: what is searched, filtered, sorted and cut."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.domain.verification import Standing
from kuber.views.record_table import COLUMNS, WHICH, HubRecord, RecordFilter, filter_records

START = datetime(2026, 1, 2, tzinfo=UTC)


def record(number: int, **changes: Any) -> HubRecord:
    told: dict[str, Any] = {
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
    return HubRecord(**told | changes)


def ids(records: list[HubRecord], **wanted: Any) -> list[str]:
    return [one.id for one in filter_records(records, RecordFilter(**wanted)).rows]


def test_the_newest_come_first_unless_another_order_is_wanted() -> None:
    records = [record(number) for number in (2, 10, 1)]
    assert ids(records) == ["id-010", "id-002", "id-001"]
    assert ids(records, sort="claimed", descending=False) == ["id-001", "id-002", "id-010"]


def test_who_has_no_value_in_the_sorted_column_comes_last_in_both_orders() -> None:
    records = [record(1), record(2, found=0.4), record(3, found=0.2)]
    assert ids(records, sort="found") == ["id-002", "id-003", "id-001"]
    assert ids(records, sort="found", descending=False) == ["id-003", "id-002", "id-001"]


def test_every_word_of_a_search_is_somewhere_in_the_row() -> None:
    records = [record(number) for number in range(6)]
    assert ids(records, text="ECG ward") == ["id-005", "id-003", "id-001"]
    assert ids(records, text="id-004 x-ray") == ["id-004"]
    assert ids(records, text="-004") == ["id-004"]
    assert ids(records, text="ward 2") == ["id-005", "id-002"]  # not every id that holds a 2
    assert ids(records, text="nothing") == []


def test_names_are_sorted_as_people_do() -> None:
    records = [record(1, name="10"), record(2, name="9"), record(3, name="b")]
    assert ids(records, sort="name", descending=False) == ["id-002", "id-001", "id-003"]


def test_what_is_shown_is_what_others_find_unless_more_is_wanted() -> None:
    records = [
        record(1),
        record(2, withdrawn=True),
        record(3, standing=Standing.QUARANTINED),
        record(4, standing=Standing.VERIFIED),
        record(5, standing=Standing.UNVERIFIABLE),
    ]
    assert ids(records) == ["id-005", "id-004", "id-001"]
    shown = {which: ids(records, which=which) for which in WHICH}
    assert shown == {
        "shelved": ["id-005", "id-004", "id-001"],
        "pending": ["id-001"],
        "verified": ["id-004"],
        "unverifiable": ["id-005"],
        "quarantined": ["id-003"],
        "withdrawn": ["id-002"],
        "all": ["id-005", "id-004", "id-003", "id-002", "id-001"],
    }


def test_a_task_and_a_publisher_can_be_wanted() -> None:
    records = [record(number) for number in range(6)]
    assert ids(records, task="ecg", publisher="entity-0") == ["id-003"]


def test_a_page_of_it_is_cut_out() -> None:
    found = filter_records([record(number) for number in range(60)], RecordFilter(page=3))
    assert (found.page, found.pages, found.total) == (3, 3, 60)
    assert [one.round for one in found.rows] == list(range(9, -1, -1))


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_sorts(column: str) -> None:
    records = [record(number, found=0.5 - number / 10) for number in range(3)]
    up = ids(records, sort=column, descending=False)
    assert sorted(up) == ["id-000", "id-001", "id-002"]
    assert len(ids(records, sort=column)) == 3
