"""The engines `inline` and `processes`, with real worker processes."""

import importlib
import os
import sys
import threading
from dataclasses import replace

import psutil
import pytest
import torch

from kuber.entity.work.steps import Work
from kuber.errors import CorruptKnowledgeError, TrainingError
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import open_engine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.settings import Settings
from tests.fixtures.waiting import LIMIT

# Workers import functions by name, so these are in a module of their own.
FUNCTIONS = """
import os, signal, time
from dataclasses import dataclass
import torch
from kuber.errors import CorruptKnowledgeError

@dataclass(frozen=True)
class Report:
    pid: int
    weights: dict
    threads: int

def add_one(weights, *, progress):
    progress(1.0)
    return Report(os.getpid(), {name: tensor + 1 for name, tensor in weights.items()}, torch.get_num_threads())

def refuse(*, progress):
    raise CorruptKnowledgeError("It says infinity.")

def sleep(*, progress):
    time.sleep(600)

def inspect(learner, *, progress):
    return id(learner), len(learner.private), learner.private.labels.tolist()

def die(*, progress):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def functions(tmp_path, monkeypatch):
    (tmp_path / "kuber_test_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("kuber_test_functions")
    del sys.modules["kuber_test_functions"]


def work(function, **arguments) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


@pytest.fixture(params=[0, pytest.param(2, marks=pytest.mark.process)], ids=["inline", "processes"])
def engine(request, functions):
    with open_engine(request.param) as found:
        yield found


@pytest.fixture
def learners(tmp_path):
    """Learners of two entities, whose samples are in one file."""
    scenario = load_scenario(
        Settings(dataset="digits", num_entities=2, partition="iid", common_test_size=20, cache_dir=tmp_path / "cache")
    )
    return make_learners(scenario, simulated_runtime(scenario))


WEIGHTS = {
    "w": torch.tensor([[0.5, -0.0], [float("nan"), 1e-40]]),
    "steps": torch.tensor(7),
    "none": torch.zeros(0, 3),
}


def test_tensors_arrive_unchanged_both_ways(engine: Engine, functions):
    result = engine.submit(work(functions.add_one, weights=WEIGHTS)).result()
    for name, tensor in WEIGHTS.items():
        back = result.weights[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.numpy().tobytes() == (tensor + 1).numpy().tobytes()
        back += 1  # results are writable


@pytest.mark.process
def test_a_worker_deserializes_a_learner_once(learners, functions):
    first, second = learners
    with open_engine(1) as engine:
        order = (first, second, first, first)
        seen = [engine.submit(work(functions.inspect, learner=learner)).result() for learner in order]
    assert [labels for _, _, labels in seen] == [learner.private.labels.tolist() for learner in order]
    assert len({address for address, _, _ in seen}) == 2


@pytest.mark.process
def test_consecutive_learners_with_one_id_are_distinguished(learners, functions):
    with open_engine(1) as engine:
        for number in range(20):  # a new learner may get the id of the one before
            learner = replace(learners[0], private=learners[0].private.take([number % 4]))
            _, count, labels = engine.submit(work(functions.inspect, learner=learner)).result()
            assert (count, labels) == (1, learner.private.labels.tolist())
            del learner


def test_work_is_done_on_one_thread(engine: Engine, functions):
    torch.set_num_threads(2)
    try:
        assert engine.submit(work(functions.add_one, weights={})).result().threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_an_error_keeps_its_class_and_its_message(engine: Engine, functions):
    with pytest.raises(CorruptKnowledgeError, match="It says infinity"):
        engine.submit(work(functions.refuse)).result()
    assert engine.submit(work(functions.add_one, weights={})).result()


@pytest.mark.process
def test_workers_are_processes_that_end_with_the_engine(functions):
    with open_engine(2) as engine:
        futures = [engine.submit(work(functions.add_one, weights={})) for _ in range(20)]
        pids = {future.result().pid for future in futures}
        assert os.getpid() not in pids
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=LIMIT)
    assert not alive


@pytest.mark.process
def test_closing_an_engine_at_work_ends_all_of_it(functions):
    before = set(threading.enumerate())
    futures = []

    def leave() -> None:
        with open_engine(2) as engine:
            engine.submit(work(functions.add_one, weights={})).result()
            futures.extend(engine.submit(work(functions.sleep)) for _ in range(20))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert all(future.done() for future in futures)
    # A thread of the pool that outlives it may be woken up while it closes its pipe: a traceback at the very end.
    assert set(threading.enumerate()) == before


@pytest.mark.process
def test_a_killed_worker_is_an_error(functions):
    with open_engine(1) as engine, pytest.raises(TrainingError, match="worker process ended"):
        engine.submit(work(functions.die)).result(timeout=LIMIT)
