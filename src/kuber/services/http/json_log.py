"""JSON log on standard error, in which lines that repeat are counted instead of written."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

BURST = 20  # lines of one kind in a period that are written
PERIOD = 10.0  # seconds
KINDS = 1000  # whose lines are counted at a time


class JsonLines(logging.Formatter):
    """Format each log record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class RepeatedLines(logging.Filter):
    """Filter of lines beyond BURST of one kind in a period; `report` says how many they were.

    Requests that succeed are not of a kind: their lines are all written.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._counts: dict[tuple[Any, ...], int] = {}
        self._began = monotonic()
        self._log = logging.getLogger(__name__)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        kind = _kind(record)
        if kind is None:
            return True
        with self._lock:
            if kind not in self._counts and len(self._counts) >= KINDS:
                kind = ("other",)
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return count <= BURST

    def report(self) -> None:
        """At the end of a period, write how many lines were left out."""
        now = self._monotonic()
        if now - self._began < PERIOD:
            return
        with self._lock:
            counts, self._counts, self._began = self._counts, {}, now
        for kind, count in counts.items():
            if count > BURST:
                status = {"status": kind[2]} if len(kind) > 2 and kind[2] else {}
                self._log.warning(
                    "%s ... repeated %d times", kind[1] if len(kind) > 1 else "other lines", count - BURST,
                    extra={"fields": status},
                )  # fmt: skip


def _kind(record: logging.LogRecord) -> tuple[Any, ...] | None:
    if record.name == __name__:
        return None
    status = getattr(record, "fields", {}).get("status")
    if record.levelno < logging.WARNING and (status is None or 0 < status < 400):
        return None
    return record.name, str(record.msg), status


def log_to_stderr(stream: TextIO | None = None) -> RepeatedLines:
    """Log as JSON lines on standard error; return the filter of lines that repeat."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    repeated = RepeatedLines()
    handler.addFilter(repeated)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("kuber").setLevel(logging.INFO)
    return repeated
