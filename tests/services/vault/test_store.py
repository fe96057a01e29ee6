"""Store of the vault, on a folder and on a bucket: blobs are verified, indexed, and survive restarts and damage."""

import hashlib
import threading
import tracemalloc
from contextlib import closing
from datetime import timedelta

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, TensorSpec
from kuber.errors import (
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
)
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.pinning import PinRequest
from kuber.services.vault.storage import CHUNK
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads
from kuber.wire.sent_blobs import encode_blobs

from ..blob_places import Folder, key


@pytest.fixture
def vault(vault_place):
    store = vault_place.store()
    yield store
    store.close()


@pytest.fixture
def reopen(vault, vault_place):
    """Close the vault, change its storage, and open it again."""
    opened = []

    def again(change=lambda: None):
        vault.close()
        change()
        opened.append(vault_place.store())
        return opened[-1]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def weights(safetensors):
    """Valid weights, which differ by `fill`."""
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(2, 4))}, fill=fill)


def kinds(*artifacts):
    return (("weights", artifact) for artifact in artifacts)


def listed(vault):
    return {artifact.digest for artifact in vault.blobs().items}


def test_a_blob_is_stored_under_its_digest(vault, vault_place):
    artifact = vault.put(b"weights")
    hex = hashlib.sha256(b"weights").hexdigest()
    assert artifact == Artifact(digest=Digest(hex), size=7)
    assert vault_place.names() == [f"blobs/{hex[:2]}/{hex[2:4]}/{hex}"]
    assert vault_place.read(f"blobs/{hex[:2]}/{hex[2:4]}/{hex}") == b"weights"
    assert vault.get(artifact.digest) == b"weights"


def test_bytes_of_another_digest_leave_nothing(vault, vault_place):
    with vault.create() as writer:
        writer.write(b"other")
        with pytest.raises(CorruptKnowledgeError, match="send them again"):
            vault.commit(writer, Digest.of(b"named"))
    assert vault_place.names() == []
    assert listed(vault) == set()


@pytest.mark.parametrize("pieces", [1, 20])
def test_an_aborted_write_leaves_nothing(vault, vault_place, pieces):
    def abort():
        with vault.create() as writer:
            for _ in range(pieces):
                writer.write(bytes(CHUNK))
            if isinstance(vault_place, Folder) or pieces > 1:
                while vault_place.names() == []:  # a part is sent to the bucket while the next piece is written
                    pass
            raise ConnectionError

    with pytest.raises(ConnectionError):
        abort()
    assert vault_place.names() == []


def test_an_empty_blob_is_refused(vault, vault_place):
    with pytest.raises(RequestRejectedError, match="empty"):
        vault.put(b"")
    assert vault_place.names() == []


def test_memory_is_bounded(vault, vault_place):
    piece, count = bytes(CHUNK), 100 if isinstance(vault_place, Folder) else 40
    tracemalloc.start()
    with vault.create() as writer:
        for _ in range(count):
            writer.write(piece)
        artifact, new = vault.commit(writer, Digest(writer.hex))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (artifact.size, new) == (count * CHUNK, True)
    assert peak < 4 * CHUNK


def test_storing_again_repairs_a_damaged_blob(vault, vault_place):
    artifact = vault.put(b"weights")
    vault_place.write(key(artifact.digest), b"WEIGHTS")
    with pytest.raises(CorruptKnowledgeError, match="damaged"):
        vault.get(artifact.digest)
    vault.put(b"weights")
    assert vault.get(artifact.digest) == b"weights"


def test_head_reads_the_first_bytes(vault):
    digest = vault.put(b"weights").digest
    assert [vault.head(digest, length) for length in (3, 100)] == [b"wei", b"weights"]


def test_pins_are_all_or_none(vault, weights):
    first, second = (vault.put(weights(fill)) for fill in (1, 2))
    absent = Artifact(digest=Digest.of(b"absent"), size=6)
    wrong = Artifact(digest=second.digest, size=second.size + 1)
    for invalid in (absent, wrong):
        with pytest.raises(RequestRejectedError):
            vault.pin("record", kinds(first, invalid))
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


