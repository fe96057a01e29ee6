"""Results of each group of a world."""

from dataclasses import replace

from kuber.views.groups import groups_of

from .stored_results import entity


def test_groups_come_in_the_order_of_their_first_entity_with_their_figures():
    found = groups_of(
        [
            replace(entity("0", 0.1, 0.5), group="usual", ends=(1.0, 2.0)),
            replace(entity("1", 0.2), group="slow", ends=(9.0,)),
            replace(entity("2", 0.1, 0.3), group="usual", ends=(1.5, 4.0)),
        ],
        rounds=2,
    )
    assert [(group.name, group.entities, group.done, group.rounds) for group in found] == [
        ("usual", 2, 2, 2.0),
        ("slow", 1, 0, 1.0),
    ]
    assert [(group.accuracy, group.worst, group.end) for group in found] == [(0.4, 0.3, 4.0), (0.2, 0.2, 9.0)]


def test_without_a_world_there_are_no_groups():
    assert groups_of([entity("0", 0.1, 0.5)], rounds=2) == []
