"""What strategies say of their choices: facts, in a sentence that a delivery can carry."""

from dataclasses import dataclass, replace

import pytest

from kuber.domain.delivery import MAX_REASON
from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import explanation, reason_for
from kuber.domain.knowledge import Knowledge
from kuber.domain.strategies import STRATEGIES, Exchange, Kuber, Merge, Vanilla
from kuber.domain.strategy import Candidate, Choice, Method, Situation, Strategy
from kuber.domain.task import Task
from kuber.domain.verification import verdict

from .samples import ARCHITECTURE, COMMON, ORIGIN, TASK, evaluation, knowledge, situation

PETS = replace(TASK, labels=("cat", "dog", "bird", "frog", "fish"))


def pet(id: str, *correct: int, task: Task = PETS, **changes: object) -> Knowledge:
    return knowledge(id, *correct, task=task, **changes)


def chosen(
    strategy: Strategy,
    method: Method,
    candidates: list[Knowledge],
    at: Situation,
    *,
    found: dict[str, Evaluation] | None = None,
    lost: tuple[str, ...] = (),
) -> Choice:
    """What the strategy chooses, found to be as claimed where nothing else is said; some of it is lost on the way."""
    those = strategy.choose(candidates, method, at)
    left = [one for one in those if one.id not in lost]
    absorbed = [Candidate(knowledge=one, evaluation=(found or {}).get(one.id, one.evaluation)) for one in left]
    shares = strategy.shares(absorbed, at) if method is Method.MERGE else ()
    return Choice(method=method, situation=at, candidates=candidates, chosen=those, absorbed=absorbed, shares=shares)


def guides(strategy: Strategy, candidates: list[Knowledge], at: Situation, **changes: object) -> str:
    return strategy.explain(chosen(strategy, Method.GUIDE, candidates, at, **changes))


LACKING = situation(evaluation(12, 20, 90, 80, 70))
OTHERS = [pet(f"other{number}", 1, 1, 80, 70, 60) for number in range(5)]


@pytest.mark.parametrize("strategy", [Exchange(), Kuber()])
def test_guides_are_told_by_what_they_know_and_we_do_not(strategy):
    candidates = [pet("cats", 61, 15, 0, 0, 0), pet("dogs", 0, 55, 0, 0, 0), *OTHERS]
    assert guides(strategy, candidates, LACKING) == (
        "2 of 7 candidates, which claim what we lack: 61.0 % on cat (ours 12.0 %) and 55.0 % on dog (ours 20.0 %)."
    )


def test_few_classes_are_named_the_farthest_first():
    at = situation(evaluation(10, 10, 10, 10, 10))
    assert guides(Exchange(), [pet("all", 20, 50, 30, 40, 25)], at) == (
        "The only candidate, which claims what we lack: "
        "50.0 % on dog (ours 10.0 %), 40.0 % on frog (ours 10.0 %), 30.0 % on bird (ours 10.0 %) and 2 more."
    )


def test_who_was_chosen_and_refused_is_counted_and_its_claims_are_not():
    candidates = [pet("cats", 61, 15, 0, 0, 0), pet("liar", 0, 99, 0, 0, 0)]
    assert guides(Exchange(), candidates, LACKING, lost=("liar",)) == (
        "1 of 2 candidates, which claims what we lack: 61.0 % on cat (ours 12.0 %); 1 more was chosen but not used."
    )


def test_before_our_first_evaluation_there_is_nothing_to_compare_with():
    candidates = [pet("cats", 61, 0, 0, 0, 0), pet("dogs", 0, 55, 0, 0, 0)]
    assert guides(Exchange(), candidates, situation(None)) == (
        "Both candidates, which claim 61.0 % on cat and 55.0 % on dog; ours is not evaluated yet."
    )


def test_what_the_hub_verified_is_no_claim():
    claim = evaluation(61, 0, 0, 0, 0)
    verified = pet("cats", 61, 0, 0, 0, 0, verification=verdict(claim, evaluation(60, 0, 0, 0, 0)))
    assert guides(Exchange(), [verified], LACKING) == (
        "The only candidate, which is verified to have what we lack: 60.0 % on cat (ours 12.0 %)."
    )
    both = guides(Exchange(), [verified, pet("dogs", 0, 55, 0, 0, 0)], LACKING)
    assert "which claim or are verified to have what we lack: 60.0 % on cat" in both


