"""The vault on a folder: what is stored is what was named, and it survives."""

import hashlib
import threading
import tracemalloc

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, TensorSpec
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.services.vault_shelves import CHUNK
from kuber.services.vault_store import VaultStore


@pytest.fixture
def vault(tmp_path):
    store = VaultStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def reopen(vault, tmp_path):
    """Close the vault, change its folder, open it again."""
    opened = []

    def again(change=lambda: None):
        vault.close()
        change()
        opened.append(VaultStore(tmp_path))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def weights(safetensors):
    """Sound weights; other ones for each number."""
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(2, 4))}, fill=fill)


def kinds(*artifacts):
    return (("weights", artifact) for artifact in artifacts)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name)


def listed(vault):
    return {artifact.digest for artifact in vault.blobs().items}


def test_a_blob_lies_under_its_digest(vault, tmp_path):
    artifact = vault.put(b"weights")
    hex = hashlib.sha256(b"weights").hexdigest()
    assert artifact == Artifact(digest=Digest(hex), size=7)
    assert files(tmp_path) == [tmp_path / "blobs" / hex[:2] / hex[2:4] / hex]
    assert vault.get(artifact.digest) == b"weights"


def test_other_bytes_than_named_leave_nothing(vault, tmp_path):
    with vault.receive() as blob:
        blob.write(b"other")
        with pytest.raises(CorruptKnowledgeError, match="send them again"):
            blob.keep(Digest.of(b"named"))
    assert files(tmp_path) == []
    assert listed(vault) == set()


def test_a_sender_that_breaks_off_leaves_nothing(vault, tmp_path):
    def break_off():
        with vault.receive() as blob:
            blob.write(b"half")
            assert files(tmp_path) != []
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert files(tmp_path) == []


def test_an_empty_blob_is_refused(vault, tmp_path):
    with pytest.raises(RequestRejectedError, match="empty"):
        vault.put(b"")
    assert files(tmp_path) == []


def test_memory_stays_flat(vault):
    piece = bytes(CHUNK)
    tracemalloc.start()
    with vault.receive() as blob:
        for _ in range(100):
            blob.write(piece)
        artifact, new = blob.keep(Digest(blob.hex))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (artifact.size, new) == (100 * CHUNK, True)
    assert peak < 4 * CHUNK


def test_storing_again_heals_a_damaged_file(vault):
    artifact = vault.put(b"weights")
    vault.shelves.path(artifact.digest).write_bytes(b"WEIGHTS")
    with pytest.raises(CorruptKnowledgeError, match="damaged"):
        vault.get(artifact.digest)
    vault.put(b"weights")
    assert vault.get(artifact.digest) == b"weights"


def test_head_reads_the_start(vault):
    digest = vault.put(b"weights").digest
    assert [vault.head(digest, length) for length in (3, 100)] == [b"wei", b"weights"]


def test_pins_are_all_or_none(vault, weights):
    first, second = (vault.put(weights(fill)) for fill in (1, 2))
    absent = Artifact(digest=Digest.of(b"absent"), size=6)
    wrong = Artifact(digest=second.digest, size=second.size + 1)
    for unsound in (absent, wrong):
        with pytest.raises(RequestRejectedError):
            vault.pin("record", kinds(first, unsound))
        assert vault.pinned(first.digest) == []
    for holder in ("record", "record", "another"):
        vault.pin(holder, kinds(first, second))
    assert vault.pinned(first.digest) == vault.pinned(second.digest) == ["another", "record"]


@pytest.mark.parametrize("cursor", ["", "x", "sha256:" + "0" * 64])
def test_a_foreign_cursor_is_refused(vault, cursor):
    with pytest.raises(RequestRejectedError, match="cursor"):
        vault.blobs(cursor=cursor)


def test_many_writers(vault):
    def put(writer):
        for i in range(10):
            vault.put(f"{writer} {i}".encode())
            vault.put(b"the same")

    threads = [threading.Thread(target=put, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed(vault) == {Digest.of(f"{w} {i}".encode()) for w in range(6) for i in range(10)} | {
        Digest.of(b"the same")
    }


def test_leftovers_of_a_crash_are_swept(vault, reopen, tmp_path):
    kept = vault.put(b"kept")
    with vault.receive() as blob:
        blob.write(b"half")
        leftover = next((tmp_path / "incoming").iterdir()).read_bytes()
    again = reopen(lambda: (tmp_path / "incoming" / "0123").write_bytes(leftover))
    assert files(tmp_path) == [again.shelves.path(kept.digest)]


def test_a_blob_without_a_row_gets_one_when_it_is_sound(vault, reopen):
    # The crash came between the rename and the commit.
    sound, unsound = Digest.of(b"sound"), Digest.of(b"unsound")

    def change():
        for digest in (sound, unsound):
            vault.shelves.path(digest).parent.mkdir(parents=True)
            vault.shelves.path(digest).write_bytes(b"sound")

    again = reopen(change)
    assert listed(again) == {sound}
    assert again.get(sound) == b"sound"
    assert not again.shelves.path(unsound).exists()


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_row_without_its_file_is_dropped_and_its_pins_stay(vault, reopen, weights, damage):
    lost, kept = (vault.put(weights(fill)) for fill in (1, 2))
    vault.pin("record", kinds(lost, kept))
    path = vault.shelves.path(lost.digest)
    again = reopen(path.unlink if damage == "gone" else lambda: path.write_bytes(b"lo"))
    assert listed(again) == {kept.digest}
    with pytest.raises(KnowledgeNotFoundError):
        again.get(lost.digest)
    again.put(weights(1))
    assert again.pinned(lost.digest) == ["record"]


def test_a_file_lost_while_in_use_is_not_found(vault):
    artifact = vault.put(b"lost")
    vault.shelves.path(artifact.digest).unlink()
    with pytest.raises(KnowledgeNotFoundError):
        vault.get(artifact.digest)


def test_a_folder_in_use_is_refused(vault, tmp_path):
    with pytest.raises(ServiceError, match="in use by another service"):
        VaultStore(tmp_path)


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(ServiceError, match="cannot be used"):
        VaultStore(tmp_path)
