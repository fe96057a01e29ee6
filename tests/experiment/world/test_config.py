"""Descriptions of worlds: what is drawn from them, and what is refused before anything runs."""

from math import inf
from pathlib import Path
from typing import Any

import pytest

from kuber.errors import SettingsError
from kuber.experiment.scenario import load_scenario
from kuber.experiment.world.conditions import USUAL, Absence, Interval, Link, World
from kuber.experiment.world.config import PRESETS, check_real, draw, memberships, read_world
from kuber.settings import Settings


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_world(text: str) -> str:
        path = tmp_path / "world.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_world


def drawn(name: str | None, *, count: int = 8, seed: int = 0, round: float = 2.0) -> World:
    world = read_world(name)
    groups = memberships(world, count, seed)
    return draw(world, groups, speeds=[1000.0] * count, round=round, rounds=10, seed=seed)


def test_without_a_world_every_entity_is_always_available():
    world = drawn(None)
    assert all(entity.always_available and entity.link == Link() for entity in world.entities)
    assert world.groups == (USUAL,)
    assert world.bandwidth == inf


def test_a_file_sets_every_condition_of_an_entity(write):
    world = drawn(
        write(
            """
            [hub]
            bandwidth = 1e6
            patience = "1 round"

            [groups.far]
            entities = [2]
            speed = 0.5
            latency = 0.25
            up = 1000
            down = 2000
            joins = "1.5 rounds"
            leaves = "20 s"
            away = [[4, "3 rounds"], ["4 rounds", 9]]
            cut = [["5 rounds", "6 rounds"]]
            poison = "noise"
            """
        )
    )
    assert (world.bandwidth, world.patience) == (1e6, 2.0)
    assert world.groups == (USUAL, "far")
    far = world.entities[2]
    assert far.speed == 500.0
    assert far.link == Link(latency=0.25, up=1000, down=2000)
    assert far.joins == 3.0
    assert far.absences == (Absence(4.0, 6.0), Absence(8.0, 9.0), Absence(20.0))
    assert [absence.reason for absence in far.absences] == ["away", "away", "left"]
    assert far.cuts == (Interval(10.0, 12.0),)
    assert far.poison == "noise"


def test_equal_seeds_draw_equal_worlds_and_others_others():
    assert drawn("churn") == drawn("churn")
    assert drawn("churn") != drawn("churn", seed=1)
    worlds = [drawn("stragglers", count=40, seed=seed) for seed in (0, 1)]
    members = [{index for index, entity in enumerate(world.entities) if entity.speed < 1000} for world in worlds]
    assert len(members[0]) == len(members[1]) == 10
    assert members[0] != members[1]


def test_churn_has_the_configured_share_of_absence():
    world = drawn("churn", count=400, round=1.0)
    end = 20.0  # within the drawn time: four times ten rounds
    away = sum(
        max(0.0, min(absence.end, end) - absence.start)
        for entity in world.entities
        for absence in entity.absences
        if absence.start < end
    )
    assert away / (400 * end) == pytest.approx(1 / 4, abs=0.03)  # three rounds present, one absent
    for entity in world.entities:
        assert all(a.end < b.start for a, b in zip(entity.absences, entity.absences[1:], strict=False))


