"""Locks by name, within one process."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class NamedLocks:
    """Any number of locks that are there while they are held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def held(self, names: Collection[str]) -> Iterator[None]:
        """Hold all of these. None is taken before all are free, so two that want the same never wait for good."""
        with self._changed:
            self._changed.wait_for(lambda: self._held.isdisjoint(names))
            self._held.update(names)
        try:
            yield
        finally:
            with self._changed:
                self._held.difference_update(names)
                self._changed.notify_all()
