"""Column types that mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String
from sqlalchemy.dialects.postgresql import VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine

# A number that the database assigns. SQLite counts up only where the type is INTEGER, which has 64 bits there.
SEQ = BigInteger().with_variant(Integer(), "sqlite")


def text(length: int) -> TypeEngine[str]:
    """Return a type for text of at most `length` characters that sorts by code point, as SQLite and Python do."""
    return String(length).with_variant(VARCHAR(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """Time in UTC, whatever the time zone of the server; SQLite stores it without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC before storing."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as an aware time in UTC."""
        if value is None:
            return None
        time: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return time
