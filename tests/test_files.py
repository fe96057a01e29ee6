"""Files that are replaced as a whole."""

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from kuber.files import WRITE_BYTES, atomic_replacement, write_all, write_atomically


def test_an_open_reader_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with path.open() as before:
        write_atomically(path, b"new")
        assert (before.read(), path.read_text()) == ("old", "new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_a_crash_before_the_file_gets_its_name_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def crash(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new", durable=durable)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_what_a_kill_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.with_suffix(".tmp").write_text("half of an older, much longer one")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_gets_the_permissions_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.with_suffix(".tmp").write_text("readable by all")
    write_atomically(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_replacement_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "cache.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_replacement(path):
        pass  # and nothing was written
    assert list(tmp_path.iterdir()) == [path]
    with atomic_replacement(path) as new:
        new.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_everything_is_written_in_short_pieces() -> None:
    class Slow(io.RawIOBase):
        """A file that takes 1,000 bytes less than it is given."""

        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def write(self, data: bytes) -> int:
            taken = bytes(data)[: max(1, len(bytes(data)) - 1000)]
            self.pieces.append(taken)
            return len(taken)

    file, data = Slow(), os.urandom(3 * WRITE_BYTES + 17)
    write_all(cast(BinaryIO, file), data)
    assert b"".join(file.pieces) == data
    assert max(map(len, file.pieces)) == WRITE_BYTES - 1000
