"""Locks by name, within one process."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class NamedLocks:
    """Set of locks that exist only while they are held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, names: Collection[str]) -> Iterator[None]:
        """Hold all these locks. They are taken together once all are free, so callers cannot deadlock."""
        with self._changed:
            self._changed.wait_for(lambda: self._held.isdisjoint(names))
            self._held.update(names)
        try:
            yield
        finally:
            with self._changed:
                self._held.difference_update(names)
                self._changed.notify_all()
