import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from kuber.data import datasets
from kuber.data.datasets import BUILT_IN, load_dataset
from kuber.data.decoded import DecodedArrays, digest_of
from kuber.domain.digest import Digest
from kuber.errors import DatasetError
from tests.fixtures.waiting import LIMIT


@pytest.fixture
def random_cifar10(cifar, monkeypatch):
    """Let `cifar10` have the digest of the random images."""
    digest = str(digest_of(cifar.arrays.by_name()))
    monkeypatch.setitem(BUILT_IN, "cifar10", replace(BUILT_IN["cifar10"], digest=digest))


@pytest.fixture
def folder(cifar, tmp_path):
    """A user's folder with the random images."""
    return cifar.batches.write(tmp_path / "user")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def refuse(data_dir, echo):
    raise AssertionError("fetched, although the cache holds it")


def cached(cache):
    (path,) = cache.iterdir()
    return path


def test_a_user_folder_fills_the_cache(random_cifar10, cifar, folder, cache, monkeypatch):
    dataset = load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    np.testing.assert_array_equal(dataset.train.images(), cifar.arrays.train_x)
    np.testing.assert_array_equal(dataset.test.labels, cifar.arrays.test_y)
    assert dataset.train.path == dataset.test.path == cached(cache)
    monkeypatch.setitem(BUILT_IN, "cifar10", replace(BUILT_IN["cifar10"], fetch=refuse))
    assert load_dataset("cifar10", cache_dir=cache).train.digest() == dataset.train.digest()


def test_the_cached_file_is_not_replaced_while_processes_map_it(random_cifar10, folder, cache):
    """All entity processes share one file, even if each of them names the folder."""
    before = os.stat(load_dataset("cifar10", data_dir=folder, cache_dir=cache).train.path)
    for verify in (True, False):
        after = os.stat(load_dataset("cifar10", data_dir=folder, cache_dir=cache, verify=verify).train.path)
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_missing_folder_is_an_error_even_if_the_cache_has_the_data(random_cifar10, folder, cache):
    load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset("cifar10", data_dir=folder / "nowhere", cache_dir=cache)


def test_other_images_are_refused_and_nothing_is_stored(folder, cache):
    with pytest.raises(DatasetError, match="These are not the images of cifar10"):
        load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_cache_is_replaced(random_cifar10, folder, cache, damage):
    whole = load_dataset("cifar10", data_dir=folder, cache_dir=cache).train.digest()
    path = cached(cache)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    dataset = load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    assert cached(cache).read_bytes() == good
    assert dataset.train.digest() == whole


def test_a_damaged_cache_does_not_outlive_a_source_that_fails(random_cifar10, folder, cache):
    load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    cached(cache).write_bytes(b"damaged")
    with pytest.raises(DatasetError):
        load_dataset("cifar10", data_dir=folder / "nowhere", cache_dir=cache)
    assert not list(cache.iterdir())


def test_a_file_that_replaced_a_damaged_one_is_not_removed(cache):
    cache.mkdir()
    path = cache / "a.safetensors"
    path.write_bytes(b"damaged")
    seen = path.stat()
    path.write_bytes(b"valid, in the same inode")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1_000_000_000))
    datasets._remove(path, seen)
    assert path.exists()
    datasets._remove(path, path.stat())
    assert not path.exists()
    datasets._remove(path, seen)


def test_a_file_cut_short_is_detected_without_verifying_too(random_cifar10, folder, cache):
    load_dataset("cifar10", data_dir=folder, cache_dir=cache)
    path = cached(cache)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    load_dataset("cifar10", data_dir=folder, cache_dir=cache, verify=False)
    assert path.read_bytes() == good


