"""The outcome of a comparison: through JSON, and as the tables that every screen shows."""

import json
from dataclasses import replace

import pytest

from kuber.settings import Settings
from kuber.views import ComparisonResult, Difference, Point, Row, Spread, Summary

NONE = Spread(mean=0.0, sd=None)


def row(strategy: str, seed: int, *accuracies: float) -> Row:
    return Row(
        strategy=strategy,
        seed=seed,
        rounds=1,
        mean_accuracy=sum(accuracies) / len(accuracies),
        worst_accuracy=min(accuracies),
        personal_accuracy=0.5,
        absent_accuracy=None,
        samples_trained=100,
        samples_forward=30,
        compute=110.0,
        bytes_up=0,
        bytes_down=0,
        wall_seconds=1 / 3,
        deliveries=0,
        deliveries_hurt=0,
        accuracies=accuracies,
        curve=(Point(round=1, accuracy=0.3, compute=110.0, bytes=0),),
    )


def summary(strategy: str, mean: float, sd: float | None, **told: object) -> Summary:
    plain = Summary(
        strategy=strategy,
        seeds=2,
        mean_accuracy=Spread(mean=mean, sd=sd),
        worst_accuracy=Spread(mean=mean - 0.1, sd=sd),
        personal_accuracy=Spread(mean=0.5, sd=sd),
        absent_accuracy=None,
        compute=Spread(mean=100.0, sd=sd),
        bytes_up=NONE,
        bytes_down=NONE,
        wall_seconds=Spread(mean=1234.5, sd=sd),
        mean_difference=None,
        worst_difference=None,
        entities=4,
        entities_hurt=0,
        deliveries=0,
        deliveries_hurt=0,
    )
    return replace(plain, **told)


DONE = ComparisonResult(
    settings=Settings(num_rounds=8).model_dump(mode="json"),
    strategies=("local", "kuber", "fedmd"),
    seeds=(0, 7),
    rounds=8,
    rows=(row("local", 0, 0.3, 0.1 + 0.2), row("kuber", 0, 0.5, 0.4)),
    summary=(
        summary("local", 0.3, 0.012),
        summary(
            "kuber",
            0.45,
            0.02,
            compute=Spread(mean=127.0, sd=1.0),
            bytes_up=Spread(mean=2_000_000.4, sd=1.0),
            mean_difference=Difference(mean=0.15, low=0.05, high=0.25),
            deliveries=9,
            deliveries_hurt=2,
            entities_hurt=1,
        ),
        summary("fedmd", 0.2, 0.01, mean_difference=Difference(mean=-0.1, low=None, high=None)),
    ),
)


def test_json_holds_settings_with_the_plan_rows_and_summary() -> None:
    found = json.loads(DONE.to_json())
    assert list(found) == ["settings", "rows", "summary"]
    assert (found["settings"]["strategies"], found["settings"]["seeds"]) == (["local", "kuber", "fedmd"], [0, 7])
    assert found["settings"]["num_rounds"] == 8


def test_json_goes_both_ways() -> None:
    assert ComparisonResult.from_json(DONE.to_json()) == DONE
    assert ComparisonResult.from_json(DONE.to_json()).sections == DONE.sections


def test_fields_and_settings_of_later_versions_do_no_harm() -> None:
    found = json.loads(DONE.to_json()) | {"colour": "green"}
    found["rows"][0]["mood"] = "good"
    found["settings"]["colour"] = "blue"
    read = ComparisonResult.from_json(json.dumps(found))
    assert read == replace(DONE, settings={**DONE.settings, "colour": "blue"})


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"settings": {}, "rows": [], "summary": []}'),
        DONE.to_json()[:-1],
        DONE.to_json().replace("0.45", "Infinity", 1),
        DONE.to_json().replace('"num_rounds": 8', '"num_rounds": "many"'),
        replace(DONE, summary=DONE.summary[1:]).to_json(),  # nothing to measure the others against
    ],
)
def test_anything_else_is_no_comparison(text: str) -> None:
    with pytest.raises(ValueError, match=r"^This is not the result of a comparison: [^\n]+\.$"):
        ComparisonResult.from_json(text)


def test_methods_with_public_data_stand_in_tables_of_their_own() -> None:
    quality, cost, public_quality, public_cost = DONE.sections
    assert quality.title == "Held-out accuracy after 8 rounds, 2 seeds: %, ±sd"
    assert [cells[0] for cells in quality.rows] == [cells[0] for cells in cost.rows] == ["local", "kuber"]
    assert [cells[0] for cells in public_quality.rows] == [cells[0] for cells in public_cost.rows] == ["fedmd"]
    assert all(len(cells) == len(one.header) for one in DONE.sections for cells in one.rows)


def test_a_cell_says_no_more_than_is_known() -> None:
    quality, cost, public, _ = DONE.sections
    assert quality.rows[0] == ("local", "30.0±1.2", "20.0±1.2", "50.0±1.2", "-", "")
    assert quality.rows[1][-1] == "+15.0 (+5.0, +25.0)"
    assert public.rows[0][-1] == "-10.0"  # of one seed there is no interval
    assert cost.rows[0] == ("local", "1.00 x", "0 B", "0 B", "1,234", "", "")
    assert cost.rows[1] == ("kuber", "1.27 x", "2.0 MB", "0 B", "1,234", "1 of 4", "2 of 9")


def test_one_round_is_one_round() -> None:
    assert "after 1 round, 2 seeds" in replace(DONE, rounds=1).sections[0].title
