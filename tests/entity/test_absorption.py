"""Absorption with scripted work: what is kept, half-kept and reverted, and what a kill repeats."""

from dataclasses import replace

import pytest
import torch

from kuber.domain.attester_record import AttesterRecord
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.policies import OuterStepPolicy
from kuber.domain.publisher_record import PublisherRecord
from kuber.domain.query import Query
from kuber.domain.strategies import STRATEGIES
from kuber.domain.verification import verdict
from kuber.entity.state.checkpoint import Checkpoints, round_path
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.steps import evaluate_on_common_set, train_locally
from kuber.errors import CorruptKnowledgeError
from kuber.learning.architectures import initial_weights
from kuber.learning.weights import load

from .scripted_entities import ARCHITECTURE, TASK, Killed, Script


def test_entities_with_other_initial_weights_start_from_the_first_one_published(world):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    world.live("second", [10, 55, 60, 70, 10], rounds=1, strategy="merge")
    initial = world.registry.discover(Query(initial=True)).items
    assert [knowledge.round for knowledge in initial] == [0]
    origin = initial[0].artifacts[WEIGHTS].digest
    first, second = reversed([record for record in world.published() if record.round == 1])
    assert first.origin == second.origin == origin
    assert first.parents == second.parents == (initial[0].id,)
    # "second" has another seed, but trained on from what it pulled: the same step from the same weights.
    assert first.artifacts == second.artifacts


def test_a_merge_is_the_average_and_is_kept_halfway_or_reverted(world):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    script = [10, 55, 60, 70, 10]  # what it adopts, own, the candidate, merged, the start: kept
    script += [52, 60, 71]  # own, merged (much worse than 70), halfway: kept
    script += [60, 64, 65]  # neither is nearly as good as 71: undone
    world.live("student", script, rounds=3, strategy="merge")
    absorbed = world.events("student", "absorbed")
    assert [(detail["method"], detail["before"], detail["after"], detail["kept"]) for detail in absorbed] == [
        ("merge", 0.55, 0.70, True),
        ("merge", 0.52, 0.71, True),
        ("merge", 0.60, 0.64, False),
    ]
    assert [detail["reason"] for detail in absorbed] == [
        f"The only relative (same architecture and initial checkpoint); found 60.0 %, weighed {share} beside our 1."
        f"{verdict}"
        for share, verdict in (
            ("1.00", ""),
            ("0.12", " Kept half-way: loss 10.0, tolerated 5.0 points."),
            ("0.04", " Undone: loss 7.0, tolerated 5.0 points."),
        )
    ]
    rounds = [load_round(world, "student", number) for number in (1, 2, 3)]
    origin = initial_weights(ARCHITECTURE, len("one"))
    for name, tensor in origin.items():
        # A phase moves every weight by 0.5; the other model stays where it was after one.
        torch.testing.assert_close(rounds[0][name], tensor + 0.5)
        stale = 2**-3  # one round old
        rate, momentum = OuterStepPolicy().scaled([1.0])
        start = rate * (0.5 + momentum * 0.5)  # of the second phase
        merged = (start + 0.5 + stale * 0.5) / (1 + stale)
        torch.testing.assert_close(rounds[1][name], tensor + (0.5 + merged) / 2)
        assert torch.equal(rounds[2][name], rounds[1][name])
    assert len(world.events("student", "pulled")) == 2, "the initial checkpoint, and the other model once"


def load_round(world, name, number):
    return load(round_path(world.folder / name, number).read_bytes(), ARCHITECTURE)


def test_why_a_less_accurate_average_was_kept_is_logged_and_recorded(world):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    # What it adopts, own, the candidate, merged, the start: kept, since that is lower; then within the tolerance.
    world.live("student", [10, 55, 60, 53, 10, 60, 52], rounds=2, strategy="merge")
    reasons = [detail["reason"] for detail in world.events("student", "absorbed")]
    assert [delivery.reason for delivery in world.registry.deliveries().items] == reasons
    assert [reason.partition(" Kept: ")[2] for reason in reasons] == [
        "no worse than the 10.0 % at the round's start.",
        "loss 1.0, tolerated 5.0 points.",
    ]


