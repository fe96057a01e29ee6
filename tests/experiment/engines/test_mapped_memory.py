"""Mapped memory: real files, and real processes that are killed."""

import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from kuber.domain.digest import Digest
from kuber.errors import TrainingError
from kuber.experiment.engines.mapped_memory import EXTENT, MappedMemoryWriter, as_bytes, find_block
from kuber.experiment.simulation.shared_weights import MappedWeightStore
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.weights import dump
from tests.fixtures.waiting import LIMIT


def bytes_of(*values: int, size: int = 10_000) -> list[memoryview]:
    return [np.full(size, value, np.uint8).data for value in values]


def test_written_bytes_are_read_and_mapped():
    memory = MappedMemoryWriter()
    block, places = memory.write(bytes_of(1, 2, 3))
    assert [memory.read(place, 2) for place in places] == [b"\1\1", b"\2\2", b"\3\3"]
    whole = memory.view(block)
    for value, place in enumerate(places, 1):
        part = whole[place.offset - block.offset :][: place.size]
        assert part.tobytes() == bytes([value]) * 10_000
        assert find_block(part) == (memory, place)
    assert find_block(np.zeros(10, np.uint8)) is None


def test_a_block_is_freed_when_nothing_refers_to_its_view():
    memory = MappedMemoryWriter()
    weights = memory.keep({"w": torch.ones(5000), "b": torch.zeros(3, dtype=torch.int64)})
    used = memory.size
    kept = weights.pop("b")
    del weights
    gc.collect()
    other = memory.keep({"w": torch.full((5000,), 2.0), "b": torch.zeros(3, dtype=torch.int64)})
    assert memory.size == 2 * used  # one tensor of the first block is left
    assert kept.tolist() == [0, 0, 0]
    del kept, other
    gc.collect()
    for _ in range(50):
        memory.keep({"w": torch.full((5000,), 3.0), "b": torch.zeros(3, dtype=torch.int64)})
    assert memory.size == 2 * used


def test_kept_weights_are_the_same_and_kept_once():
    memory = MappedMemoryWriter()
    weights = {"w": torch.randn(40, 50), "n": torch.tensor(7), "half": torch.ones(99, dtype=torch.bfloat16)}
    kept = memory.keep(weights)
    for name, tensor in weights.items():
        assert (kept[name].dtype, kept[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(kept[name], tensor)
        assert find_block(as_bytes(kept[name]))
    assert memory.keep(kept) is kept


def test_released_pages_keep_their_contents(monkeypatch):
    memory = MappedMemoryWriter()
    kept = memory.keep({"w": torch.arange(100_000.0)})["w"]
    kept += 1  # through the map: not written to the disk yet
    monkeypatch.setattr("kuber.experiment.engines.mapped_memory.RELEASE_AFTER_BYTES", 1)
    memory.note_read(1)
    assert torch.equal(kept, torch.arange(100_000.0) + 1)


def test_no_block_crosses_two_extents():
    memory = MappedMemoryWriter()
    memory._end = EXTENT - 4096  # as after many blocks
    block, (place,) = memory.write(bytes_of(9))
    assert block.offset == EXTENT
    assert memory.view(block)[: place.size].tobytes() == bytes([9]) * 10_000


def test_thousands_of_parts_are_written():
    memory = MappedMemoryWriter()
    _, places = memory.write([memoryview(bytes([number % 251]) * 3) for number in range(3000)])
    assert [memory.read(place, 3) for place in places] == [bytes([number % 251]) * 3 for number in range(3000)]


def test_a_full_disk_is_an_error():
    memory = MappedMemoryWriter()
    memory.write(bytes_of(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot be written to .* TMPDIR"):
            memory.write(bytes_of(1, size=2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert memory.read(memory.write(bytes_of(5))[1][0], 1) == b"\5"


def test_the_file_has_no_name_and_is_not_in_shared_memory():
    before = set(os.listdir(tempfile.gettempdir()))
    memory = MappedMemoryWriter()
    memory.write(bytes_of(1))
    assert os.fstat(memory.descriptor).st_nlink == 0
    assert os.fstat(memory.descriptor).st_dev == os.stat(tempfile.gettempdir()).st_dev
    assert not any("kuber" in name for name in set(os.listdir(tempfile.gettempdir())) - before)


PARENT = """
    import torch, sys, time
    from kuber.entity.work.steps import Work
    from kuber.experiment.engines.factory import open_engine
    from kuber_test_hold import hold

    if __name__ == "__main__":
        with open_engine(2) as engine:
            weights = [{"w": torch.full((500_000,), float(number))} for number in range(4)]

            def submit(model, seconds):
                return engine.submit(Work(function=hold, arguments={"weights": model, "seconds": seconds}, cost=1.0))

            kept = [future.result() for future in [submit(model, 0) for model in weights]]
            print("ready", flush=True)
            submit(kept[0], 600).result()
"""
HOLD = """
    import time

    def hold(weights, seconds, *, progress):
        time.sleep(seconds)
        return {name: tensor + 1 for name, tensor in weights.items()}
"""


def in_shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.mark.process
def test_nothing_is_left_after_a_kill(tmp_path: Path, request: pytest.FixtureRequest):
    """No process, file or shared memory is left when the parent is killed while workers execute steps."""
    (tmp_path / "kuber_test_hold.py").write_text(textwrap.dedent(HOLD), encoding="utf-8")
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT), encoding="utf-8")
    temporary = Path(tempfile.mkdtemp(prefix="kuber-"))  # short: the path of a socket is limited
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    before = in_shared_memory()
    environ = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        tree = psutil.Process(parent.pid).children(recursive=True)
        opened = [os.readlink(path) for process in tree for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(str(temporary) in path and path.endswith("(deleted)") for path in opened)  # mapped files
        assert not any(path.startswith("/dev/shm/") and "deleted" not in path for path in opened)
        parent.kill()
    _, alive = psutil.wait_procs(tree, timeout=LIMIT)
    assert not alive
    assert not [path for path in temporary.rglob("*") if path.is_file()]
    assert not [name for name in in_shared_memory() - before if "torch" in name or "kuber" in name]


def test_weights_without_references_are_forgotten():
    store = MappedWeightStore(MappedMemoryWriter())
    architecture = describe("mlp", {"input_shape": (4,), "classes": 2})
    data = dump(initial_weights(architecture, 0))
    digest = Digest.of(data)
    weights = store.load(digest, data, architecture)
    again = store.load(digest, data, architecture)
    assert all(again[name] is weights[name] for name in weights)  # one copy for all entities that pulled it
    del weights, again
    gc.collect()
    assert store._loaded == {}
    assert store.load(digest, data, architecture)
