"""Contract of every registry: discovering knowledge, page by page."""

from dataclasses import replace

import pytest

from kuber.domain.digest import Digest
from kuber.domain.query import Query
from kuber.errors import RequestRejectedError


def test_discovers_the_best_first_and_older_first_among_equals(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 50), (70, 10), (20, 80), (90, 90), (60, 40))]
    best = [records[3], records[0], records[2], records[4], records[1]]
    assert discovered() == best


def test_discovers_the_newest_first(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 50), (70, 10), (90, 90))]
    assert discovered(order="newest") == records[::-1]
    assert discovered(order="oldest") == records


def test_filters(publish, registry, samples, entity, discovered):
    other = registry.register(samples.name("other")).id
    mine, better, worse = publish(entity, 50, 50), publish(other, 60, 60), publish(other, 10, 10)
    elsewhere = replace(samples.task, test_set=Digest.of(b"elsewhere", samples.token.encode()))
    moved = replace(samples.evaluation(55, 55), test_set=elsewhere.test_set)
    strange = publish(other, task=elsewhere, evaluation=moved)
    assert discovered() == [better, strange, mine, worse]
    assert discovered(test_set=samples.test_set) == [better, mine, worse]
    assert discovered(test_set=samples.test_set, exclude_entity=entity) == [better, worse]
    assert discovered(min_accuracy=0.5) == [better, strange, mine]
    assert discovered(min_accuracy=0.5, order="newest") == [strange, better, mine]
    assert discovered(min_accuracy=0.61) == []
    assert registry.discover(Query(task=samples.name("no task"))).items == ()


def test_keeps_the_origin(publish, entity):
    origin = Digest.of(b"initial checkpoint")
    assert publish(entity, origin=origin, round=0).origin == origin
    assert publish(entity).origin is None


def test_filters_by_initial_checkpoint(publish, registry, samples, entity, discovered):
    origin, other = Digest.of(b"initial checkpoint"), registry.register(samples.name("other")).id
    old, new = publish(entity, 50, 55, origin=origin), publish(entity, 50, 45, origin=origin)
    theirs = publish(other, 50, 50, origin=origin)
    publish(other, 80, 80, task=replace(samples.task, name=samples.name("another task")), origin=Digest.of(b"b"))
    publish(registry.register(samples.name("stranger")).id, 95, 95)
    assert discovered(origin=origin) == [old, theirs, new]
    assert discovered(origin=origin, latest=True, order="newest") == [theirs, new]
    assert discovered(origin=Digest.of(b"none")) == []


def test_distinguishes_initial_checkpoints_from_trained_records(publish, entity, discovered):
    initial, trained = publish(entity, round=0), publish(entity, round=1)
    assert discovered(initial=True) == [initial]
    assert discovered(initial=False) == [trained]


def test_the_latest_of_each_entity_on_each_task(publish, registry, samples, entity, discovered):
    other = registry.register(samples.name("other")).id
    publish(entity, 55, 50)
    theirs = [publish(other, 10 * number, 10) for number in (1, 2, 3)][-1]
    mine = publish(entity, 50, 50)
    publish(entity, 80, 80, task=replace(samples.task, name=samples.name("another task")))
    assert discovered(latest=True) == [mine, theirs]
    assert discovered(latest=True, order="newest") == [mine, theirs]
    assert discovered(latest=True, order="classes", classes=(0,)) == [mine, theirs]
    assert discovered(latest=True, exclude_entity=entity) == [theirs]


LATEST = ({}, {"order": "newest"}, {"order": "oldest"}, {"order": "classes", "classes": (0,)})


def test_a_collapsed_model_is_not_the_latest(publish, registry, samples, entity, discovered):
    sound = [publish(entity, 59, 60), publish(entity, 55, 50)][-1]  # worse, but it may be noise
    collapsed = publish(entity, 1, 1)
    for order in LATEST:
        assert discovered(latest=True, initial=False, **order) == [sound]
        assert discovered(latest=True, **order) == [collapsed], "whoever lists records sees the newest"
    assert discovered(order="newest")[0] == registry.knowledge(collapsed.id) == collapsed, "it is still found"
    still = publish(entity, 2, 1)
    assert discovered(latest=True, initial=False) == [sound], (
        "no better than the best, though better than the one before it"
    )
    registry.withdraw(sound.id)
    assert len(discovered(latest=True, initial=False)) == 1
    assert discovered(latest=True, initial=False)[0].evaluation.correct == (59, 60)
    recovered = publish(entity, 58, 58)
    assert discovered(latest=True, initial=False) == [recovered]
    for record in (recovered, *discovered(min_accuracy=0.5)):
        registry.withdraw(record.id)
    assert discovered(latest=True, initial=False) == [still], "nothing better is left"


