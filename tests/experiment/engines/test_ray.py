"""The engine `ray`, on real clusters of several raylets on this machine."""

import hashlib
import importlib
import os
import shutil
import signal
import socket
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
from kuber.experiment.engines.factory import EngineConfig, engine_config, open_engine
from kuber.experiment.engines.ray_task import stored_path
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.settings import Settings
from tests.fixtures import fork_server
from tests.fixtures.commands import finished
from tests.fixtures.waiting import LIMIT

FUNCTIONS = """
import os
import torch
from kuber.errors import CorruptKnowledgeError

def add_one(weights, *, progress):
    return os.getpid(), torch.get_num_threads(), {name: tensor + 1 for name, tensor in weights.items()}

def refuse(*, progress):
    raise CorruptKnowledgeError("It says infinity.")

def read(samples, *, progress):
    return int(samples.labels.sum()), str(samples.path)
"""


def work(function: Any, **arguments: Any) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "kuber_ray_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # Raylets inherit our environment, and their tasks import from there.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield importlib.import_module("kuber_ray_functions")
    del sys.modules["kuber_ray_functions"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def cluster(process: None, functions: Any, tasks: Path) -> Iterator[Cluster]:
    """A head node without cores for tasks, and two nodes with one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    others = set(psutil.Process().children())  # such as the browser, which starts processes of its own at any time
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tasks)  # the working folder of tasks
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            found.add_node(wait=False, num_cpus=1, include_dashboard=False)
    found.wait_for_nodes()
    yield found
    services = [child for child in psutil.Process().children() if child not in others and not is_fork_server(child)]
    started = [*services, *(child for service in services for child in descendants(service))]
    found.shutdown()
    _, alive = psutil.wait_procs(started, timeout=LIMIT)
    assert not alive


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Give what `process` has started; nothing when it has ended meanwhile."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_fork_server(process: psutil.Process) -> bool:
    """Whether this is the server that forks commands for tests; it lives as long as we do."""
    try:
        return fork_server.__file__ in process.cmdline()
    except psutil.Error:  # it has ended meanwhile
        return False


def at(cluster: Cluster, **options: Any) -> EngineConfig:
    return EngineConfig(kind="ray", ray_address=cluster.address, **options)


def test_steps_run_in_the_cluster_and_results_arrive_unchanged(cluster, functions, tasks, tmp_path, monkeypatch):
    weights = {
        "w": torch.randn(300, 400),
        "tiny": torch.tensor([[0.5, -0.0], [float("nan"), 1e-40]]),
        "half": torch.ones(9000, dtype=torch.bfloat16),
        "none": torch.zeros(0, 3),
    }
    before = signal.getsignal(signal.SIGTERM)
    with open_engine(at(cluster)) as engine:
        assert signal.getsignal(signal.SIGTERM) is before
        pid, threads, result = engine.submit(work(functions.add_one, weights=weights)).result()
        assert pid != os.getpid()
        assert threads == 1
        for name, tensor in weights.items():
            assert (result[name].dtype, result[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(result[name].nan_to_num(7.0), (tensor + 1).nan_to_num(7.0))
            result[name] += 1  # results are writable
        with pytest.raises(CorruptKnowledgeError, match="It says infinity"):
            engine.submit(work(functions.refuse)).result()

        # /proc/self/cwd depends on the process: one path names our file here, and another file for the tasks.
        monkeypatch.chdir(tmp_path)
        labels = np.arange(2000, dtype=np.int64)
        save_file({"train_x": np.zeros((2000, 1), np.uint8), "train_y": labels}, "ours.safetensors")
        digest = hashlib.sha256(Path("ours.safetensors").read_bytes()).hexdigest()
        shutil.rmtree(stored_path(digest).parent, ignore_errors=True)
        here = Samples(path=Path("/proc/self/cwd/ours.safetensors"), part="train", rows=np.arange(100, 1900))
        found = [engine.submit(work(functions.read, samples=here)) for _ in range(4)]
        assert {future.result() for future in found} == {(int(labels[100:1900].sum()), str(stored_path(digest)))}
        # A file with the right digest is used.
        same = Samples(path=tmp_path / "ours.safetensors", part="train")
        assert engine.submit(work(functions.read, samples=same)).result() == (labels.sum(), str(same.path))
        # Labels that are result otherwise are result so there too.
        few = Samples(path=same.path, part="train", rows=np.array([0, 1])).relabelled([5, 7])
        assert engine.submit(work(functions.read, samples=few)).result()[0] == 12

    # Neither a damaged copy nor another file of that name is used.
    stored_path(digest).write_bytes(b"something else")
    (tasks / "ours.safetensors").write_bytes(b"other samples")
    with open_engine(at(cluster)) as engine:
        assert engine.submit(work(functions.read, samples=here)).result() == found[0].result()


def test_more_gpus_than_the_cluster_has_are_refused(cluster):
    with (
        pytest.raises(SettingsError, match=r"--gpus-per-worker is 0\.5, but the cluster has 0"),
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
        raylet = next(info.process for info in victim.all_processes["raylet"])
        doomed = [*psutil.Process(raylet.pid).children(recursive=True), psutil.Process(raylet.pid)]
        for process in doomed:
            process.kill()
        psutil.wait_procs(doomed, timeout=LIMIT)
        killed.set()

    logs, digests = [], []
    for config in (EngineConfig(kind="inline"), at(cluster)):
        log = tmp_path / f"{config.kind}.jsonl"
        log.touch()
        with open_engine(config) as engine:
            runtime = simulated_runtime(scenario)
            simulation = Simulation(
                scenario,
                engine=engine,
                recorder=MetricsRecorder(scenario, engine, make_learners(scenario, runtime)),
                runtime=runtime,
                progress=SilentProgress(),
                log=log,
            )
            if config.kind == "ray":
                thread = threading.Thread(target=kill, args=(log,))
                thread.start()
            simulation.run()
        logs.append(log.read_bytes())
        records = simulation.registry.discover(Query(order="newest", limit=100)).items
        digests.append([str(record.artifacts["weights"].digest) for record in records])
    thread.join()
    assert killed.is_set()
    assert len([node for node in cluster.worker_nodes]) == 2  # nothing else removed a node
    assert len(digests[0]) > 4
    assert logs[0] == logs[1]
    assert digests[0] == digests[1]


@pytest.mark.process
def test_an_unreachable_cluster_is_refused_before_anything_is_done(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # nothing listens there any more
    done = finished("simulate", "--engine", "ray", "--ray-address", address, folder=tmp_path)
    assert done.returncode == ServiceUnavailableError.exit_code
    assert f"No Ray cluster answers at {address}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_server_that_is_not_a_cluster_is_refused(monkeypatch):
    monkeypatch.setattr("kuber.experiment.engines.ray.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServiceUnavailableError, match=f"No Ray cluster answers at {address}"):
            engine_config("ray", ray_address=address)


@pytest.mark.parametrize("address", ["here", "ray://127.0.0.1:10001", "127.0.0.1:0", ":6379"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(SettingsError, match="HOST:PORT"):
        engine_config("ray", ray_address=address)


def test_a_missing_ray_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'kuber\[ray\]'"):
        engine_config("ray")


def test_nothing_of_ray_is_left(cluster):
    assert not ray.is_initialized()
