"""What was read and need not be read again until it changes."""

import threading
from typing import Generic, TypeVar

V = TypeVar("V")


class BoundedCache(Generic[V]):
    """At most `size` values by key. Safe to use from several threads.

    `changes` counts how often something was forgotten: what was read before a change is not kept after it. A size of
    0 keeps nothing, which is right where others make changes that we do not hear of.
    """

    def __init__(self, size: int) -> None:
        self.changes = 0
        self._size = size
        self._gate = threading.Lock()
        self._known: dict[str, V] = {}

    def get(self, key: str) -> V | None:
        """The value that was kept, if any."""
        return self._known.get(key)

    def keep(self, key: str, value: V, *, since: int) -> None:
        """Remember a value that was read when there had been `since` changes."""
        with self._gate:
            if not self._size or since != self.changes:
                return
            if len(self._known) >= self._size:
                self._known.clear()
            self._known[key] = value

    def forget(self, key: str | None = None) -> None:
        """What is known under this key, or all, has changed."""
        with self._gate:
            self.changes += 1
            if key is None:
                self._known.clear()
            else:
                self._known.pop(key, None)