def test_whoever_merges_receives_the_newest_whatever_its_accuracy(publish, entity, discovered):
    origin = Digest.of(b"start")
    publish(entity, 90, 90, origin=origin)
    newest = publish(entity, 10, 10, origin=origin)
    for order in LATEST:
        assert discovered(latest=True, initial=False, origin=origin, **order) == [newest]
    initial = publish(entity, 1, 1, origin=origin, round=0)
    assert discovered(latest=True, initial=False, origin=origin) == [], "it begins anew"
    for order in LATEST:
        assert discovered(latest=True, origin=origin, **order) == [initial]


def test_a_model_of_another_origin_or_test_set_is_compared_with_none(publish, samples, entity, discovered):
    before = publish(entity, 90, 90, origin=Digest.of(b"first"))
    anew = publish(entity, 10, 10, origin=Digest.of(b"second"))
    assert discovered(latest=True) == [anew]
    assert discovered(latest=True, origin=before.origin) == []
    own = replace(samples.evaluation(1, 1), test_set=Digest.of(b"own", samples.token.encode()))
    elsewhere = replace(samples.task, test_set=own.test_set)
    moved = publish(entity, task=elsewhere, evaluation=own)
    assert {record.id for record in discovered(latest=True)} == {anew.id, moved.id}


def test_an_initial_checkpoint_is_the_latest_after_a_collapse(publish, entity, discovered):
    sound = publish(entity, 90, 90)
    publish(entity, 10, 10)
    initial = publish(entity, 1, 1, round=0)
    assert discovered(latest=True) == [initial]
    assert discovered(latest=True, initial=False) == [sound]


def test_few_samples_make_no_record_unsound(publish, samples, entity, discovered):
    publish(entity, evaluation=samples.evaluation(3, 3, total=3))
    worse = publish(entity, evaluation=samples.evaluation(2, 1, total=3))
    assert discovered(latest=True) == [worse]


def test_ranks_by_the_classes_of_the_query(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 33), (70, 10), (20, 33), (90, 90), (60, 34))]
    assert discovered(order="classes", classes=(1,)) == [records[n] for n in (3, 4, 0, 2, 1)]
    assert discovered(order="classes", classes=(0, 1)) == [records[n] for n in (3, 4, 0, 1, 2)]
    assert discovered(order="classes", classes=(7,)) == records


def test_pages_by_classes_hold_each_record_once(publish, samples, entity, discovered):
    """Thirds are not whole millionths: both sides of a page boundary must round them alike."""
    counts = [(1, 0, 1), (1, 0, 2), (1, 0, 1), (2, 3, 1), (0, 3, 3)]
    task = replace(samples.task, labels=("a", "b", "c"))
    records = [publish(entity, task=task, evaluation=samples.evaluation(*correct, total=3)) for correct in counts]
    assert discovered(order="classes", classes=(0,)) == [records[n] for n in (3, 0, 1, 2, 4)]
    assert discovered(order="classes", classes=(0, 2)) == [records[n] for n in (4, 1, 3, 0, 2)]


def test_an_initial_checkpoint_does_not_hide_trained_knowledge(publish, entity, discovered):
    trained = publish(entity, 50, 50)
    initial = publish(entity, 10, 10, round=0)
    for order in ({}, {"order": "newest"}, {"order": "oldest"}, {"order": "classes", "classes": (0,)}):
        assert discovered(latest=True, initial=False, **order) == [trained]
        assert discovered(latest=True, **order) == [initial]


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "classes", "classes": (1, 1)},
        {"order": "classes"},
        {"classes": (1,)},
        {"order": "classes", "classes": (-1,)},
    ],
)
def test_classes_go_with_their_order(changes):
    with pytest.raises(ValueError, match="classes"):
        Query(**changes)


def test_pages_are_stable_while_others_publish(publish, registry, samples, entity):
    first, second, third = publish(entity, 90, 90), publish(entity, 50, 50), publish(entity, 50, 50)
    page = registry.discover(Query(task=samples.task.name, limit=2))
    assert page.items == (first, second)
    publish(entity, 95, 95)
    late = publish(entity, 50, 50)
    rest = registry.discover(Query(task=samples.task.name, limit=2, cursor=page.cursor))
    assert rest.items == (third, late)
    assert rest.cursor is None


@pytest.mark.parametrize("cursor", ["nonsense", "", "accuracy:", "accuracy:-1", "newest:99999999999999999999"])
def test_refuses_invalid_cursors(registry, cursor):
    with pytest.raises(RequestRejectedError):
        registry.discover(Query(cursor=cursor))
    with pytest.raises(RequestRejectedError):
        registry.members(cursor=cursor)
    with pytest.raises(RequestRejectedError):
        registry.deliveries(cursor=cursor)


def test_refuses_cursors_of_another_order(publish, registry, samples, entity):
    for _ in range(2):
        publish(entity)
    cursor = registry.discover(Query(task=samples.task.name, limit=1)).cursor
    with pytest.raises(RequestRejectedError):
        registry.discover(Query(task=samples.task.name, limit=1, cursor=cursor, order="newest"))


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_refuses_pages_of_impossible_size(registry, limit):
    with pytest.raises(RequestRejectedError):
        registry.members(limit=limit)
    with pytest.raises(RequestRejectedError):
        registry.deliveries(limit=limit)
