"""Errors of a system without a resource, which pass when others give it back."""

import errno
import sqlite3

_CANNOT_OPEN = sqlite3.SQLITE_CANTOPEN  # for a file that was open before, only descriptors can be missing
_RESOURCES = {
    errno.EMFILE: "file descriptors",
    errno.ENFILE: "file descriptors",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
    errno.EAGAIN: "threads",
}


def exhausted_resource(error: BaseException | None) -> str | None:
    """Return which resource was exhausted when this error or a cause of it was raised; None for another error."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return "memory"
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return "threads"
        if (
            isinstance(error, sqlite3.Error)
            and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN
        ):
            return "file descriptors"  # the only reason for a file that was open before
        if isinstance(error, OSError) and error.errno in _RESOURCES:
            return _RESOURCES[error.errno]
        error = error.__cause__ or error.__context__
    return None
