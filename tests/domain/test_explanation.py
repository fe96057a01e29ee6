"""Explanations of choices: facts, in one sentence that fits into a delivery."""

from dataclasses import dataclass, replace

import pytest

from kuber.domain.delivery import MAX_REASON
from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import explanation, reason_for, why_kept
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import MergePolicy
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
    """The strategy's choice: evaluations are as claimed unless `found`, and records in `lost` were not absorbed."""
    records = strategy.choose(candidates, method, at)
    absorbed = [
        Candidate(knowledge=record, evaluation=(found or {}).get(record.id, record.evaluation))
        for record in records
        if record.id not in lost
    ]
    shares = strategy.shares(absorbed, at) if method is Method.MERGE else ()
    return Choice(
        method=method, situation=at, candidates=candidates, chosen=records, absorbed=absorbed, shares=shares
    )


def explain_guides(strategy: Strategy, candidates: list[Knowledge], at: Situation, **changes: object) -> str:
    return strategy.explain(chosen(strategy, Method.GUIDE, candidates, at, **changes))


WEAK = situation(evaluation(12, 20, 90, 80, 70))
OTHERS = [pet(f"other{number}", 1, 1, 80, 70, 60) for number in range(5)]


@pytest.mark.parametrize("strategy", [Exchange(), Kuber()])
def test_guides_are_explained_by_their_lead_on_our_weak_classes(strategy):
    candidates = [pet("cats", 61, 15, 0, 0, 0), pet("dogs", 0, 55, 0, 0, 0), *OTHERS]
    assert explain_guides(strategy, candidates, WEAK) == (
        "2 of 7 candidates, which claim what we lack: 61.0 % on cat (ours 12.0 %) and 55.0 % on dog (ours 20.0 %)."
    )


def test_few_classes_are_named_those_with_the_largest_lead_first():
    at = situation(evaluation(10, 10, 10, 10, 10))
    assert explain_guides(Exchange(), [pet("all", 20, 50, 30, 40, 25)], at) == (
        "The only candidate, which claims what we lack: "
        "50.0 % on dog (ours 10.0 %), 40.0 % on frog (ours 10.0 %), 30.0 % on bird (ours 10.0 %) and 2 more."
    )


def test_chosen_records_that_were_refused_are_counted_without_their_claims():
    candidates = [pet("cats", 61, 15, 0, 0, 0), pet("liar", 0, 99, 0, 0, 0)]
    assert explain_guides(Exchange(), candidates, WEAK, lost=("liar",)) == (
        "1 of 2 candidates, which claims what we lack: 61.0 % on cat (ours 12.0 %); 1 more was chosen but not used."
    )


def test_before_the_first_evaluation_nothing_is_compared():
    candidates = [pet("cats", 61, 0, 0, 0, 0), pet("dogs", 0, 55, 0, 0, 0)]
    assert explain_guides(Exchange(), candidates, situation(None)) == (
        "Both candidates, which claim 61.0 % on cat and 55.0 % on dog; ours is not evaluated yet."
    )


def test_a_verified_accuracy_is_not_called_a_claim():
    claim = evaluation(61, 0, 0, 0, 0)
    verified = pet("cats", 61, 0, 0, 0, 0, verification=verdict(claim, evaluation(60, 0, 0, 0, 0)))
    assert explain_guides(Exchange(), [verified], WEAK) == (
        "The only candidate, which is verified to have what we lack: 60.0 % on cat (ours 12.0 %)."
    )
    both = explain_guides(Exchange(), [verified, pet("dogs", 0, 55, 0, 0, 0)], WEAK)
    assert "which claim or are verified to have what we lack: 60.0 % on cat" in both


def test_without_a_common_test_set_the_evaluation_is_called_our_own():
    own = replace(PETS, test_set=None)
    assert explain_guides(Exchange(), [pet("cats", 61, 0, 0, 0, 0, task=own)], WEAK) == (
        "The only candidate, which is found by us to have what we lack: 61.0 % on cat (ours 12.0 %)."
    )


def test_figures_that_leave_out_small_classes_say_so():
    """The counts of classes with few private samples are withheld, on which alone this teacher is better."""
    own, theirs = (
        Evaluation(test_set=COMMON, correct=correct, total=(20, 5, 20, 20, 20))
        for correct in ((16, 0, 10, 10, 10), (0, 5, 0, 0, 0))
    )
    teacher = pet("a", *range(5), task=replace(PETS, test_set=None), evaluation=theirs)
    choice = chosen(Exchange(), Method.GUIDE, [teacher], situation(own))
    assert explanation(Exchange(), choice) == (
        "The only candidate, which is found by us to have 0.0 % accuracy (ours 57.5 %); "
        "classes with fewer than 10 samples of ours are left out."
    )


