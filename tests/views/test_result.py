"""The outcome of a run, and its way through JSON."""

import json
from dataclasses import replace

import pytest

from kuber.views import RunResult, mean_by_round

from .stored_results import RESULT, entity


def test_json_holds_the_promised_fields() -> None:
    found = json.loads(RESULT.to_json())
    promised = {"run_dir", "strategy", "seed", "entities", "mean_accuracy", "worst_accuracy", "wall_seconds"}
    assert promised | {"samples_trained", "samples_forward"} <= set(found)
    for one in found["entities"]:
        assert {"entity", "final_accuracy", "published", "absorbed", "rejected", "bytes_up", "bytes_down"} <= set(one)


def test_json_goes_both_ways() -> None:
    assert RunResult.from_json(RESULT.to_json()) == RESULT
    assert RunResult.from_json(RESULT.to_json().encode()) == RESULT


def test_fields_of_later_versions_are_left_out() -> None:
    found = json.loads(RESULT.to_json()) | {"colour": "green"}
    found["entities"][0]["mood"] = "good"
    assert RunResult.from_json(json.dumps(found)) == RESULT


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"entities": [1]}', '{"entities": [{"entity": "0"}]}', b"\xff\xfe"),
        RESULT.to_json()[:-1],
        RESULT.to_json().replace("0.25", "NaN"),
        RESULT.to_json().replace("0.25", '"high"'),
        replace(RESULT, entities=()).to_json(),
    ],
)
def test_anything_else_is_no_result(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^This is not the result of a run: [^\n]+\.$"):
        RunResult.from_json(text)


def test_the_worst_entity_is_the_one_that_ended_lowest() -> None:
    assert RESULT.worst.entity == "1"
    assert RESULT.start_accuracy == pytest.approx(0.2)


def test_the_mean_of_a_round_is_over_those_that_did_it() -> None:
    assert mean_by_round([entity("0", 0.2, 0.4), entity("1", 0.4)]) == pytest.approx([0.3, 0.4])
    assert mean_by_round([]) == []