def test_without_a_common_test_set_it_is_our_own_finding():
    own = replace(PETS, test_set=None)
    assert guides(Exchange(), [pet("cats", 61, 0, 0, 0, 0, task=own)], LACKING) == (
        "The only candidate, which is found by us to have what we lack: 61.0 % on cat (ours 12.0 %)."
    )


def test_classes_without_samples_are_not_spoken_of():
    at, teacher = situation(evaluation(10)), knowledge("a", 50)  # all samples are of the first class
    assert guides(Exchange(), [teacher], at) == (
        "The only candidate, which claims what we lack: 50.0 % on a (ours 10.0 %)."
    )


RELATED = {"architecture": ARCHITECTURE, "origin": ORIGIN}


def relative(id: str, samples: int = 100) -> Knowledge:
    return knowledge(id, 50, 50, sample_count=samples, **RELATED)


def merge(strategy: Strategy, candidates: list[Knowledge], at: Situation, **changes: object) -> str:
    return strategy.explain(chosen(strategy, Method.MERGE, candidates, at, **changes))


@pytest.mark.parametrize("strategy", [Merge(), Kuber()])
def test_a_merge_is_told_by_what_was_found_and_weighed(strategy):
    at = situation(evaluation(70, 70), samples=100, ages={"b": 1}, **RELATED)
    candidates = [relative("a"), relative("b"), knowledge("stranger", 90, 90)]
    found = {"a": evaluation(90, 80), "b": evaluation(70, 66)}
    assert merge(strategy, candidates, at, found=found) == (
        "Both relatives (same architecture and initial checkpoint); "
        "found 85.0 % and 68.0 %, weighed 1.00 and 0.46 beside our 1."
    )


def test_who_is_merged_with_is_the_newest_only_where_that_is_so():
    at = situation(evaluation(50, 50), samples=100, **RELATED)
    five = [relative(id, samples) for id, samples in zip("abcde", (100, 200, 300, 400, 500), strict=True)]
    fresh = replace(at, ages={"a": 4, "b": 3})
    assert merge(Merge(), five, fresh, found={id: evaluation(60, 60) for id in "abcde"}) == (
        "The 3 newest of 5 relatives (same architecture and initial checkpoint); "
        "found 60.0 %, 60.0 % and 60.0 %, weighed 5.00, 4.00 and 3.00 beside our 1."
    )
    assert merge(Merge(), five, at).startswith(
        "3 of 5 relatives (same architecture and initial checkpoint), the newest with the most samples; found"
    )
    older = replace(at, ages={"a": 1, "b": 1, "c": 1, "d": 1})
    assert merge(Merge(), five, older, lost=("c", "d")).startswith("The newest of 5 relatives (")
    assert merge(Merge(), five[:2], older, lost=("a",)).startswith("1 of 2 relatives (same"), "all were chosen"
    assert merge(Merge(), five, at, lost=("e",)) == (
        "2 of 5 relatives (same architecture and initial checkpoint); "
        "found 50.0 % and 50.0 %, weighed 0.00 and 0.00 beside our 1; 1 more was chosen but not used."
    ).replace("0.00", "under 0.01")


def test_a_strategy_that_merges_with_others_than_relatives_does_not_call_them_so():
    @dataclass(frozen=True, slots=True)
    class Loose(Merge):
        def choose(self, candidates, method, situation):
            return candidates

    at = situation(evaluation(50, 50), samples=100, **RELATED)
    candidates = [relative("a"), knowledge("stranger", 60, 60, sample_count=100)]
    said = merge(Loose(), candidates, at, found={"a": evaluation(60, 60), "stranger": evaluation(60, 60)})
    assert said == "Both candidates; found 60.0 % and 60.0 %, weighed 1.00 and 1.00 beside our 1."


def test_many_teachers_are_counted():
    at = situation(evaluation(50, 50), **RELATED)
    candidates = [relative(id) for id in "abcdefg"]
    absorbed = [Candidate(knowledge=one, evaluation=evaluation(60, 60)) for one in candidates]
    choice = Choice(
        method=Method.MERGE,
        situation=at,
        candidates=candidates,
        chosen=candidates,
        absorbed=absorbed,
        shares=[0.5] * 7,
    )
    assert reason_for(choice).endswith(
        "found 60.0 %, 60.0 %, 60.0 % and 4 more, weighed 0.50, 0.50, 0.50 and 4 more beside our 1."
    )
    assert reason_for(replace(choice, shares=())).endswith("found 60.0 %, 60.0 %, 60.0 % and 4 more.")