def test_classes_without_samples_are_not_named():
    at, teacher = situation(evaluation(10)), knowledge("a", 50)  # all samples are of the first class
    assert explain_guides(Exchange(), [teacher], at) == (
        "The only candidate, which claims what we lack: 50.0 % on a (ours 10.0 %)."
    )


MERGEABLE = {"architecture": ARCHITECTURE, "origin": ORIGIN}


def mergeable(id: str, samples: int = 100) -> Knowledge:
    return knowledge(id, 50, 50, sample_count=samples, **MERGEABLE)


def explain_merge(strategy: Strategy, candidates: list[Knowledge], at: Situation, **changes: object) -> str:
    return strategy.explain(chosen(strategy, Method.MERGE, candidates, at, **changes))


@pytest.mark.parametrize("strategy", [Merge(), Kuber()])
def test_a_merge_is_explained_by_evaluations_and_weights(strategy):
    at = situation(evaluation(70, 70), samples=100, ages={"b": 1}, **MERGEABLE)
    candidates = [mergeable("a"), mergeable("b"), knowledge("stranger", 90, 90)]
    found = {"a": evaluation(90, 80), "b": evaluation(70, 66)}
    assert explain_merge(strategy, candidates, at, found=found) == (
        "Both relatives (same architecture and initial checkpoint); "
        "found 85.0 % and 68.0 %, weighed 1.00 and 0.12 beside our 1."
    )


def test_merged_models_are_called_the_newest_only_if_they_are():
    at = situation(evaluation(50, 50), samples=100, **MERGEABLE)
    five = [mergeable(id, samples) for id, samples in zip("abcde", (100, 200, 300, 400, 500), strict=True)]
    fresh, three = replace(at, ages={"a": 4, "b": 3}), Merge(merging=MergePolicy(limit=3))
    assert explain_merge(three, five, fresh, found={id: evaluation(60, 60) for id in "abcde"}) == (
        "The 3 newest of 5 relatives (same architecture and initial checkpoint); "
        "found 60.0 %, 60.0 % and 60.0 %, weighed 5.00, 4.00 and 3.00 beside our 1."
    )
    assert explain_merge(three, five, at).startswith(
        "3 of 5 relatives (same architecture and initial checkpoint), the newest with the most samples; found"
    )
    older = replace(at, ages={"a": 1, "b": 1, "c": 1, "d": 1})
    assert explain_merge(three, five, older, lost=("c", "d")).startswith("The newest of 5 relatives (")
    assert explain_merge(three, five[:2], older, lost=("a",)).startswith("1 of 2 relatives (same"), "all were chosen"
    assert explain_merge(three, five, at, lost=("e",)) == (
        "2 of 5 relatives (same architecture and initial checkpoint); "
        "found 50.0 % and 50.0 %, weighed 0.00 and 0.00 beside our 1; 1 more was chosen but not used."
    ).replace("0.00", "under 0.01")


def test_accuracies_that_were_not_evaluated_are_claimed():
    at = situation(evaluation(50, 50), samples=100, **MERGEABLE)
    two = [mergeable("a"), mergeable("b")]
    choice = chosen(Merge(), Method.MERGE, two, at, found={"a": evaluation(60, 60), "b": evaluation(70, 70)})
    first, second = choice.absorbed
    for absorbed, verb in (
        ((replace(first, is_claim=True), second), "claimed or found 60.0 % and 70.0 %"),
        ((replace(first, is_claim=True), replace(second, is_claim=True)), "claimed 60.0 % and 70.0 %"),
    ):
        assert verb in Merge().explain(replace(choice, absorbed=absorbed))


def test_models_that_are_not_mergeable_are_not_called_relatives():
    @dataclass(frozen=True, slots=True)
    class Loose(Merge):
        def choose(self, candidates, method, situation):
            return candidates

    at = situation(evaluation(50, 50), samples=100, **MERGEABLE)
    candidates = [mergeable("a"), knowledge("stranger", 60, 60, sample_count=100)]
    sentence = explain_merge(Loose(), candidates, at, found={"a": evaluation(60, 60), "stranger": evaluation(60, 60)})
    assert sentence == "Both candidates; found 60.0 % and 60.0 %, weighed 1.00 and 1.00 beside our 1."


def test_many_teachers_are_counted():
    at = situation(evaluation(50, 50), **MERGEABLE)
    candidates = [mergeable(id) for id in "abcdefg"]
    absorbed = [Candidate(knowledge=record, evaluation=evaluation(60, 60)) for record in candidates]
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


def explain_distillation(candidates: list[Knowledge], own: int = 412, previous: int = 440, **changes: object) -> str:
    def per_mille(correct: int) -> Evaluation:
        return Evaluation(test_set=COMMON, correct=(correct, 0), total=(1000, 0))

    at = situation(per_mille(own), previous=per_mille(previous))
    return Vanilla().explain(chosen(Vanilla(), Method.DISTIL, candidates, at, **changes))