def test_a_cache_folder_that_cannot_be_made_is_an_error(random_cifar10, folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be"):
        load_dataset("cifar10", data_dir=folder, cache_dir=tmp_path / "file" / "cache")


def test_a_full_disk_leaves_nothing(random_cifar10, cifar, cache):
    cache.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DatasetError, match="cannot be written"):
            datasets._store(cifar.arrays.by_name(), cache / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(cache.iterdir())


@pytest.mark.process
def test_processes_that_fill_the_same_cache_do_not_disturb_each_other(tmp_path, cache):
    """Two processes fill each of several new caches at the same time; half of them have a damaged file."""
    x = np.random.default_rng(0).integers(0, 256, (2000, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(2000) % 5)
    name = load_dataset(str(tmp_path / "own.npz"), cache_dir=tmp_path / "first").train.path.name
    folders = [cache / str(number) for number in range(8)]
    for folder in folders[::2]:
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"damaged")
    script = (
        "import sys; from pathlib import Path; from kuber.data.datasets import load_dataset\n"
        "for folder in sys.argv[2:]:\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    print(load_dataset(sys.argv[1], cache_dir=Path(folder)).train.digest(), flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "own.npz"), *map(str, folders)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(2)
    ]
    digests = set()
    for _ in folders:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
        digests |= {process.stdout.readline().strip() for process in processes}
    for process in processes:
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert digests == {str(load_dataset(str(tmp_path / "own.npz"), cache_dir=tmp_path / "first").train.digest())}
    assert [cached(folder).name for folder in folders] == [name] * len(folders)


def test_the_error_for_an_unknown_name_lists_the_known_ones(cache):
    with pytest.raises(DatasetError, match=r"cifar10, fashion-mnist, digits, or a path ending in .npz"):
        load_dataset("imagenet", cache_dir=cache)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_data_sets_have_all_their_constants(name):
    entry = BUILT_IN[name]
    assert Digest.parse(entry.digest)
    assert len(set(entry.labels)) == 10
    assert len(entry.mean) == len(entry.std) == (3 if name == "cifar10" else 1)


def test_arrays_of_the_user(tmp_path, cache):
    x = np.random.default_rng(0).integers(0, 200, (50, 8, 8, 3), dtype=np.uint8)
    x[..., 2] = 40  # a channel that never changes
    np.savez(tmp_path / "shapes.npz", x=x, y=np.arange(50) % 2, classes=["round", "square"])
    dataset = load_dataset(str(tmp_path / "shapes.npz"), cache_dir=cache)
    assert dataset.name == "shapes"
    assert dataset.labels == ("round", "square")
    assert (len(dataset.train), len(dataset.test)) == (40, 10)
    assert not dataset.flip
    pixels = dataset.train.images() / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)))
    np.testing.assert_allclose(dataset.std, [*pixels.std((0, 2, 3))[:2], 1.0])
    first = os.stat(cached(cache))
    load_dataset(str(tmp_path / "shapes.npz"), cache_dir=cache, verify=False)
    assert os.stat(cached(cache)).st_ino == first.st_ino


def test_vectors_of_the_user_are_normalised_by_feature(tmp_path, cache):
    x = np.random.default_rng(0).normal([0, 5, 10], [1, 2, 3], (200, 3))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(200) % 2)
    dataset = load_dataset(str(tmp_path / "a.npz"), cache_dir=cache)
    np.testing.assert_allclose(dataset.mean, [0, 5, 10], atol=1)
    np.testing.assert_allclose(dataset.std, [1, 2, 3], atol=0.5)


def test_different_arrays_have_different_digests():
    x, y = np.arange(12, dtype=np.uint8).reshape(2, 6), np.array([0, 1])
    arrays = DecodedArrays(train_x=x, train_y=y, test_x=x, test_y=y)
    others = [
        replace(arrays, train_x=x.reshape(3, 4)),
        replace(arrays, train_x=x.astype(np.float32)),
        replace(arrays, train_x=x[::-1]),
        replace(arrays, test_y=y[::-1].copy()),
    ]
    assert len({digest_of(each.by_name()) for each in [arrays, *others]}) == 5
