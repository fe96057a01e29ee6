"""Quota of all entities together: bytes that a vault has, also of unfinished uploads."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from sqlalchemy import Connection, func, select

from kuber.errors import InsufficientStorageError
from kuber.services.db.database import Database
from kuber.services.vault.schema import blob_rows

COUNT_SECONDS = 10.0  # after which the bytes are counted again, for those that are gone or came to other vaults
RECOUNT_SECONDS = 1.0  # the same, before something is refused


class TotalQuota:
    """Counts the bytes of a vault, for entities: services are never refused. Safe to use from several threads.

    The sum over all blobs is read now and again; in between, what arrives here is added to it.
    """

    def __init__(
        self,
        database: Database,
        uploads: Path,
        quota: int,
        *,
        arriving: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limit the bytes to `quota`, unless it is 0.

        `uploads` is the folder with what unfinished uploads received; `arriving` returns the bytes of other requests.
        """
        self.quota = quota
        self._database = database
        self._uploads = uploads
        self._arriving = arriving
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._counted: tuple[float, int] | None = None  # when, and how many bytes
        self._added = 0  # bytes since then

    def check(self, size: int, *, connection: Connection | None = None) -> None:
        """Raise InsufficientStorageError when so many bytes more are too many."""
        if not self.quota:
            return
        with self._lock:
            for seconds in (COUNT_SECONDS, RECOUNT_SECONDS):
                used = self._count(seconds, connection) + self._arriving()
                if used + size <= self.quota:
                    return
        raise InsufficientStorageError(
            f"The vault keeps at most {self.quota} bytes of all entities together and has {used}, so {size} more are "
            "too many; it has room again when knowledge is withdrawn, or its operator raises --total-quota."
        )

    def add(self, size: int) -> None:
        """Count bytes that are stored, or received by an upload."""
        with self._lock:
            self._added += size

    def _count(self, seconds: float, connection: Connection | None) -> int:
        """Return the bytes, counted at most so many seconds ago."""
        now = self._monotonic()
        if self._counted is None or now - self._counted[0] >= seconds:
            with nullcontext(connection) if connection is not None else self._database.read_snapshot() as reader:
                stored = reader.scalar(select(func.sum(blob_rows.c.size))) or 0
            self._counted, self._added = (now, int(stored) + self._received()), 0
        return self._counted[1] + self._added

    def _received(self) -> int:
        received = 0
        with suppress(OSError):  # there is no upload yet
            for file in os.scandir(self._uploads):
                with suppress(OSError):  # it has just ended
                    received += file.stat().st_size
        return received
