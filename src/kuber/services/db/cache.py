"""Bounded caches: with invalidation, and of a number of bytes."""

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SizedCache(Generic[K, V]):
    """Cache of values by key, of at most `limit` bytes in all. Safe to use from several threads.

    The oldest values are dropped. One that is larger than half of the limit is not cached.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0  # bytes
        self._limit = limit
        self._lock = threading.Lock()
        self._values: dict[K, tuple[V, int]] = {}

    def get(self, key: K) -> V | None:
        """Return the cached value, or None."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Cache a value that takes `size` bytes of memory with its key."""
        if size > self._limit // 2:
            return
        with self._lock:
            self._drop(key)
            self._values[key] = value, size
            self.size += size
            while self.size > self._limit:
                self._drop(next(iter(self._values)))

    def drop(self, key: K) -> None:
        """Drop the value of this key, if it is cached."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: K) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self.size -= found[1]


class BoundedCache(Generic[V]):
    """Cache of values by key, of at most `size` values or of that weight. Safe to use from several threads.

    `version` counts the invalidations: a value that was read before one is not cached after it. A size of 0 disables
    the cache, for databases that other processes change too.
    """

    def __init__(self, size: int) -> None:
        self.version = 0
        self._size = size
        self._lock = threading.Lock()
        self._values: dict[str, V] = {}
        self._weight = 0  # of all that was cached since the last clearing

    def get(self, key: str) -> V | None:
        """Return the cached value, or None."""
        return self._values.get(key)

    def put(self, key: str, value: V, *, version: int, weight: int = 1) -> None:
        """Cache a value that was read when the cache had this version, unless it is heavier than the cache."""
        with self._lock:
            if weight > self._size or version != self.version:
                return
            if self._weight + weight > self._size:
                self._values.clear()
                self._weight = 0
            self._values[key] = value
            self._weight += weight

    def invalidate(self, key: str | None = None) -> None:
        """Drop the value of this key, or all values."""
        with self._lock:
            self.version += 1
            if key is None:
                self._values.clear()
                self._weight = 0
            else:
                self._values.pop(key, None)
