"""Bounded cache with invalidation."""

import threading
from typing import Generic, TypeVar

V = TypeVar("V")


class BoundedCache(Generic[V]):
    """Cache of at most `size` values by key. Safe to use from several threads.

    `version` counts the invalidations: a value that was read before one is not cached after it. A size of 0 disables
    the cache, for databases that other processes change too.
    """

    def __init__(self, size: int) -> None:
        self.version = 0
        self._size = size
        self._lock = threading.Lock()
        self._values: dict[str, V] = {}

    def get(self, key: str) -> V | None:
        """Return the cached value, or None."""
        return self._values.get(key)

    def put(self, key: str, value: V, *, version: int) -> None:
        """Cache a value that was read when the cache had this version."""
        with self._lock:
            if not self._size or version != self.version:
                return
            if len(self._values) >= self._size:
                self._values.clear()
            self._values[key] = value

    def invalidate(self, key: str | None = None) -> None:
        """Drop the value of this key, or all values."""
        with self._lock:
            self.version += 1
            if key is None:
                self._values.clear()
            else:
                self._values.pop(key, None)