def test_incomplete_files_of_a_crash_are_deleted_at_start(tmp_path):
    """Not objects in a bucket: another vault may be writing there."""
    vault_place = Folder(tmp_path)
    with closing(vault_place.store()) as vault:
        kept = vault.put(b"kept")
    for folder in ("incoming", "uploads"):
        vault_place.write(f"{folder}/{'0123' * 8}", b"half")
    with closing(vault_place.store()) as vault:
        Uploads(vault)
        assert vault_place.names() == [key(kept.digest)]


@pytest.mark.parametrize("linked", ["blobs", "incoming", "uploads"])
def test_a_start_deletes_no_file_that_is_not_named_as_the_vaults_own(tmp_path, linked):
    elsewhere = tmp_path / "elsewhere"
    foreign = [
        elsewhere / name for name in ("note.txt", "ab/cd/note.txt", "ab/cd/folder/note.txt", "ab/cd/" + "e" * 64)
    ]
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    vault_place = Folder(tmp_path / "vault")
    (vault_place.folder / linked).symlink_to(elsewhere)
    with closing(vault_place.store()) as vault:
        collect(vault, Uploads(vault), grace=timedelta(0))
        assert listed(vault) == set()
    assert [file.read_text() for file in foreign] == ["mine"] * 4


def test_a_link_to_the_blobs_of_another_vault_is_refused(tmp_path):
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    with closing(first.store()) as vault:
        vault.put(b"kept")
    (second.folder / "blobs").symlink_to(first.folder / "blobs")
    with pytest.raises(ServiceError, match="is a link into the folder of another vault"):
        second.store()


def test_a_blob_without_a_row_is_indexed_if_intact(vault, reopen, vault_place):
    # After a crash between the commit of the bytes and that of the row.
    intact, damaged = Digest.of(b"intact"), Digest.of(b"damaged")

    def change():
        for digest in (intact, damaged):
            vault_place.write(key(digest), b"intact")

    again = reopen(change)
    assert listed(again) == {intact}
    assert again.get(intact) == b"intact"
    assert vault_place.names() == [key(intact)]


@pytest.mark.parametrize("damage", ["lost", "truncated"])
def test_the_row_of_a_lost_blob_is_dropped_and_its_pins_stay(vault, reopen, vault_place, weights, damage):
    lost, kept = (vault.put(weights(fill)) for fill in (1, 2))
    vault.pin("record", kinds(lost, kept))
    name = key(lost.digest)
    again = reopen(lambda: vault_place.remove(name) if damage == "lost" else vault_place.write(name, b"lo"))
    assert listed(again) == {kept.digest}
    with pytest.raises(KnowledgeNotFoundError):
        again.get(lost.digest)
    again.put(weights(1))
    assert again.pinned(lost.digest) == ["record"]


def test_a_blob_lost_at_runtime_is_not_found(vault, vault_place):
    artifact = vault.put(b"lost")
    vault_place.remove(key(artifact.digest))
    with pytest.raises(KnowledgeNotFoundError):
        vault.get(artifact.digest)


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (5, 3_000_000), (1 << 20, (1 << 20) + 9), (3_999_999, 3_999_999)]
)
def test_a_range_of_a_blob_is_read_in_pieces_of_any_length(vault, first, last):
    data = bytes(range(250)) * 16_000
    digest = vault.put(data).digest
    with vault.open(digest) as blob:
        assert blob.size == len(data)
        blob.seek_range(first, last)
        pieces = [blob.read(7)]
        while piece := blob.read(700_001):
            pieces.append(piece)
    assert b"".join(pieces) == data[first : last + 1]
    assert [len(piece) for piece in pieces[1:-1]] == [700_001] * max(0, len(pieces) - 2)


def test_a_folder_in_use_is_refused(vault, tmp_path):
    with pytest.raises(ServiceError, match="in use by another service"):
        VaultStore(tmp_path)


