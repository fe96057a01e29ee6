"""Explain in one sentence why teachers were chosen, and in another why a loss was kept."""

from collections.abc import Sequence
from dataclasses import replace

from kuber.domain.acceptance import AcceptancePolicy, ClassFall, objective_of, tolerated_loss
from kuber.domain.delivery import MAX_REASON
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import SMALLEST_CELL, disclosed
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import is_mergeable
from kuber.domain.ranking import more_accurate
from kuber.domain.strategy import Choice, Method, Strategy

SHOWN = 3  # teachers or classes named
LABEL = 30  # characters shown of a label
KEPT = "Kept: "  # begins the sentence on why a loss was kept, which is the last of a reason
HALVED = "Kept half-way: "  # and that on why only the midpoint was kept
UNDONE = "Undone: "


def explanation(strategy: Strategy, choice: Choice, kept: str = "") -> str | None:
    """Return the strategy's explanation of its choice, and the sentence `kept`; None when there is neither.

    It is cut to what a delivery can carry. Without a common test set it is made of the counts that may leave the
    entity, and left out when these are not those of each class.
    """
    explain = getattr(strategy, "explain", None)  # optional: older strategies lack it
    open_choice = _disclosed(choice)
    if explain is None or open_choice is None:
        return kept or None
    text = "".join(character for character in " ".join(explain(open_choice).split()) if character.isprintable())
    if not kept:
        return _cut(text, MAX_REASON) or None
    return f"{_cut(text, MAX_REASON - len(kept) - 1)} {kept}".lstrip()


def why_kept(
    strategy: Strategy,
    reference: Evaluation,
    after: Evaluation,
    *,
    labels: Sequence[str],
    private: bool,
    class_counts: Sequence[int] | None = None,
) -> str:
    """Return why a result that is less accurate than the model before it was kept.

    `reference` is the evaluation that the strategy compared it with: in a merge, that of the model at the start of
    the round. `private` leaves out the numbers.
    """
    policy = getattr(strategy, "acceptance", None)
    if not isinstance(policy, AcceptancePolicy):
        return f"{KEPT}the strategy keeps it."
    if reference.accuracy <= after.accuracy:
        return f"{KEPT}no worse than {'' if private else f'the {_percent(reference.accuracy)} '}at the round's start."
    if private:
        return f"{KEPT}within the tolerance of the strategy."
    deepest = _deepest_fall(reference, after)
    beside = "" if deepest is None else f"; {_fall(deepest, labels)}"
    return f"{KEPT}{_loss(reference, after, policy, class_counts)}{beside}."


def why_not_kept(
    strategy: Strategy,
    reference: Evaluation,
    after: Evaluation,
    *,
    fallen: Sequence[ClassFall],
    halved: bool,
    labels: Sequence[str],
    private: bool,
    class_counts: Sequence[int] | None = None,
) -> str:
    """Return why a result was undone or, with `halved`, replaced by the midpoint: which class fell, by how much.

    `private` leaves out the numbers, and the names of classes with few samples.
    """
    begin = HALVED if halved else UNDONE
    policy = getattr(strategy, "acceptance", None)
    if fallen:
        return f"{begin}{_falls(reference, fallen, labels, private=private)}."
    if private or not isinstance(policy, AcceptancePolicy):
        return f"{begin}the strategy does not keep it."
    return f"{begin}{_loss(reference, after, policy, class_counts)}."


def made_up_for(reference: Evaluation, fallen: Sequence[ClassFall], *, labels: Sequence[str], private: bool) -> str:
    """Return why a result that made a class fall was kept all the same."""
    return f"{KEPT}{_falls(reference, fallen, labels, private=private)}; other classes make up for it."


def _falls(reference: Evaluation, fallen: Sequence[ClassFall], labels: Sequence[str], *, private: bool) -> str:
    fall = fallen[0]
    more = f", and {len(fallen) - 1} more" if len(fallen) > 1 else ""
    if not private:
        return f"{_fall(fall, labels)}{more}"
    shown = reference.total[fall.label] >= SMALLEST_CELL
    return f"{_cut(labels[fall.label], LABEL) if shown else 'a class'} fell{more}"


def _loss(
    reference: Evaluation, after: Evaluation, policy: AcceptancePolicy, class_counts: Sequence[int] | None
) -> str:
    lost = objective_of(reference, policy, class_counts) - objective_of(after, policy, class_counts)
    tolerated = tolerated_loss(reference, policy, after=after, class_counts=class_counts)
    return f"loss {100 * lost:.1f}, tolerated {100 * tolerated:.1f} points"


