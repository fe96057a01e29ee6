"""Types of columns that mean the same on every database."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String
from sqlalchemy.dialects.postgresql import VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine

# A number that the database gives. SQLite counts up only where the type is INTEGER, which has 64 bits there.
SEQ = BigInteger().with_variant(Integer(), "sqlite")


def text(length: int) -> TypeEngine[str]:
    """Text of at most `length` characters, in the order of their code points: SQLite's, and Python's."""
    return String(length).with_variant(VARCHAR(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A time, in UTC, whatever the time zone of the server; SQLite stores it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What is stored."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """What was stored."""
        if value is None:
            return None
        time: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return time