def test_an_unusable_folder_is_an_error_in_one_sentence(tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(ServiceError, match="cannot be used"):
        VaultStore(tmp_path)


def sent(holder, data, owner="ann"):
    return PinRequest(
        holder=holder,
        artifacts=tuple(kinds(Artifact.of(data))),
        owner=owner,
        sent={Artifact.of(data).digest: encode_blobs([data]).popitem()[1]},
    )


def test_blobs_that_come_with_pins_are_stored_each_by_itself(vault, vault_place, weights):
    first, second, third = weights(1), weights(2), weights(3)
    invalid = weights(255)  # not finite
    vault.put(third)
    missing = PinRequest(holder="d", artifacts=tuple(kinds(Artifact.of(b"missing"))))
    requests = [sent("a", first), sent("b", invalid), sent("c", first), missing, sent("e", second), sent("f", third)]
    a, b, c, d, e, f = vault.pin_all(requests)
    assert a == c == {Artifact.of(first).digest: {"w": TensorSpec(dtype="F32", shape=(2, 4))}}
    assert isinstance(b, RequestRejectedError)
    assert isinstance(d, RequestRejectedError)
    assert (e.keys(), f.keys()) == ({Artifact.of(second).digest}, {Artifact.of(third).digest})
    assert listed(vault) == {Artifact.of(data).digest for data in (first, second, third)}
    assert vault_place.names() == sorted(key(Artifact.of(data).digest) for data in (first, second, third))
    assert vault.pinned(Artifact.of(first).digest) == ["a", "c"]
    assert vault.pin_all([sent("a", first)]) == [a]
    assert vault.get(Artifact.of(first).digest) == first


def test_sent_bytes_repair_a_damaged_blob(vault, vault_place, weights):
    data = weights(1)
    vault.pin_all([sent("a", data)])
    vault_place.write(key(Artifact.of(data).digest), b"damaged")
    vault.pin_all([sent("b", data)])
    assert vault.get(Artifact.of(data).digest) == data


def test_sent_blobs_count_towards_the_quota_of_their_owner(vault_place, weights):
    one, two, three = weights(1), weights(2), weights(3)
    with closing(vault_place.store(quota=2 * len(one))) as vault:
        results = vault.pin_all([sent("a", one), sent("b", two), sent("c", three), sent("d", three, owner="bob")])
        assert [type(result) for result in results] == [dict, dict, InsufficientStorageError, dict]
        (again,) = vault.pin_all([sent("e", weights(4))])
        assert isinstance(again, InsufficientStorageError)
        assert vault_place.names() == sorted(key(Artifact.of(data).digest) for data in (one, two, three))
        assert vault.pins().items[-1].holder == "d"


def test_sent_blobs_count_towards_the_quota_of_all(vault_place, weights):
    one, two, three = weights(1), weights(2), weights(3)
    with closing(vault_place.store(total_quota=2 * len(one))) as vault:
        results = vault.pin_all([sent("a", one), sent("b", two, owner="bob"), sent("c", three)])
        assert [type(result) for result in results] == [dict, dict, InsufficientStorageError]
        (again,) = vault.pin_all([sent("e", three, owner="bob")])
        assert "of all entities together" in again.message
        assert vault_place.names() == sorted(key(Artifact.of(data).digest) for data in (one, two))


def test_what_is_not_indexed_is_removed_again(vault, vault_place, weights, monkeypatch):
    def fail(work):
        raise ServiceUnavailableError("No database.")

    monkeypatch.setattr(vault.database, "write", fail)
    with pytest.raises(ServiceUnavailableError):
        vault.pin_all([sent("a", weights(1))])
    assert vault_place.names() == []
    monkeypatch.undo()
    put_all = type(vault.storage).put_all

    def stored_in_part(storage, blobs):
        put_all(storage, blobs)
        raise InsufficientStorageError("No space.")

    there = vault.put(weights(2))
    monkeypatch.setattr(type(vault.storage), "put_all", stored_in_part)
    results = vault.pin_all([sent("a", weights(1)), PinRequest(holder="b", artifacts=tuple(kinds(there)))])
    assert [type(result) for result in results] == [InsufficientStorageError, dict]
    assert vault_place.names() == [key(there.digest)]