def _deepest_fall(reference: Evaluation, after: Evaluation) -> ClassFall | None:
    """Return the class that fell most, if it fell by more than the accuracy did."""
    falls = [
        ClassFall(label=label, before=then, after=now)
        for label, (then, now) in enumerate(zip(reference.recalls, after.recalls, strict=True))
        if then is not None and now is not None and then - now > reference.accuracy - after.accuracy
    ]
    return max(falls, key=lambda fall: fall.before - fall.after, default=None)


def _fall(fall: ClassFall, labels: Sequence[str]) -> str:
    points = 100 * (fall.before - fall.after)
    named = _cut(labels[fall.label], LABEL)
    return f"{named} fell by {points:.1f} points, from {_percent(fall.before)} to {_percent(fall.after)}"


def reason_for(choice: Choice) -> str:
    """Return facts about the absorbed knowledge, at least one record, that hold whatever strategy chose it.

    They compare its recalls, accuracies or weights with the own model's and those of the candidates.
    """
    match choice.method:
        case Method.GUIDE:
            sentence = _complement(choice) or _accuracies(choice)
        case Method.DISTIL:
            sentence = _decline(choice) + (_best(choice) or _accuracies(choice))
        case Method.MERGE:
            sentence = _mergeable(choice)
    if _leaves_out_classes(choice):
        sentence += f"; classes with fewer than {SMALLEST_CELL} samples of ours are left out"
    unused = len({knowledge.id for knowledge in choice.chosen}) - len(choice.absorbed)
    if unused:
        sentence += f"; {unused} more {'was' if unused == 1 else 'were'} chosen but not used"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _disclosed(choice: Choice) -> Choice | None:
    """Return the choice with the counts that may leave the entity; None when they are not those of each class."""
    task = choice.absorbed[0].knowledge.task
    if task.test_set is not None:
        return choice
    known = [knowledge.trusted for knowledge in (*choice.candidates, *choice.chosen)]
    known += [candidate.evaluation for candidate in choice.absorbed]
    situation = choice.situation
    own = [found for found in (situation.own, situation.previous, situation.published) if found is not None]
    if any(disclosed(found, task)[1] in ("pooled", "withheld") for found in (*known, *own)):
        return None

    def open_knowledge(knowledge: Knowledge) -> Knowledge:
        return replace(knowledge, evaluation=disclosed(knowledge.trusted, task)[0], verification=None)

    def open_evaluation(found: Evaluation | None) -> Evaluation | None:
        return found and disclosed(found, task)[0]

    return replace(
        choice,
        situation=replace(
            situation,
            own=open_evaluation(situation.own),
            previous=open_evaluation(situation.previous),
            published=open_evaluation(situation.published),
        ),
        candidates=[open_knowledge(knowledge) for knowledge in choice.candidates],
        chosen=[open_knowledge(knowledge) for knowledge in choice.chosen],
        absorbed=[
            replace(candidate, evaluation=disclosed(candidate.evaluation, task)[0]) for candidate in choice.absorbed
        ],
    )


def _complement(choice: Choice) -> str | None:
    """Name the classes on which the teachers are ahead of us, farthest first; None when there are none."""
    known, own = _known(choice), choice.situation.own
    ours = own.recalls if own else (None,) * len(known[0].task.labels)
    theirs = [max(recalls) for recalls in zip(*(_recalls(knowledge.trusted) for knowledge in known), strict=True)]
    leads = [(best - (have or 0.0), label) for label, (best, have) in enumerate(zip(theirs, ours, strict=True))]
    ahead = sorted((-lead, label) for lead, label in leads if lead > 0)
    if not ahead:
        return None
    texts = []
    for _, label in ahead:
        have = ours[label]
        beside = "" if have is None else f" (ours {_percent(have)})"
        texts.append(f"{_percent(theirs[label])} on {_cut(known[0].task.labels[label], LABEL)}{beside}")
    lead = f"{_count(len(known), len(choice.candidates), 'candidate')}, which {_claim(known)}"
    if own is None:
        return f"{lead} {_listed(texts)}; ours is not evaluated yet"
    return f"{lead} what we lack: {_listed(texts)}"


