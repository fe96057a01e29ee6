"""Delivery rows: outcomes of absorbing knowledge."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from kuber.domain.delivery import Delivery
from kuber.services.registry.schema import deliveries, delivery_teachers

_DELIVERY_BYTES, _TEACHER_BYTES = 2000, 40  # as JSON, about

_FIELDS = ("student", "method", "round", "accuracy_before", "accuracy_after", "kept", "reason")


def is_recorded(connection: Connection, student: str, key: str) -> bool:
    """Return whether this student has recorded a delivery under this key."""
    used = select(deliveries.c.seq).where(deliveries.c.student == student, deliveries.c.key == key)
    return connection.scalar(used) is not None


def insert_delivery(connection: Connection, delivery: Delivery, *, key: str, now: datetime) -> None:
    """Store a delivery and its teachers."""
    row = {name: getattr(delivery, name) for name in _FIELDS}
    inserted = connection.execute(insert(deliveries), {**row, "recorded_at": now, "key": key})
    assert inserted.inserted_primary_key is not None
    teachers = [
        {"delivery": inserted.inserted_primary_key[0], "position": position, "knowledge": teacher}
        for position, teacher in enumerate(delivery.teachers)
    ]
    connection.execute(insert(delivery_teachers), teachers)


def delivery_sizes(connection: Connection, rows: Sequence[Row[Any]]) -> list[int]:
    """Return about how many bytes of JSON these deliveries are."""
    last = select(delivery_teachers.c.delivery, func.max(delivery_teachers.c.position))
    of_rows = delivery_teachers.c.delivery.in_([row.seq for row in rows])
    teachers = {row[0]: row[1] for row in connection.execute(last.where(of_rows).group_by("delivery"))}
    return [_DELIVERY_BYTES + _TEACHER_BYTES * teachers.get(row.seq, 0) for row in rows]


def read_deliveries(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[Delivery, ...]:
    """Return the deliveries of these rows, with their teachers."""
    parts = select(delivery_teachers).where(delivery_teachers.c.delivery.in_([row.seq for row in rows]))
    teachers: dict[int, list[str]] = {row.seq: [] for row in rows}
    for part in connection.execute(parts.order_by(delivery_teachers.c.position)):
        teachers[part.delivery].append(part.knowledge)
    return tuple(
        Delivery(**{name: getattr(row, name) for name in _FIELDS}, teachers=tuple(teachers[row.seq])) for row in rows
    )
