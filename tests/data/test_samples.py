import gc
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kuber.data.samples import Samples, map_tensors

N = 50


@pytest.fixture
def samples(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
    y = draw.integers(0, 10, N)
    save_file({"train_x": x, "train_y": y, "test_x": x[:7], "test_y": y[:7]}, tmp_path / "a.safetensors")
    return Samples(tmp_path / "a.safetensors", "train")


def test_shape_and_length(samples):
    assert samples.shape == (3, 8, 8)
    assert len(samples) == N
    assert len(Samples(samples.path, "test")) == 7
    assert samples.labels.dtype == np.int64


def test_take_selects_in_order_and_composes(samples):
    chosen = samples.take([9, 3, 30]).take([2, 0])
    assert len(chosen) == 2
    np.testing.assert_array_equal(chosen.labels, samples.labels[[30, 9]])
    np.testing.assert_array_equal(chosen.images(), samples.images(np.array([30, 9])))
    np.testing.assert_array_equal(chosen.images(np.array([1])), samples.images(np.array([9])))
    assert len(samples.take([])) == 0


def test_mapped_arrays_share_one_read_only_map(samples):
    tensors = map_tensors(samples.path)
    assert not any(tensor.flags.writeable or tensor.flags.owndata for tensor in tensors.values())


def test_an_unpickled_object_maps_the_same_file_and_copies_nothing(samples):
    samples.images()
    again = pickle.loads(pickle.dumps(samples))
    images = again.images(slice(3, 9))
    assert not images.flags.owndata
    assert not images.flags.writeable
    owner = images
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    assert owner.filename == str(samples.path)
    np.testing.assert_array_equal(images, samples.images(np.arange(3, 9)))


def test_a_file_is_mapped_once_while_it_is_in_use(samples):
    def times_open():
        found = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the listing itself
                found += descriptor.readlink() == samples.path
        return found

    gc.collect()
    before = times_open()
    held = [pickle.loads(pickle.dumps(samples.take([number]))).images() for number in range(N)]
    views = [pickle.loads(pickle.dumps(samples)) for _ in range(N)]
    assert [len(view.images(slice(0, 2))) for view in views] == [2] * N
    assert times_open() == before + 1
    del held, views
    gc.collect()
    assert times_open() == before


def test_a_file_that_replaced_another_is_mapped_anew(samples):
    old = map_tensors(samples.path)
    save_file({"train_x": np.ones(3, np.uint8), "train_y": np.arange(3)}, samples.path.with_name("b"))
    samples.path.with_name("b").replace(samples.path)
    assert map_tensors(samples.path)["train_x"].tolist() == [1, 1, 1]
    assert old["train_x"].shape == (N, 3, 8, 8)


def test_pickles_without_its_samples(tmp_path):
    x = np.zeros((1000, 3, 32, 32), np.uint8)
    save_file({"train_x": x, "train_y": np.zeros(1000, np.int64)}, tmp_path / "a.safetensors")
    chosen = Samples(tmp_path / "a.safetensors", "train").take(np.arange(10))
    assert len(chosen.labels) == 10  # maps the file
    chosen.digest()
    assert len(pickle.dumps(chosen)) < 1000


@pytest.mark.process
def test_another_process_sees_the_same_samples(samples):
    chosen = samples.take([4, 2])
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).digest())"
    process = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(chosen), capture_output=True, check=True
    )
    assert process.stdout.decode().strip() == str(chosen.digest())


def test_the_digest_depends_on_samples_labels_and_order(samples, tmp_path):
    chosen = samples.take([1, 2, 3])
    x, y = chosen.images(), chosen.labels
    save_file({"test_x": x, "test_y": y}, tmp_path / "b.safetensors")
    assert Samples(tmp_path / "b.safetensors", "test").digest() == chosen.digest()
    others = {
        "order": samples.take([2, 1, 3]),
        "fewer": samples.take([1, 2]),
    }
    for name, changed_x, changed_y in (
        ("pixel", np.where(np.arange(8) == 5, x ^ 1, x), y),
        ("label", x, (y + 1) % 10),
        ("shape", np.ascontiguousarray(x.reshape(3, 8, 3, 8)), y),
        ("dtype", x.astype(np.float32), y),
    ):
        save_file({"test_x": changed_x, "test_y": changed_y}, tmp_path / f"{name}.safetensors")
        others[name] = Samples(tmp_path / f"{name}.safetensors", "test")
    digests = {name: other.digest() for name, other in others.items()}
    assert chosen.digest() not in digests.values()
    assert len(set(digests.values())) == len(digests)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:20], lambda b: b"", lambda b: b"\xff" * 99]
)
def test_a_file_cut_short_is_refused(samples, damage):
    samples.path.write_bytes(damage(samples.path.read_bytes()))
    with pytest.raises(ValueError):
        map_tensors(samples.path)


def test_an_unknown_dtype_is_refused(tmp_path):
    save_file({"train_x": np.zeros(3, np.float16)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="F16"):
        map_tensors(tmp_path / "a.safetensors")
