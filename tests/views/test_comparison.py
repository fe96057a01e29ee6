"""The result of a comparison: its JSON and its tables."""

import json
from dataclasses import replace

import pytest

from kuber.views.comparison import ComparisonResult

from .stored_results import COMPARISON


def test_json_holds_settings_with_the_plan_rows_and_summary() -> None:
    found = json.loads(COMPARISON.to_json())
    assert list(found) == ["settings", "rows", "summary"]
    assert (found["settings"]["strategies"], found["settings"]["seeds"]) == (["local", "kuber", "fedmd"], [0, 7])
    assert found["settings"]["num_rounds"] == 8


def test_json_round_trip() -> None:
    assert ComparisonResult.from_json(COMPARISON.to_json()) == COMPARISON
    assert ComparisonResult.from_json(COMPARISON.to_json()).sections == COMPARISON.sections


def test_fields_and_settings_of_later_versions_are_ignored() -> None:
    found = json.loads(COMPARISON.to_json()) | {"colour": "green"}
    found["rows"][0]["mood"] = "good"
    found["settings"]["colour"] = "blue"
    read = ComparisonResult.from_json(json.dumps(found))
    assert read == replace(COMPARISON, settings={**COMPARISON.settings, "colour": "blue"})


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"settings": {}, "rows": [], "summary": []}'),
        COMPARISON.to_json()[:-1],
        COMPARISON.to_json().replace("0.45", "Infinity", 1),
        COMPARISON.to_json().replace('"num_rounds": 8', '"num_rounds": "many"'),
        replace(COMPARISON, summary=COMPARISON.summary[1:]).to_json(),  # no baseline to compare the others with
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^This is not the result of a comparison: [^\n]+\.$"):
        ComparisonResult.from_json(text)


def test_methods_with_public_data_have_tables_of_their_own() -> None:
    quality, versus, models, cost, public_quality, public_versus, public_cost = COMPARISON.sections
    assert (models.title, models.header[0]) == ("Deployed models, of all entities and seeds", "method")
    assert quality.title == "Held-out accuracy after 8 rounds, 2 seeds: %, ±sd"
    assert [cells[0] for cells in quality.rows] == [cells[0] for cells in cost.rows] == ["local", "kuber"]
    assert [cells[0] for cells in versus.rows] == ["kuber"]
    assert [cells[0] for cells in public_versus.rows] == ["fedmd"]
    assert [cells[0] for cells in public_quality.rows] == [cells[0] for cells in public_cost.rows] == ["fedmd"]
    assert all(len(cells) == len(section.header) for section in COMPARISON.sections for cells in section.rows)


def test_unknown_figures_leave_cells_empty() -> None:
    quality, versus, _, cost, _, public, _ = COMPARISON.sections
    assert quality.rows[0] == ("local", "30.0±1.2", "20.0±1.2", "50.0±1.2", "-")
    assert versus.rows[0] == ("kuber", "+15.0 (+5.0, +25.0)", "+2.0 (-1.0, +5.0)", "1/2 of 4")
    assert public.rows[0] == ("fedmd", "-10.0", "-", "0/- of 4")  # a single seed has no interval
    assert cost.rows[0] == ("local", "1.00 x", "0 B", "0 B", "1,234", "")
    assert cost.rows[1] == ("kuber", "1.27 x", "2.0 MB", "0 B", "1,234", "2 of 9")


def test_results_of_earlier_versions_are_read_without_own_accuracies() -> None:
    found = json.loads(COMPARISON.to_json())
    for row in found["rows"]:
        row["personal_accuracy"] = 0.7  # of logits that were not adjusted: another figure
        del row["own_accuracy"], row["own_accuracies"]
        for point in row["curve"]:
            del point["own_accuracy"]
    for summary in found["summary"]:
        summary["personal_accuracy"] = {"mean": 0.7, "sd": None}
        del summary["own_accuracy"], summary["own_difference"], summary["entities_hurt_own"]
    read = ComparisonResult.from_json(json.dumps(found))
    assert [row.own_accuracy for row in read.rows] == [None, None]
    quality, versus, *_ = read.sections
    assert (quality.rows[0][3], versus.rows[0][2:]) == ("-", ("-", "1/- of 4"))


def test_the_deployed_models_are_counted_over_seeds() -> None:
    local, kuber = COMPARISON.rows
    rows = (local, replace(local, seed=7, deployed=("best", None)), replace(kuber, deployed=()))  # an older row
    found = replace(COMPARISON, rows=rows).sections[2]
    assert found.header == ("method", "last round", "best round", "average of rounds")
    assert found.rows == (("local", "1", "1", "1"), ("kuber", "-", "-", "-"))
    older = replace(COMPARISON, rows=tuple(replace(row, deployed=()) for row in rows))
    assert not [section for section in older.sections if section.title.startswith("Deployed")]


def test_one_round_is_one_round() -> None:
    assert "after 1 round, 2 seeds" in replace(COMPARISON, rounds=1).sections[0].title
