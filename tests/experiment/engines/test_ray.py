"""The engine `ray`, on real clusters of several raylets on this machine."""

import hashlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.numpy import save_file

from kuber.data.samples import Samples
from kuber.domain.query import Query
from kuber.entity.work.steps import Work
from kuber.errors import CorruptKnowledgeError, ServiceUnavailableError, SettingsError
from kuber.experiment.engines import EngineConfig, engine_config, open_engine
from kuber.experiment.engines.ray import _kept
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.settings import Settings

DEEDS = """
import os
import torch
from kuber.errors import CorruptKnowledgeError

def tell(weights, *, progress):
    return os.getpid(), torch.get_num_threads(), {name: tensor + 1 for name, tensor in weights.items()}

def refuse(*, progress):
    raise CorruptKnowledgeError("It says infinity.")

def read(samples, *, progress):
    return int(samples.labels.sum()), str(samples.path)
"""


def work(function: Any, **arguments: Any) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


@pytest.fixture(scope="module")
def deeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("deeds")
    (folder / "kuber_ray_deeds.py").write_text(DEEDS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # Raylets are started with our environment, and what they start imports from there.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield importlib.import_module("kuber_ray_deeds")
    del sys.modules["kuber_ray_deeds"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def cluster(deeds: Any, tasks: Path) -> Iterator[Cluster]:
    """A head without a core for tasks, and two more machines of one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tasks)  # where tasks find themselves
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            found.add_node(wait=False, num_cpus=1, include_dashboard=False)
    found.wait_for_nodes()
    yield found
    found.shutdown()
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=20)
    assert not alive


def at(cluster: Cluster, **told: Any) -> EngineConfig:
    return EngineConfig(kind="ray", ray_address=cluster.address, **told)


def test_steps_are_done_in_the_cluster_and_come_back_whole(cluster, deeds, tasks, tmp_path, monkeypatch):
    weights = {
        "w": torch.randn(300, 400),
        "tiny": torch.tensor([[0.5, -0.0], [float("nan"), 1e-40]]),
        "half": torch.ones(9000, dtype=torch.bfloat16),
        "none": torch.zeros(0, 3),
    }
    before = signal.getsignal(signal.SIGTERM)
    with open_engine(at(cluster)) as engine:
        assert signal.getsignal(signal.SIGTERM) is before
        pid, threads, told = engine.submit(work(deeds.tell, weights=weights)).result()
        assert pid != os.getpid()
        assert threads == 1
        for name, tensor in weights.items():
            assert (told[name].dtype, told[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(told[name].nan_to_num(7.0), (tensor + 1).nan_to_num(7.0))
            told[name] += 1  # they can be written to
        with pytest.raises(CorruptKnowledgeError, match="It says infinity"):
            engine.submit(work(deeds.refuse)).result()

        # A path that names a file in our folder, another in that of the tasks: /proc/self/cwd is of who asks.
        monkeypatch.chdir(tmp_path)
        labels = np.arange(2000, dtype=np.int64)
        save_file({"train_x": np.zeros((2000, 1), np.uint8), "train_y": labels}, "ours.safetensors")
        digest = hashlib.sha256(Path("ours.safetensors").read_bytes()).hexdigest()
        shutil.rmtree(_kept(digest).parent, ignore_errors=True)
        here = Samples(path=Path("/proc/self/cwd/ours.safetensors"), part="train", rows=np.arange(100, 1900))
        found = [engine.submit(work(deeds.read, samples=here)) for _ in range(4)]
        assert {one.result() for one in found} == {(int(labels[100:1900].sum()), str(_kept(digest)))}
        # Where the file has the samples that were meant, it is used.
        same = Samples(path=tmp_path / "ours.safetensors", part="train")
        assert engine.submit(work(deeds.read, samples=same)).result() == (labels.sum(), str(same.path))
        # Labels that are told otherwise are told so there too.
        few = Samples(path=same.path, part="train", rows=np.array([0, 1])).relabelled([5, 7])
        assert engine.submit(work(deeds.read, samples=few)).result()[0] == 12

    # Neither a kept file that was damaged nor another one of that name is taken for what was meant.
    _kept(digest).write_bytes(b"something else")
    (tasks / "ours.safetensors").write_bytes(b"other samples")
    with open_engine(at(cluster)) as engine:
        assert engine.submit(work(deeds.read, samples=here)).result() == found[0].result()


def test_gpus_that_the_cluster_has_not_are_refused(cluster):
    with (
        pytest.raises(SettingsError, match=r"0\.5 of a GPU, but the cluster has 0"),
        open_engine(at(cluster, gpus_per_worker=0.5)),
    ):
        pass


@pytest.mark.timeout(120)
def test_a_machine_that_dies_changes_no_bit(cluster, tmp_path):
    scenario = load_scenario(
        Settings(
            dataset="digits",
            architecture="mlp",
            learning_rate=0.1,
            batch_size=16,
            num_entities=4,
            num_rounds=4,
            kd_epochs=1,
            speed_ratio=3,
            cache_dir=tmp_path,
        )
    )
    victim = next(iter(cluster.worker_nodes))
    killed = threading.Event()

    def kill(log: Path) -> None:
        """SIGKILL every process of one machine once the run is under way."""
        while log.stat().st_size == 0 or b'"published"' not in log.read_bytes():
            time.sleep(0.01)
        raylet = next(one.process for one in victim.all_processes["raylet"])
        doomed = [*psutil.Process(raylet.pid).children(recursive=True), psutil.Process(raylet.pid)]
        for process in doomed:
            process.kill()
        psutil.wait_procs(doomed, timeout=10)
        killed.set()

    logs, digests = [], []
    for choice in (EngineConfig(kind="inline"), at(cluster)):
        log = tmp_path / f"{choice.kind}.jsonl"
        log.touch()
        with open_engine(choice) as engine:
            runtime = simulated_runtime(scenario)
            simulation = Simulation(
                scenario,
                engine=engine,
                recorder=MetricsRecorder(scenario, engine, make_learners(scenario, runtime)),
                runtime=runtime,
                progress=SilentProgress(),
                log=log,
            )
            if choice.kind == "ray":
                thread = threading.Thread(target=kill, args=(log,))
                thread.start()
            simulation.run()
        logs.append(log.read_bytes())
        records = simulation.registry.discover(Query(order="newest", limit=100)).items
        digests.append([str(record.artifacts["weights"].digest) for record in records])
    thread.join()
    assert killed.is_set()
    assert len([node for node in cluster.worker_nodes]) == 2  # nobody but us took it out
    assert len(digests[0]) > 4
    assert logs[0] == logs[1]
    assert digests[0] == digests[1]


def kuber(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kuber", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_a_cluster_that_does_not_answer_is_refused_before_anything_is_done(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # nobody listens there any more
    done = kuber("simulate", "--engine", "ray", "--ray-address", address, cwd=tmp_path)
    assert done.returncode == ServiceUnavailableError.exit_code
    assert f"No Ray cluster answers at {address}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_somebody_who_listens_but_is_no_cluster_is_refused(monkeypatch):
    monkeypatch.setattr("kuber.experiment.engines.ray.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServiceUnavailableError, match=f"No Ray cluster answers at {address}"):
            engine_config("ray", ray_address=address)


@pytest.mark.parametrize("address", ["here", "ray://127.0.0.1:10001", "127.0.0.1:0", ":6379"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(SettingsError, match="HOST:PORT"):
        engine_config("ray", ray_address=address)


def test_ray_that_is_not_installed_is_told_of(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'kuber\[ray\]'"):
        engine_config("ray")


def test_nothing_of_ray_is_left(cluster):
    assert not ray.is_initialized()
