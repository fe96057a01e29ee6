"""An entity that dies between any two of its acts goes on as if it had not: same records, deliveries and events."""

from itertools import count

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.steps import distil_locally, evaluate_on_common_set
from kuber.errors import ServiceUnavailableError
from kuber.learning.weights import dump

from .scripted_entities import Killed, World, evaluation_result, training_result

ACTS = {"put", "get", "size", "register", "publish", "record", "attest", "report", "discover", "member"}
ACTS |= {"save", "save_round", "append", "sync", "keep", "retain"}


class Life:
    """Counts the acts of one life of a process, which ends before or after one of them."""

    def __init__(self, last=None, *, before=False):
        self.acts = 0
        self.last = last
        self.before = before

    def watched(self, thing):
        return Watched(thing, self)


class Watched:
    """A port, a log or a folder whose acts are counted."""

    def __init__(self, thing, life):
        self._thing = thing
        self._life = life

    def __getattr__(self, name):
        inner = getattr(self._thing, name)
        if name not in ACTS:
            return inner

        def act(*args, **kwargs):
            life = self._life
            life.acts += 1
            if life.acts == life.last and life.before:
                raise Killed
            number = life.acts
            try:
                return inner(*args, **kwargs)
            finally:
                if number == life.last:
                    raise Killed

        return act


class Away:
    """A registry that does not answer for a while, counted in calls."""

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
    return training_result(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)


def live(world, name, life, *, strategy, away=None):
    """One life of an entity, in its folder."""
    registry = world.registry if away is None else Away(world.registry, *away)
    checkpoints = Checkpoints(world.folder / name)
    world.entity(
        name,
        rounds=3,
        strategy=strategy,
        registry=life.watched(registry),
        vault=life.watched(world.vault),
        storage={"checkpoints": life.watched(checkpoints), "event_log": life.watched(world.log)},
        execute=execute,
    ).run()


def outcome(world, name):
    """What the world knows of an entity, without ids."""
    own = world.id_of(name)
    records = [one for one in reversed(world.registry.discover(Query(order="newest", limit=100)).items)]
    places = {one.id: place for place, one in enumerate(records)}
    published = [
        (one.round, one.sequence, str(one.artifacts[WEIGHTS].digest), [places[parent] for parent in one.parents])
        for one in records
        if one.entity == own
    ]
    for one in records:
        assert Digest.of(world.vault.get(one.artifacts[WEIGHTS].digest)) == one.artifacts[WEIGHTS].digest
    deliveries = [
        (one.round, one.method, one.kept, one.accuracy_after, [places[teacher] for teacher in one.teachers])
        for one in world.registry.deliveries().items
        if one.student == own
    ]
    attested = [
        place for id, place in places.items() if own in {one.entity for one in world.registry.attestations(id)}
    ]
    last = Checkpoints(world.folder / name).latest()
    return published, deliveries, attested, last.round, last.stage, str(Digest.of(dump(last.weights)))


def attesters(world, id):
    return {one.entity for one in world.registry.attestations(id)}


def events(world, name):
    """What the log tells, without pulls and evaluations: what was pulled before a death is looked at again."""
    own = [one for one in read_events(world.folder / FILE_NAME) if one.entity == name]
    assert [one.seq for one in own] == list(range(len(own)))
    return [(one.round, one.kind) for one in own if one.kind not in ("pulled", "evaluated")]


def fresh(folder, strategy):
    """A world in which a teacher has lived."""
    folder.mkdir()
    world = World(folder)
    live(world, "teacher", Life(), strategy=strategy)
    return world


STRIDES = pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])


@STRIDES
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("strategy", ["merge", "exchange", "vanilla"])
def test_death_at_any_act(tmp_path, strategy, before, stride):
    whole = fresh(tmp_path / "whole", strategy)
    life = Life()
    live(whole, "student", life, strategy=strategy)
    wanted, told = outcome(whole, "student"), events(whole, "student")
    assert wanted[0], "the student publishes"
    assert life.acts > 40
    for last in range(1, life.acts + 1, stride):
        world = fresh(tmp_path / f"{last}", strategy)
        with pytest.raises(Killed):
            live(world, "student", Life(last, before=before), strategy=strategy)
        world.restart("student")
        live(world, "student", Life(), strategy=strategy)
        assert outcome(world, "student") == wanted, f"dead at act {last}"
        assert events(world, "student") == told, f"dead at act {last}"


@STRIDES
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_death_at_any_act_while_the_hub_is_away(tmp_path, before, stride):
    away = 9, 10  # of the calls to the registry: one in each of two rounds
    whole = fresh(tmp_path / "whole", "merge")
    life = Life()
    live(whole, "student", life, strategy="merge", away=away)
    assert "queued" in [kind for _, kind in events(whole, "student")]
    for last in range(1, life.acts + 1, stride):
        world = fresh(tmp_path / f"{last}", "merge")
        with pytest.raises(Killed):
            live(world, "student", Life(last, before=before), strategy="merge", away=away)
        world.restart("student")
        live(world, "student", Life(), strategy="merge")
        published, deliveries, _, round, stage, _ = outcome(world, "student")
        assert [sequence for _, sequence, _, _ in published] == list(range(1, len(published) + 1)), last
        assert [number for number, _, _, _ in published] == [1, 2, 3], last
        assert len({number for number, *_ in deliveries}) == len(deliveries), last
        assert (round, stage) == (3, "ended")
        events(world, "student")