def distil(candidates: list[Knowledge], own: int = 412, previous: int = 440, **changes: object) -> str:
    def of(right: int) -> Evaluation:
        return Evaluation(test_set=COMMON, correct=(right, 0), total=(1000, 0))

    at = situation(of(own), previous=of(previous))
    return Vanilla().explain(chosen(Vanilla(), Method.DISTIL, candidates, at, **changes))


def test_a_distillation_is_told_by_our_fall_and_by_who_is_best():
    candidates = [knowledge(f"k{right}", right) for right in (51, 50, 49, 48, 47)]
    assert distil(candidates) == (
        "Our accuracy fell from 44.0 % to 41.2 %; the best of 5 that claim more, with 51.0 %."
    )
    assert distil(candidates[-1:]) == (
        "Our accuracy fell from 44.0 % to 41.2 %; the only one that claims more, with 47.0 %."
    )
    assert distil([*candidates, knowledge("less", 41)], previous=400) == "The best of 5 that claim more, with 51.0 %."


def test_a_teacher_that_is_not_the_best_is_not_called_so():
    @dataclass(frozen=True, slots=True)
    class Modest(Vanilla):
        def choose(self, candidates, method, situation):
            return candidates[1:2]

    at = situation(evaluation(41), previous=evaluation(44))
    candidates = [knowledge("best", 51), knowledge("next", 50)]
    assert Modest().explain(chosen(Modest(), Method.DISTIL, candidates, at)) == (
        "Our accuracy fell from 44.0 % to 41.0 %; 1 of 2 candidates, which claims 50.0 % (ours 41.0 %)."
    )


def test_guides_that_know_nothing_that_we_lack_are_told_by_their_accuracy():
    @dataclass(frozen=True, slots=True)
    class Loyal(Exchange):
        def choose(self, candidates, method, situation):
            return candidates[:1]

    assert guides(Loyal(), OTHERS[:3], LACKING) == "1 of 3 candidates, which claims 42.4 % (ours 54.4 %)."


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("method", Method)
def test_whatever_the_labels_a_delivery_can_carry_it(name, method):
    labels = tuple(f"{number}\n{'very ' * 39}long" for number in range(100))
    task = replace(TASK, labels=labels)
    candidates = [pet(f"k{number}", *[50] * 100, task=task) for number in range(100)]
    at = situation(evaluation(*[0] * 100), previous=evaluation(*[1] * 100))
    absorbed = [Candidate(knowledge=one, evaluation=one.evaluation) for one in candidates[:50]]
    choice = Choice(
        method=method,
        situation=at,
        candidates=candidates,
        chosen=candidates,
        absorbed=absorbed,
        shares=[1e9] * 50,
    )
    said = explanation(STRATEGIES[name], choice)
    assert said is not None
    assert len(said) <= MAX_REASON
    assert said.isprintable()
    assert said.endswith("; 50 more were chosen but not used.")
    assert said[0].isupper() or said[0].isdigit()


@dataclass(frozen=True, slots=True)
class Speaker(Exchange):
    says: str = ""

    def explain(self, choice: Choice) -> str:
        return self.says


@pytest.mark.parametrize(
    ("says", "carried"),
    [
        ("", None),
        ("\n\a", None),
        ("Two\nlines,\ta\u00a0bell\a.", "Two lines, a bell."),
        ("x" * 600, "x" * 499 + "…"),
        ("x" * 500, "x" * 500),
    ],
)
def test_what_a_strategy_of_ones_own_says_is_made_fit_to_be_sent(says, carried):
    choice = chosen(Exchange(), Method.GUIDE, [pet("cats", 61, 0, 0, 0, 0)], LACKING)
    assert explanation(Speaker(says=says), choice) == carried


def test_a_strategy_that_cannot_explain_gives_no_reason():
    choice = chosen(Exchange(), Method.GUIDE, [pet("cats", 61, 0, 0, 0, 0)], LACKING)
    assert explanation(object(), choice) is None
