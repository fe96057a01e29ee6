"""Described worlds: what they draw, and what is refused before anything runs."""

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
    def act(text: str) -> str:
        path = tmp_path / "world.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return act


def drawn(named: str | None, *, count: int = 8, seed: int = 0, round: float = 2.0) -> World:
    told = read_world(named)
    groups = memberships(told, count, seed)
    return draw(told, groups, speeds=[1000.0] * count, round=round, rounds=10, seed=seed)


def test_without_a_world_everybody_is_there_all_the_time():
    world = drawn(None)
    assert all(one.always_available and one.link == Link() and one.group == USUAL for one in world.entities)
    assert world.bandwidth == inf


def test_a_file_says_all_that_can_befall_an_entity(write):
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
    one = world.entities[2]
    assert one.speed == 500.0
    assert one.link == Link(latency=0.25, up=1000, down=2000)
    assert one.joins == 3.0
    assert one.absences == (Absence(4.0, 6.0), Absence(8.0, 9.0), Absence(20.0))
    assert [absence.reason for absence in one.absences] == ["away", "away", "left"]
    assert one.cuts == (Interval(10.0, 12.0),)
    assert one.poison == "noise"


def test_a_seed_draws_the_same_world_and_another_another():
    assert drawn("churn") == drawn("churn")
    assert drawn("churn") != drawn("churn", seed=1)
    worlds = [drawn("stragglers", count=40, seed=seed) for seed in (0, 1)]
    members = [{index for index, one in enumerate(world.entities) if one.speed < 1000} for world in worlds]
    assert len(members[0]) == len(members[1]) == 10
    assert members[0] != members[1]


def test_who_comes_and_goes_is_there_as_often_as_told():
    world = drawn("churn", count=400, round=1.0)
    end = 20.0  # within the drawn time: four times ten rounds
    away = sum(
        max(0.0, min(absence.end, end) - absence.start)
        for one in world.entities
        for absence in one.absences
        if absence.start < end
    )
    assert away / (400 * end) == pytest.approx(1 / 4, abs=0.03)  # three rounds there, one away
    for one in world.entities:
        assert all(a.end < b.start for a, b in zip(one.absences, one.absences[1:], strict=False))


def test_a_group_joins_at_times_drawn_from_between():
    joins = sorted(one.joins for one in drawn("late-joiners", count=100, round=1.0).entities if one.joins)
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
        ("[groups.slow]\nspeed = 0.5", "names its entities or a share"),
        ("[groups.slow]\nshare = 0.5\nentities = [1]", "names its entities or a share"),
        ("[groups.usual]\nshare = 0.5", "usual is the group of all"),
        ('[groups.a]\nshare = 0.5\njoins = "soon"', "a time is a number of seconds"),
        ("[groups.a]\nshare = 0.5\nchurn = { every = 0, lasting = 1 }", "longer than nothing"),
        ('[groups.a]\nshare = 0.5\npoison = "arsenic"', "poison is refused"),
        ("[groups.a]\nshare = 0.5\nsamples = 0", "samples is refused"),
        ("groups = 3", "groups is refused"),
        ("[groups", "is not TOML"),
    ],
)
def test_an_impossible_file_is_one_sentence(text, words, write):
    with pytest.raises(SettingsError, match=words) as caught:
        read_world(write(text))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups.a]\nentities = [8]", "names entity 8, and there are 8, from 0"),
        ("[groups.a]\nentities = [1]\n[groups.b]\nentities = [1]", "in the groups 'a' and 'b'"),
        ("[groups.a]\nshare = 0.7\n[groups.b]\nshare = 0.7", "'b' is to have 6 of 8 entities, and 2 are left"),
        ("[groups.a]\nshare = 0.5\njoins = [5, 4]", "second is before the first"),
        ("[groups.a]\nshare = 0.5\njoins = [1, 5]\nleaves = 4", "leaves when it may not have joined yet"),
        ("[groups.a]\nshare = 0.5\nleaves = 0", "leaves when it may not have joined yet"),
        ("[groups.a]\nshare = 0.5\ncut = [[5, 4]]", "ends later than it begins"),
        ("[groups.a]\nshare = 0.5\naway = [[1, 4], [3, 5]]", "before the next"),
    ],
)
def test_a_world_that_does_not_fit_its_entities_is_one_sentence(text, words, write):
    with pytest.raises(SettingsError, match=words):
        drawn(write(text))


@pytest.mark.parametrize("named", ["straglers", "worlds/none.toml"])
def test_a_world_that_is_not_there_is_found_before_the_data_are_loaded(named):
    with pytest.raises(SettingsError, match=r"no world 'straglers'; choose from stragglers|cannot be read"):
        load_scenario(Settings(world=named, dataset="nowhere.npz"))


def test_a_world_is_refused_where_time_is_real():
    check_real(Settings())
    with pytest.raises(SettingsError, match="for `kuber simulate`"):
        check_real(Settings(world="churn"))


def test_an_entity_without_enough_data_is_refused(write, tmp_path):
    settings = Settings(
        dataset="digits",
        batch_size=16,
        cache_dir=tmp_path,
        world=write("[groups.poor]\nentities = [1]\nsamples = 0.001"),
    )
    with pytest.raises(SettingsError, match=r"entity 1 has \d samples, and needs at least 32"):
        load_scenario(settings)


def test_an_entity_may_have_less_of_its_data(write, tmp_path):
    told = {"dataset": "digits", "batch_size": 16, "cache_dir": tmp_path, "partition": "iid"}
    whole = load_scenario(Settings(**told))
    part = load_scenario(Settings(**told, world=write("[groups.poor]\nentities = [1]\nsamples = 0.5")))
    assert len(part.private[1]) == round(len(whole.private[1]) / 2)
    assert set(part.private[1].rows) < set(whole.private[1].rows)
    assert len(part.private[0]) == len(whole.private[0])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_possible_for_few_and_for_many(name):
    for count in (3, 1000):
        assert len(drawn(name, count=count).entities) == count