def _accuracies(choice: Choice) -> str:
    known, own = _known(choice), choice.situation.own
    beside = "" if own is None else f" (ours {_percent(own.accuracy)})"
    texts = [_percent(knowledge.trusted.accuracy) for knowledge in known]
    lead = _count(len(known), len(choice.candidates), "candidate")
    return f"{lead}, which {_claim(known)} {_listed(texts)} accuracy{beside}"


def _decline(choice: Choice) -> str:
    own, previous = choice.situation.own, choice.situation.previous
    if own is None or previous is None or own.accuracy >= previous.accuracy:
        return ""
    return f"our accuracy fell from {_percent(previous.accuracy)} to {_percent(own.accuracy)}; "


def _best(choice: Choice) -> str | None:
    """Say that the only teacher is the best of the more accurate candidates; None if it is not."""
    known, own = _known(choice), choice.situation.own
    higher = more_accurate(choice.candidates, own) if own else []
    if len(known) > 1 or not higher or known[0].trusted.accuracy < higher[0].trusted.accuracy:
        return None
    among = "the only one that" if len(higher) == 1 else f"the best of {len(higher)} that"
    return f"{among} {_claim(higher)} more, with {_percent(known[0].trusted.accuracy)}"


def _mergeable(choice: Choice) -> str:
    ids = {candidate.knowledge.id for candidate in choice.absorbed}
    mergeable = [knowledge for knowledge in choice.candidates if is_mergeable(knowledge, choice.situation)]
    pool, noun, what = mergeable, "relative", " (same architecture and initial checkpoint)"
    if not ids <= {knowledge.id for knowledge in mergeable}:
        pool, noun, what = list(choice.candidates), "candidate", ""
    lead = _count(len(ids), len(pool), noun)
    places = {k.id: (choice.situation.ages.get(k.id, 0), -(k.sample_count or 0)) for k in pool}
    if len(choice.chosen) < len(pool):
        last, rest = max(places[id] for id in ids), min(place for id, place in places.items() if id not in ids)
        if last[0] < rest[0]:
            lead = f"the {'' if len(ids) == 1 else f'{len(ids)} '}newest of {len(pool)} {noun}s"
        elif last < rest:
            what += ", the newest with the most samples"
    claims = {candidate.is_claim for candidate in choice.absorbed}
    known = "claimed or found" if len(claims) > 1 else "claimed" if True in claims else "found"
    accuracies = _listed([_percent(candidate.evaluation.accuracy) for candidate in choice.absorbed])
    weights = _listed(["under 0.01" if share < 0.005 else f"{share:.2f}" for share in choice.shares])
    return f"{lead}{what}; {known} {accuracies}" + (f", weighed {weights} beside our 1" if weights else "")


def _leaves_out_classes(choice: Choice) -> bool:
    """Whether figures are of private samples, and not of all classes: some have too few, or none."""
    known = _known(choice)
    return known[0].task.test_set is None and any(0 in knowledge.trusted.total for knowledge in known)


def _known(choice: Choice) -> list[Knowledge]:
    """Return the records of the absorbed knowledge as they were when it was chosen."""
    chosen = {knowledge.id: knowledge for knowledge in choice.chosen}
    return [chosen[candidate.knowledge.id] for candidate in choice.absorbed]


def _claim(known: Sequence[Knowledge]) -> str:
    """Return the verb that says who made their evaluations: the publisher, the hub or this entity."""
    many = len(known) > 1
    claim, are = ("claim", "are") if many else ("claims", "is")
    if known[0].task.test_set is None:  # then this entity evaluated them before it chose
        return f"{are} found by us to have"
    verified = {knowledge.trusted is not knowledge.evaluation for knowledge in known}
    if verified == {False}:
        return claim
    return f"{are} verified to have" if verified == {True} else f"{claim} or {are} verified to have"


def _recalls(evaluation: Evaluation) -> list[float]:
    return [recall or 0.0 for recall in evaluation.recalls]


def _count(some: int, total: int, noun: str) -> str:
    if some < total:
        return f"{some} of {total} {noun}s"
    if total == 1:
        return f"the only {noun}"
    return f"both {noun}s" if total == 2 else f"all {total} {noun}s"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(texts: Sequence[str]) -> str:
    """Join the first texts, and count the rest."""
    if not texts:
        return ""
    named = list(texts) if len(texts) <= SHOWN else [*texts[:SHOWN], f"{len(texts) - SHOWN} more"]
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
