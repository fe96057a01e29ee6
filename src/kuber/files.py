"""Files that are replaced as a whole, so that a reader or a crash never sees half of one; writing, and locks."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

# Bytes written at once. For longer writes ext4 (Linux 6.18) looks for large folios: where memory is fragmented, they
# took five to ten times as long.
WRITE_BYTES = 64 << 10


def write_atomically(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o666) -> None:
    """Replace the file at `path`, which has one writer at a time; a crash leaves the old file or the new one.

    With `durable` the bytes are on disk before the file gets its name. `mode` are the permissions of a new file, less
    the umask. Raises OSError; the old file then stays.
    """
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write_all(file, data)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_all(file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    """Write every byte to an unbuffered file, WRITE_BYTES at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view[:WRITE_BYTES]) :]


@contextmanager
def atomic_replacement(path: Path) -> Iterator[Path]:
    """Yield the path of a new file that replaces `path` when the block ends.

    Several processes may do so at once. The new file is removed when the block raises.
    """
    temporary = path.with_name(f".{path.stem}-{uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed or its process ends; return False if another one has locked it.

    Raises OSError where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