def test_the_reason_to_distil_a_teacher_is_logged_and_recorded_at_the_registry(world):
    world.live("one", [60], rounds=1)
    world.live("other", [55], rounds=1)
    world.live("student", [50, 45, 48], rounds=2)
    reason = "Our accuracy fell from 50.0 % to 45.0 %; the best of 2 that claim more, with 60.0 %."
    assert [detail["reason"] for detail in world.events("student", "absorbed")] == [reason]
    assert [delivery.reason for delivery in world.registry.deliveries().items] == [reason]


def test_without_reports_the_registry_receives_no_reasons(world):
    """Reasons reveal how good the own model is, class by class."""
    world.live("one", [60], rounds=1)
    world.live("student", [50, 45, 48], rounds=2, report=False)
    (absorbed,) = world.events("student", "absorbed")
    (delivery,) = world.registry.deliveries().items
    assert absorbed["reason"].startswith("Our accuracy fell from 50.0 % to 45.0 %")
    assert (delivery.accuracy_after, delivery.reason) == (0.48, None)


def test_a_reason_counts_chosen_records_that_were_refused(world):
    world.live("liar", [10, 90], rounds=1, strategy="merge")
    world.live("sound", [10, 55, 55], rounds=1, strategy="merge")
    world.live("student", [10, 50, 55, 55, 70, 10], rounds=1, strategy="merge")
    assert len(world.events("student", "rejected")) == 1
    (absorbed,) = world.events("student", "absorbed")
    assert absorbed["reason"] == (
        "1 of 2 relatives (same architecture and initial checkpoint); found 55.0 %, weighed 1.00 beside our 1; "
        "1 more was chosen but not used."
    )


class WithoutReasons:
    """A strategy without the optional method `explain`."""

    def __init__(self):
        self._inner = STRATEGIES["vanilla"]

    def __getattr__(self, name):
        if name == "explain":
            raise AttributeError(name)
        return getattr(self._inner, name)


def test_a_strategy_without_explain_absorbs_without_a_reason(world):
    world.live("one", [60], rounds=1)
    world.live("student", [50, 45, 48], rounds=2, strategy=WithoutReasons())
    (absorbed,) = world.events("student", "absorbed")
    assert (absorbed["after"], absorbed["reason"]) == (0.48, None)
    assert [delivery.reason for delivery in world.registry.deliveries().items] == [None]


def test_a_claim_that_does_not_hold_is_refused(world):
    world.live("liar", [10, 90], rounds=1, strategy="merge")
    world.live("student", [10, 55, 60], rounds=1, strategy="merge")
    (rejected,) = world.events("student", "rejected")
    assert rejected["reason"] == "It claims an accuracy of 0.900 and has 0.600."
    assert world.events("student", "absorbed") == []


def test_the_next_candidate_is_examined_in_place_of_one_that_is_refused(world):
    for name, claim in (("x", 90), ("xx", 80), ("sound", 60)):
        world.live(name, [claim], rounds=1, strategy="vanilla")
    world.live("student", [10, 20, 60, 30, 50, 60], rounds=2, strategy="exchange")
    assert [detail["reason"][-6:] for detail in world.events("student", "rejected")] == ["0.100.", "0.200."]
    first, second = world.events("student", "absorbed")
    assert first["publishers"] == second["publishers"] == [world.id_of("sound")]
    assert [event["candidates"] for event in world.events("student", "sought")] == [3, 1]
    records = Checkpoints(world.folder / "student").latest().publishers
    assert records == {
        world.id_of("x"): PublisherRecord(refused=1, until=4),
        world.id_of("xx"): PublisherRecord(refused=1, until=4),
        world.id_of("sound"): PublisherRecord(sound=1),
    }


def test_a_claim_that_a_good_attester_contradicts_is_examined_last(world):
    for name, claim in (("x", 95), ("xx", 90), ("xxx", 85), ("sound", 60)):
        world.live(name, [claim], rounds=1, strategy="vanilla")
    refused = [10, 20, 15]
    world.live("first", [*refused, 60, 30, 50], rounds=1, strategy="exchange")
    # "secondly" finds one of them false, as "first" did, and believes "first" about the others.
    world.live("secondly", [10, 60, 30, 50], rounds=1, strategy="exchange")
    assert len(world.events("secondly", "rejected")) == 1
    assert [detail["publishers"] for detail in world.events("secondly", "absorbed")] == [[world.id_of("sound")]]
    records = Checkpoints(world.folder / "secondly").latest().attesters
    assert records == {world.id_of("first"): AttesterRecord(agreed=1)}


