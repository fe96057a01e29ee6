"""An entity killed between any two calls resumes as if it had not been: same records, deliveries and events."""

from itertools import count

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.average import average_on_common_set
from kuber.entity.work.pair import PairResult, choose_share
from kuber.entity.work.personal import PersonalResult, personalise
from kuber.entity.work.steps import distil_locally, evaluate_on_common_set
from kuber.errors import ServiceUnavailableError
from kuber.learning.weights import dump

from .scripted_entities import Killed, World, average_result, evaluation_result, training_result

CALLS = {"put", "get", "size", "register", "publish", "record", "attest", "report", "discover", "member"}
CALLS |= {"save", "save_round", "deploy", "append", "sync", "keep", "retain"}


class Process:
    """Counts the calls of one process, which is killed before or after one of them."""

    def __init__(self, last=None, *, before=False):
        self.calls = 0
        self.last = last
        self.before = before

    def watched(self, thing):
        return Watched(thing, self)


class Watched:
    """A port, a log or a folder whose calls are counted."""

    def __init__(self, thing, process):
        self._thing = thing
        self._process = process

    def __getattr__(self, name):
        inner = getattr(self._thing, name)
        if name not in CALLS:
            return inner

        def call(*args, **kwargs):
            process = self._process
            process.calls += 1
            if process.calls == process.last and process.before:
                raise Killed
            number = process.calls
            try:
                return inner(*args, **kwargs)
            finally:
                if number == process.last:
                    raise Killed

        return call


class Unreachable:
    """A registry that does not answer the calls from number `first` to `last`."""

    def __init__(self, registry, first, last):
        self._registry = registry
        self._calls = count(1)
        self._first, self._last = first, last

    def __getattr__(self, name):
        inner = getattr(self._registry, name)

        def call(*args, **kwargs):
            if self._first <= next(self._calls) <= self._last:
                raise ServiceUnavailableError("No answer.")
            return inner(*args, **kwargs)

        return call


def execute(work):
    """The work, scripted so that equal arguments have equal results."""
    if work.function is evaluate_on_common_set:
        return evaluation_result(20 + int(Digest.of(dump(work.arguments["weights"])).hex[:6], 16) % 60)
    if work.function is personalise:
        weights = {name: tensor + 1.0 for name, tensor in work.arguments["weights"].items()}
        return PersonalResult(weights=weights, before=0.5, after=0.6, forward=5, seconds=0.1)
    if work.function is choose_share:
        weights = work.arguments["private_weights"]
        share = int(Digest.of(dump(weights)).hex[:2], 16) / 256
        return PairResult(share=share, accuracy=0.5, own_accuracy=0.5, private_accuracy=0.5, forward=7, seconds=0.1)
    if work.function is average_on_common_set:
        models = work.arguments["models"]
        return average_result(models, 20 + int(Digest.of(dump(models[0])).hex[6:12], 16) % 60)
    return training_result(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)


def run(world, name, process, *, strategy, unreachable=None, private=False):
    """Run an entity in one process; with `private` it has a private network."""
    registry = world.registry if unreachable is None else Unreachable(world.registry, *unreachable)
    checkpoints = Checkpoints(world.folder / name)
    world.entity(
        name,
        rounds=3,
        strategy=strategy,
        registry=process.watched(registry),
        vault=process.watched(world.vault),
        storage={"checkpoints": process.watched(checkpoints), "event_log": process.watched(world.log)},
        execute=execute,
        private=private,
    ).run()


def outcome(world, name):
    """Records, deliveries, attestations and state of an entity, without ids."""
    own = world.id_of(name)
    records = list(reversed(world.registry.discover(Query(order="newest", limit=100)).items))
    places = {record.id: place for place, record in enumerate(records)}
    published = [
        (r.round, r.sequence, str(r.artifacts[WEIGHTS].digest), [places[parent] for parent in r.parents])
        for r in records
        if r.entity == own
    ]
    for record in records:
        assert Digest.of(world.vault.get(record.artifacts[WEIGHTS].digest)) == record.artifacts[WEIGHTS].digest
    deliveries = [
        (d.round, d.method, d.kept, d.accuracy_after, [places[teacher] for teacher in d.teachers])
        for d in world.registry.deliveries().items
        if d.student == own
    ]
    attested = [place for id, place in places.items() if own in attesters(world, id)]
    last = Checkpoints(world.folder / name).latest()
    weights = [str(Digest.of(dump(model))) for model in (last.weights, last.private or {})]
    return published, deliveries, attested, last.round, last.stage, weights, deployed(world, name)


def deployed(world, name):
    """Which model was deployed at the end of each round, and the digest of its file."""
    ends = world.events(name, "round-ended")
    names = [
        [end["deployed"][file] for file in ("checkpoint", "private", "personal") if file in end["deployed"]]
        for end in ends
    ]
    files = [[str(Digest.of((world.folder / name / file).read_bytes())) for file in found] for found in names]
    return [(end["deployed"], found) for end, found in zip(ends, files, strict=True)]


def attesters(world, id):
    return {attestation.entity for attestation in world.registry.attestations(id)}


def events(world, name):
    """Logged events without pulls and evaluations: models pulled before a kill are pulled again."""
    own = [event for event in read_events(world.folder / FILE_NAME) if event.entity == name]
    assert [event.seq for event in own] == list(range(len(own)))
    return [(event.round, event.kind) for event in own if event.kind not in ("pulled", "evaluated")]


def fresh(folder, strategy, **more):
    """A world in which a teacher has published."""
    folder.mkdir()
    world = World(folder)
    run(world, "teacher", Process(), strategy=strategy, **more)
    return world


STRIDES = pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])


@STRIDES
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("strategy", "private"),
    [("merge", False), ("exchange", False), ("vanilla", False), ("kuber", True)],
    ids=["merge", "exchange", "vanilla", "kuber with proxies"],
)
def test_killed_at_any_call(tmp_path, strategy, private, before, stride):
    more = {"strategy": strategy, "private": private}
    whole = fresh(tmp_path / "whole", **more)
    process = Process()
    run(whole, "student", process, **more)
    expected, logged = outcome(whole, "student"), events(whole, "student")
    assert expected[0], "the student publishes"
    assert process.calls > 40
    for last in range(1, process.calls + 1, stride):
        world = fresh(tmp_path / f"{last}", **more)
        with pytest.raises(Killed):
            run(world, "student", Process(last, before=before), **more)
        world.restart("student")
        run(world, "student", Process(), **more)
        assert outcome(world, "student") == expected, f"killed at call {last}"
        assert events(world, "student") == logged, f"killed at call {last}"


@STRIDES
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_call_while_the_hub_is_unreachable(tmp_path, before, stride):
    unreachable = 9, 10  # calls to the registry: one in each of two rounds
    whole = fresh(tmp_path / "whole", "merge")
    process = Process()
    run(whole, "student", process, strategy="merge", unreachable=unreachable)
    assert "queued" in [kind for _, kind in events(whole, "student")]
    for last in range(1, process.calls + 1, stride):
        world = fresh(tmp_path / f"{last}", "merge")
        with pytest.raises(Killed):
            run(world, "student", Process(last, before=before), strategy="merge", unreachable=unreachable)
        world.restart("student")
        run(world, "student", Process(), strategy="merge")
        published, deliveries, _, round, stage, *_ = outcome(world, "student")
        assert [sequence for _, sequence, _, _ in published] == list(range(1, len(published) + 1)), last
        assert [number for number, _, _, _ in published] == [1, 2, 3], last
        assert len({number for number, *_ in deliveries}) == len(deliveries), last
        assert (round, stage) == (3, "ended")
        events(world, "student")