def test_a_distillation_is_explained_by_our_loss_and_the_best_teacher():
    candidates = [knowledge(f"k{right}", right) for right in (51, 50, 49, 48, 47)]
    assert explain_distillation(candidates) == (
        "Our accuracy fell from 44.0 % to 41.2 %; the best of 5 that claim more, with 51.0 %."
    )
    assert explain_distillation(candidates[-1:]) == (
        "Our accuracy fell from 44.0 % to 41.2 %; the only one that claims more, with 47.0 %."
    )
    assert (
        explain_distillation([*candidates, knowledge("less", 41)], previous=400)
        == "The best of 5 that claim more, with 51.0 %."
    )


def test_a_teacher_is_called_the_best_only_if_it_is():
    @dataclass(frozen=True, slots=True)
    class Modest(Vanilla):
        def choose(self, candidates, method, situation):
            return candidates[1:2]

    at = situation(evaluation(41), previous=evaluation(44))
    candidates = [knowledge("best", 51), knowledge("next", 50)]
    assert Modest().explain(chosen(Modest(), Method.DISTIL, candidates, at)) == (
        "Our accuracy fell from 44.0 % to 41.0 %; 1 of 2 candidates, which claims 50.0 % accuracy (ours 41.0 %)."
    )


def test_guides_without_a_lead_are_explained_by_their_accuracy():
    @dataclass(frozen=True, slots=True)
    class Loyal(Exchange):
        def choose(self, candidates, method, situation):
            return candidates[:1]

    assert explain_guides(Loyal(), OTHERS[:3], WEAK) == (
        "1 of 3 candidates, which claims 42.4 % accuracy (ours 54.4 %)."
    )


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("method", Method)
def test_an_explanation_fits_into_a_delivery_whatever_the_labels(name, method):
    labels = tuple(f"{number} {'very ' * 38}long" for number in range(100))
    task = replace(TASK, labels=labels)
    candidates = [pet(f"k{number}", *[50] * 100, task=task) for number in range(100)]
    at = situation(evaluation(*[0] * 100), previous=evaluation(*[1] * 100))
    absorbed = [Candidate(knowledge=record, evaluation=record.evaluation) for record in candidates[:50]]
    choice = Choice(
        method=method,
        situation=at,
        candidates=candidates,
        chosen=candidates,
        absorbed=absorbed,
        shares=[1e9] * 50,
    )
    sentence = explanation(STRATEGIES[name], choice)
    assert sentence is not None
    assert len(sentence) <= MAX_REASON
    assert sentence.isprintable()
    assert sentence.endswith("; 50 more were chosen but not used.")
    assert sentence[0].isupper() or sentence[0].isdigit()


@dataclass(frozen=True, slots=True)
class FixedSentence(Exchange):
    sentence: str = ""

    def explain(self, choice: Choice) -> str:
        return self.sentence


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("", None),
        ("\n\a", None),
        ("Two\nlines,\ta\u00a0bell\a.", "Two lines, a bell."),
        ("x" * 600, "x" * 499 + "…"),
        ("x" * 500, "x" * 500),
    ],
)
def test_a_sentence_of_a_custom_strategy_is_made_printable_and_cut(sentence, expected):
    choice = chosen(Exchange(), Method.GUIDE, [pet("cats", 61, 0, 0, 0, 0)], WEAK)
    assert explanation(FixedSentence(sentence=sentence), choice) == expected


def test_a_strategy_without_explain_gives_no_reason():
    choice = chosen(Exchange(), Method.GUIDE, [pet("cats", 61, 0, 0, 0, 0)], WEAK)
    assert explanation(object(), choice) is None


@pytest.mark.parametrize(
    ("strategy", "reference", "private", "sentence"),
    [
        (Merge(), 100, False, "Kept: loss 1.9, tolerated 5.0 points."),
        (Merge(), 90, False, "Kept: no worse than the 90.0 % at the round's start."),
        (Merge(), 90, True, "Kept: no worse than at the round's start."),
        (Merge(), 100, True, "Kept: within the tolerance of the strategy."),
        (Vanilla(), 100, False, "Kept: the strategy keeps it."),
    ],
)
def test_a_kept_loss_is_explained(strategy, reference, private, sentence):
    after = Evaluation(test_set=COMMON, correct=(981, 0), total=(1000, 0))
    assert why_kept(strategy, evaluation(reference), after, labels=("cat",), private=private) == sentence


def test_the_sentence_on_a_kept_loss_fits_into_a_delivery():
    choice = chosen(Exchange(), Method.GUIDE, [pet("cats", 61, 0, 0, 0, 0)], WEAK)
    reason = explanation(FixedSentence(sentence="x" * 600), choice, "Kept: it is.")
    assert reason == "x" * 486 + "… Kept: it is."
    assert len(reason) == MAX_REASON