def test_a_model_no_better_than_chance_is_not_merged(world):
    world.live("poor", [10, 33], rounds=1, strategy="merge")
    world.live("student", [10, 55, 33], rounds=1, strategy="merge")
    assert world.events("student", "absorbed") == []


def test_a_guided_local_phase_is_kept_or_reverted(world):
    world.live("teacher", [60], rounds=1, strategy="exchange")
    script = [60, 30, 50]  # the candidate, the model before the first phase and after it: kept
    script += [40, 45]  # after the phase, and halfway: both worse than 50, so the phase is undone
    recalls = []

    def watch(work):
        if work.function is train_locally:
            recalls.append(tuple(teacher.recalls for teacher in work.arguments.get("teachers", ())))

    world.live("student", script, rounds=2, strategy="exchange", watch=watch)
    assert recalls == [((0.6, 0.0, 0.0),)] * 2
    absorbed = world.events("student", "absorbed")
    assert [(detail["method"], detail["before"], detail["after"], detail["kept"]) for detail in absorbed] == [
        ("guide", 0.3, 0.5, True),
        ("guide", 0.5, 0.4, False),
    ]
    assert [detail["reason"] for detail in absorbed] == [
        "The only candidate, which claims 60.0 % on a; ours is not evaluated yet.",
        "The only candidate, which claims what we lack: 60.0 % on a (ours 50.0 %). "
        "Undone: loss 10.0, tolerated 0.0 points.",
    ]
    first, second = (load_round(world, "student", number) for number in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_teacher_with_invalid_logits_is_refused_and_the_phase_is_trained_without_it(world):
    world.live("broken", [60], rounds=1, strategy="exchange")
    trained = []

    def fail_with_teachers(work):
        if work.function is train_locally:
            trained.append(len(work.arguments.get("teachers", ())))
            if trained[-1]:
                raise CorruptKnowledgeError("Its logits are infinite.")

    world.live("student", [60, 30, 50], rounds=1, strategy="exchange", watch=fail_with_teachers)
    assert trained == [1, 0]
    assert [detail["reason"] for detail in world.events("student", "rejected")] == ["Its logits are infinite."]
    assert world.events("student", "absorbed") == []


@pytest.mark.parametrize("until", range(1, 11))
def test_a_kill_in_rounds_of_merges_loses_nothing(world, until):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    script = [10, 55, 60, 70, 52, 60, 71]
    world.live("student", script, rounds=2, strategy="merge", until=until)
    state = Checkpoints(world.folder / "student").latest()
    world.restart("student")
    # Models pulled before the kill are pulled and evaluated again: only the state survives.
    left = {
        ("ended", 0): script if state.origin is None else script[1:],
        ("trained", 1): script[2:],
        ("absorbed", 1): [*script[4:5], 60, *script[5:]],
        ("ended", 1): [*script[4:5], 60, *script[5:]],
        ("trained", 2): [60, *script[5:]],
        ("absorbed", 2): [],
        ("ended", 2): [],
    }[state.stage, state.round]
    world.live("student", left, rounds=2, strategy="merge")
    student = world.id_of("student")
    assert [record.round for record in world.published() if record.entity == student] == [2, 1]
    assert [delivery.accuracy_after for delivery in world.registry.deliveries().items] == [0.70, 0.71]
    first, second = (load_round(world, "student", number) for number in (1, 2))
    assert not all(torch.equal(first[name], second[name]) for name in first)
    seqs = [e.seq for e in read_events(world.folder / FILE_NAME) if e.entity == "student"]
    assert seqs == list(range(len(seqs)))


def test_a_kill_after_publishing_the_initial_checkpoint_publishes_it_once(world, monkeypatch):
    def killed(*arguments):
        raise Killed

    sound = world.registry.publish
    monkeypatch.setattr(world.registry, "publish", lambda draft, key: (sound(draft, key=key), killed()))
    with pytest.raises(Killed):
        world.entity("a", rounds=1, strategy="merge", execute=Script([10])).run()
    monkeypatch.undo()
    world.restart("a")
    world.live("a", [10, 50], rounds=1, strategy="merge")
    assert [record.round for record in world.published()] == [1, 0]
    logged = [detail["knowledge"] for detail in world.events("a", "published")]
    assert logged == [record.id for record in reversed(world.published())]


def test_an_initial_checkpoint_with_invalid_logits_is_refused_and_the_own_one_is_published(world):
    world.live("broken", [10, 60], rounds=1, strategy="merge")

    def fail(work):
        if work.function is evaluate_on_common_set and work.arguments["strict"]:
            raise CorruptKnowledgeError("Its logits are infinite.")

    world.live("student", [40, 40], rounds=1, strategy="merge", watch=fail)
    student = world.id_of("student")
    last, initial, *_ = [record for record in world.published() if record.entity == student]
    assert (initial.round, last.origin) == (0, initial.artifacts[WEIGHTS].digest)
    assert [detail["reason"] for detail in world.events("student", "rejected")] == ["Its logits are infinite."]


def test_knowledge_of_a_task_with_other_labels_is_no_candidate(world):
    """Same name and test set, but another number of classes: its recalls could not be compared with ours."""
    world.live("teacher", [60], rounds=1, strategy="exchange")
    discovery = world.discovery("student", task=replace(TASK, labels=("a", "b")))
    assert discovery.candidates(Query(latest=True)) == []
    assert len(world.discovery("student").candidates(Query(latest=True))) == 1


def test_the_query_is_valid_however_many_records_were_refused(world):
    discovery = world.discovery("student")
    discovery._journal.change(refused=tuple(f"id{number}" for number in range(2000)))
    assert discovery.candidates(Query(latest=True)) == []


def test_pulled_and_evaluated_records_are_attested(world):
    world.live("teacher", [60], rounds=1, strategy="exchange")
    (record,) = world.published()
    world.live("student", [60, 10, 50], rounds=1, strategy="exchange")
    (attestation,) = world.registry.attestations(record.id)
    assert attestation.entity == world.id_of("student")
    assert attestation.evaluation.accuracy == 0.6


def test_only_verified_records_are_candidates_with_verified_only(world):
    world.live("teacher", [60], rounds=1, strategy="exchange")
    (record,) = world.published()
    discovery = world.discovery("student", verified_only=True)
    query = Query(latest=True)
    assert discovery.candidates(query) == []
    world.registry.verify(record.id, verdict(record.evaluation, record.evaluation))
    assert [record.id for record in discovery.candidates(query)] == [record.id]
    assert [record.id for record in world.discovery("student").candidates(query)] == [record.id]


def test_each_round_is_reported_unless_reports_are_off(world, monkeypatch):
    reports = []
    monkeypatch.setattr(
        world.registry, "report", lambda id, *, round, evaluation: reports.append((id, round, evaluation.accuracy))
    )
    world.live("a", [50, 60], rounds=2, strategy="local")
    assert reports == [(world.id_of("a"), 1, 0.5), (world.id_of("a"), 2, 0.6)]
    world.live("b", [50], rounds=1, strategy="local", report=False)
    assert len(reports) == 2


def test_nothing_is_published_without_approval(world):
    world.live("teacher", [10, 60], rounds=1, strategy="merge")
    requests = []

    def refuse(evaluation, round):
        requests.append((evaluation.accuracy, round))
        return False

    script = [50, 60, 65, 10]  # the local phase, the teacher, the average, the start
    world.live("student", script, rounds=1, strategy="merge", approve=refuse)
    assert requests == [(0.5, 1)]
    assert not [record for record in world.published() if record.entity == world.id_of("student")]
    assert world.events("student", "absorbed")  # it still absorbs


def test_without_approval_and_without_others_it_learns_alone(world):
    script = [10, 10, 50]
    world.live("alone", script, rounds=1, strategy="merge", approve=lambda evaluation, round: False)
    assert world.published() == []
    assert "round-ended" in world.kinds("alone")