def test_a_group_joins_at_times_drawn_from_an_interval():
    joins = sorted(e.joins for e in drawn("late-joiners", count=100, round=1.0).entities if e.joins)
    assert len(joins) == 50
    assert 2.0 <= joins[0] < 2.3
    assert 3.7 < joins[-1] <= 4.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups.slow]\nshare = 0.5\nsped = 0.1", "sped is refused: extra inputs"),
        ("[world]\nname = 1", "world is refused: extra inputs"),
        ("[groups.slow]\nshare = 0.5\nspeed = 0", "speed is refused: .* greater than 0"),
        ("[groups.slow]\nshare = 0.5\nspeed = -2", "speed is refused"),
        ("[groups.slow]\nshare = 0.5\nspeed = inf", "speed is refused"),
        ("[groups.slow]\nshare = 0.5\nlatency = -1", "latency"),
        ("[groups.slow]\nshare = 0.5\nup = 0", "up is refused"),
        ("[groups.slow]\nspeed = 0.5", "needs either entities or a share"),
        ("[groups.slow]\nshare = 0.5\nentities = [1]", "needs either entities or a share"),
        ("[groups.usual]\nshare = 0.5", "usual is the group of entities outside"),
        ('[groups.a]\nshare = 0.5\njoins = "soon"', "a time must be a number of seconds"),
        ("[groups.a]\nshare = 0.5\nchurn = { every = 0, lasting = 1 }", "must be greater than 0"),
        ('[groups.a]\nshare = 0.5\npoison = "arsenic"', "poison is refused"),
        ("[groups.a]\nshare = 0.5\nsamples = 0", "samples is refused"),
        ("groups = 3", "groups is refused"),
        ("[groups", "is not valid TOML"),
    ],
)
def test_an_invalid_file_is_refused_in_one_sentence(text, words, write):
    with pytest.raises(SettingsError, match=words) as caught:
        read_world(write(text))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups.a]\nentities = [8]", "lists entity 8, but the last entity is 7"),
        ("[groups.a]\nentities = [1]\n[groups.b]\nentities = [1]", "in the groups 'a' and 'b'"),
        ("[groups.a]\nshare = 0.7\n[groups.b]\nshare = 0.7", "'b' is 6 of 8 entities, but only 2 are left"),
        ("[groups.a]\nshare = 0.5\njoins = [5, 4]", "the end of `joins` is before its start"),
        ("[groups.a]\nshare = 0.5\njoins = [1, 5]\nleaves = 4", "may leave before it joins"),
        ("[groups.a]\nshare = 0.5\nleaves = 0", "may leave before it joins"),
        ("[groups.a]\nshare = 0.5\ncut = [[5, 4]]", "must end after it starts"),
        ("[groups.a]\nshare = 0.5\naway = [[1, 4], [3, 5]]", "not after the next starts"),
    ],
)
def test_a_world_that_does_not_fit_its_entities_is_refused(text, words, write):
    with pytest.raises(SettingsError, match=words):
        drawn(write(text))


@pytest.mark.parametrize("name", ["straglers", "worlds/none.toml"])
def test_an_unknown_world_is_refused_before_the_data_are_loaded(name):
    with pytest.raises(SettingsError, match=r"no world 'straglers'; choose from stragglers|cannot be read"):
        load_scenario(Settings(world=name, dataset="nowhere.npz"))


def test_a_world_is_refused_for_a_real_run():
    check_real(Settings())
    with pytest.raises(SettingsError, match="only with `kuber simulate`"):
        check_real(Settings(world="churn"))


def test_an_entity_without_enough_data_is_refused(write, tmp_path):
    settings = Settings(
        dataset="digits",
        batch_size=16,
        cache_dir=tmp_path,
        world=write("[groups.poor]\nentities = [1]\nsamples = 0.001"),
    )
    with pytest.raises(SettingsError, match=r"entity 1 has \d samples, but needs at least 32"):
        load_scenario(settings)


def test_an_entity_may_have_less_of_its_data(write, tmp_path):
    given = {"dataset": "digits", "batch_size": 16, "cache_dir": tmp_path, "partition": "iid"}
    whole = load_scenario(Settings(**given))
    part = load_scenario(Settings(**given, world=write("[groups.poor]\nentities = [1]\nsamples = 0.5")))
    assert len(part.private[1]) == round(len(whole.private[1]) / 2)
    assert set(part.private[1].rows) < set(whole.private[1].rows)
    assert len(part.private[0]) == len(whole.private[0])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_few_and_many_entities(name):
    for count in (3, 1000):
        assert len(drawn(name, count=count).entities) == count
