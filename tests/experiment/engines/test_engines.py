"""Both engines, with real worker processes."""

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
from kuber.experiment.engines import Engine, open_engine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.settings import Settings

# Workers import what they are to do by name, so it is a module of its own.
DEEDS = """
import os, signal, time
from dataclasses import dataclass
import torch
from kuber.errors import CorruptKnowledgeError

@dataclass(frozen=True)
class Told:
    where: int
    weights: dict
    threads: int

def tell(weights, *, progress):
    progress(1.0)
    return Told(os.getpid(), {name: tensor + 1 for name, tensor in weights.items()}, torch.get_num_threads())

def refuse(*, progress):
    raise CorruptKnowledgeError("It says infinity.")

def dawdle(*, progress):
    time.sleep(600)

def look(learner, *, progress):
    return id(learner), len(learner.private), learner.private.labels.tolist()

def die(*, progress):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def deeds(tmp_path, monkeypatch):
    (tmp_path / "kuber_test_deeds.py").write_text(DEEDS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("kuber_test_deeds")
    del sys.modules["kuber_test_deeds"]


def work(function, **arguments) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


@pytest.fixture(params=[0, 2], ids=["inline", "processes"])
def engine(request, deeds):
    with open_engine(request.param) as found:
        yield found


@pytest.fixture
def learners(tmp_path):
    """Of two entities, in one file of samples."""
    scenario = load_scenario(
        Settings(dataset="digits", num_entities=2, partition="iid", common_test_size=20, cache_dir=tmp_path / "cache")
    )
    return make_learners(scenario, simulated_runtime(scenario))


WEIGHTS = {
    "w": torch.tensor([[0.5, -0.0], [float("nan"), 1e-40]]),
    "steps": torch.tensor(7),
    "none": torch.zeros(0, 3),
}


def test_tensors_go_and_come_back_as_they_are(engine: Engine, deeds):
    told = engine.submit(work(deeds.tell, weights=WEIGHTS)).result()
    for name, tensor in WEIGHTS.items():
        back = told.weights[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.numpy().tobytes() == (tensor + 1).numpy().tobytes()
        back += 1  # they can be written to


def test_a_learner_is_read_once_by_a_worker(learners, deeds):
    first, second = learners
    with open_engine(1) as engine:
        seen = [engine.submit(work(deeds.look, learner=one)).result() for one in (first, second, first, first)]
    assert [labels for _, _, labels in seen] == [one.private.labels.tolist() for one in (first, second, first, first)]
    assert len({place for place, _, _ in seen}) == 2


def test_learners_of_one_after_the_other_are_told_apart(learners, deeds):
    with open_engine(1) as engine:
        for number in range(20):  # what is gone leaves its id to what comes
            one = replace(learners[0], private=learners[0].private.take([number % 4]))
            _, count, labels = engine.submit(work(deeds.look, learner=one)).result()
            assert (count, labels) == (1, one.private.labels.tolist())
            del one


def test_work_is_done_on_one_thread(engine: Engine, deeds):
    before = torch.get_num_threads()
    assert engine.submit(work(deeds.tell, weights={})).result().threads == 1
    assert torch.get_num_threads() == before


def test_an_error_arrives_with_its_class_and_its_sentence(engine: Engine, deeds):
    with pytest.raises(CorruptKnowledgeError, match="It says infinity"):
        engine.submit(work(deeds.refuse)).result()
    assert engine.submit(work(deeds.tell, weights={})).result()


def test_workers_are_processes_that_end_with_the_engine(deeds):
    with open_engine(2) as engine:
        futures = [engine.submit(work(deeds.tell, weights={})) for _ in range(20)]
        places = {future.result().where for future in futures}
        assert os.getpid() not in places
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in places if psutil.pid_exists(pid)], timeout=10)
    assert not alive


def test_an_engine_that_is_left_at_work_ends_whole(deeds):
    before = set(threading.enumerate())
    futures = []

    def leave() -> None:
        with open_engine(2) as engine:
            engine.submit(work(deeds.tell, weights={})).result()
            futures.extend(engine.submit(work(deeds.dawdle)) for _ in range(20))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert all(future.done() for future in futures)
    # A thread of the pool that outlives it may be woken up while it closes its pipe: a traceback at the very end.
    assert set(threading.enumerate()) == before


def test_a_worker_that_is_killed_is_told_of(deeds):
    with open_engine(1) as engine, pytest.raises(TrainingError, match="worker process ended"):
        engine.submit(work(deeds.die)).result(timeout=30)
