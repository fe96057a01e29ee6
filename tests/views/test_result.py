"""The result of a run, and its JSON."""

import json
from dataclasses import replace

import pytest

from kuber.domain.deployment import Choice
from kuber.views.deployed_models import deployed_phrase, deployed_sentence, describe_deployed
from kuber.views.result import RunResult, mean_by_round
from kuber.views.run import DeployedView

from .stored_results import RESULT, entity


def test_json_holds_the_documented_fields() -> None:
    found = json.loads(RESULT.to_json())
    documented = {"run_dir", "strategy", "seed", "entities", "mean_accuracy", "worst_accuracy", "wall_seconds"}
    assert documented | {"samples_trained", "samples_forward"} <= set(found)
    of_entity = {"entity", "final_accuracy", "published", "absorbed", "rejected", "bytes_up", "bytes_down"}
    for fields in found["entities"]:
        assert of_entity <= set(fields)


def test_json_round_trip() -> None:
    assert RunResult.from_json(RESULT.to_json()) == RESULT
    assert RunResult.from_json(RESULT.to_json().encode()) == RESULT


def test_fields_of_later_versions_are_ignored() -> None:
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
def test_anything_else_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^This is not the result of a run: [^\n]+\.$"):
        RunResult.from_json(text)


def test_the_worst_entity_has_the_lowest_final_accuracy() -> None:
    assert RESULT.worst.entity == "1"
    assert RESULT.start_accuracy == pytest.approx(0.2)


def test_own_accuracies_make_a_result_of_their_own() -> None:
    own = RESULT.of_own_mixtures
    assert own is not None
    assert (own.mean_accuracy, own.worst_accuracy) == (0.75, pytest.approx(0.7))
    assert [found.gain for found in own.entities] == pytest.approx([0.2, -0.1])


def test_results_of_earlier_versions_are_read_without_own_accuracies() -> None:
    found = json.loads(RESULT.to_json())
    del found["own_accuracy"]
    for fields in found["entities"]:
        del fields["own_accuracy"], fields["own_accuracies"]
    read = RunResult.from_json(json.dumps(found))
    assert (read.own_accuracy, read.worst_own_accuracy, read.of_own_mixtures) == (None, None, None)


def test_the_mean_of_a_round_is_over_entities_that_completed_it() -> None:
    assert mean_by_round([entity("0", 0.2, 0.4), entity("1", 0.4)]) == pytest.approx([0.3, 0.4])
    assert mean_by_round([]) == []


def test_the_deployed_models_are_counted_in_words() -> None:
    assert (deployed_phrase(RESULT.deployed), deployed_sentence(RESULT.deployed)) == (None, None)  # an older result
    choices = ("average", "best", None, "average")
    assert deployed_phrase(choices) == "1 of the best round, 2 of an average of rounds"
    assert deployed_sentence(choices) == "Deployed models: 1 of the best round, 2 of an average of rounds."


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("last", "that of round 3, the last; 84.2% on the common test set"),
        ("best", "that of round 3, the best; 84.2% on the common test set"),
        ("average", "an average of rounds up to 3; 84.2% on the common test set"),
    ],
)
def test_the_deployed_model_of_an_entity_is_described(model: Choice, expected: str) -> None:
    deployed = DeployedView(model=model, round=3, accuracy=0.842, checkpoint=None)
    assert describe_deployed(deployed) == expected
    pair = f"a private network, and with a share of 25% its proxy, {expected}"
    assert describe_deployed(replace(deployed, private="private-0003.safetensors", share=0.25)) == pair
