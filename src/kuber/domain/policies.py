"""Policies that strategies are composed of, each with its settings: pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Knowledge
from kuber.domain.query import MAX_LIMIT, Query
from kuber.domain.significance import accuracy_has_fallen, has_fallen, is_clearly_worse, proportion
from kuber.domain.strategy import Candidate, Situation, Wait


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishPolicy:
    """When to publish."""

    gain: float = 0.0  # accuracy gained since the last publication, more than this
    class_gain: float = 0.05  # or recall gained on some class, at least
    confidence: float = 0.84  # with which it must have been gained, on some class for all classes together


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionPolicy:
    """How to choose guides among candidates."""

    limit: int = 3  # guides of a round, at most
    freshness: float = 0.8  # factor on a candidate's gain for each own round since it was first seen


@dataclass(frozen=True, kw_only=True, slots=True)
class MergePolicy:
    """How to make an average, and how to weigh models in it."""

    limit: int = 9  # models of others in an average, at most
    checked: int | None = 1  # of these, evaluated beforehand if nothing speaks against the others; None: all
    staleness: float = 3.0  # a model first seen `age` rounds ago counts (1 + age) ** -staleness
    sufficient: float = 0.5  # a model this far above chance, as a share of the own one, counts in full
    quality: float = 4.0  # one that is q times as far counts (q / sufficient) ** quality
    spread: float = 2.0  # numbers of samples above as many times their median count as that many
    most: float = 5.0  # and none as more than as many times the own one: nobody can check them
    least: float = 0.01  # a share below it is none, and another model takes the place


@dataclass(frozen=True, kw_only=True, slots=True)
class OuterStepPolicy:
    """How far beyond an average the next local phase starts: see `kuber.learning.outer_step`."""

    rate: float = 1.3  # of the change that the average makes to the start; 1: the average itself
    momentum: float = 0.4  # share of the momentum that is left after a round
    full: float = 0.5  # share of others in an average from which on the step is whole; less for a smaller share

    def scaled(self, shares: Sequence[float]) -> tuple[float, float]:
        """Return rate and momentum for an average with these shares of others, beside the own model's 1.

        An average of many models makes a smaller change than each of them; that of one alone needs no step.
        """
        others = sum(shares)
        scale = min(1.0, others / (1 + others) / self.full)
        return 1 + (self.rate - 1) * scale, self.momentum * scale


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingPolicy:
    """How long to wait for the next models of others before a merge."""

    share: float = 2.0  # of the duration of the own round so far, at most
    grace: float = 0.5  # of the first round, when nobody is known: for a model to come, and for one more after each


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyPolicy:
    """How an entity's private network learns from the proxy that it exchanges, in each round after the merge."""

    temperature: float = 2.0  # softens both
    weight: float = 1.0  # of the distillation from the proxy, beside the loss on the labels


def has_improved(situation: Situation, policy: PublishPolicy) -> bool:
    """Return whether the own model gained accuracy, or recall on some class, beyond noise since the last publication.

    A model that has collapsed has not improved, whatever it gained on a class.
    """
    own, published = situation.own, situation.published
    if own is None:
        return False
    if published is None:
        return True
    if own.accuracy > published.accuracy + policy.gain and accuracy_has_fallen(
        own, published, confidence=policy.confidence
    ):
        return True
    if is_clearly_worse(proportion(published), proportion(own)):
        return False
    known = [label for label, total in enumerate(own.total) if total]
    confidence = 1 - (1 - policy.confidence) / len(known)
    return any(
        (own.recalls[label] or 0.0) >= (published.recalls[label] or 0.0) + policy.class_gain
        and has_fallen(own, published, label, confidence=confidence)
        for label in known
    )


def weak_classes(own: Evaluation) -> tuple[int, ...]:
    """Return the labels on which a model's recall is below its own mean, weakest first; all when none is."""
    recalls = [(recall, label) for label, recall in enumerate(own.recalls) if recall is not None]
    mean = sum(recall for recall, _ in recalls) / len(recalls)
    weak = tuple(label for recall, label in sorted(recalls) if recall < mean)
    return (weak or tuple(label for _, label in sorted(recalls)))[:MAX_LIMIT]


def query_for_teachers(situation: Situation, policy: SelectionPolicy) -> Query:
    """Return the query for the newest knowledge of each entity, best on the own model's weak classes first."""
    classes = weak_classes(situation.own) if situation.own else ()
    return Query(latest=True, classes=classes, order="classes" if classes else "accuracy", limit=10 * policy.limit)


def select_complementary(
    candidates: Sequence[Knowledge], own: Evaluation | None, ages: Mapping[str, int] | None, policy: SelectionPolicy
) -> list[Knowledge]:
    """Return up to `limit` candidates that together claim most where the own model is weak; none that adds nothing.

    Greedy: each next one is the candidate that adds most to the best recall found so far, summed over the classes.
    """
    covered = (
        [recall or 0.0 for recall in own.recalls]
        if own
        else [0.0] * len(candidates[0].task.labels if candidates else ())
    )
    chosen: list[Knowledge] = []
    left = list(candidates)
    while left and len(chosen) < policy.limit:
        gains = [
            policy.freshness ** (ages or {}).get(candidate.id, 0)
            * sum(
                max(0.0, (recall or 0.0) - best)
                for recall, best in zip(candidate.trusted.recalls, covered, strict=True)
            )
            for candidate in left
        ]
        place = max(range(len(left)), key=lambda place: gains[place])
        if gains[place] <= 0:
            break
        candidate = left.pop(place)
        chosen.append(candidate)
        covered = [max(recall or 0.0, best) for recall, best in zip(candidate.trusted.recalls, covered, strict=True)]
    return chosen


def is_mergeable(knowledge: Knowledge, situation: Situation) -> bool:
    """Return whether a model can be merged with the own one: same architecture, and weights of a common origin."""
    return (
        situation.origin is not None
        and knowledge.origin == situation.origin
        and knowledge.architecture == situation.architecture
        and WEIGHTS in knowledge.artifacts
    )


def is_too_old(knowledge: Knowledge, situation: Situation, policy: MergePolicy) -> bool:
    """Return whether a model has so little weight in an average, by its age, that it is none."""
    return _discount(situation.ages.get(knowledge.id, 0), policy) < policy.least


def most_recent(
    candidates: Sequence[Knowledge], ages: Mapping[str, int], limit: int, *, most: float = inf
) -> list[Knowledge]:
    """Return the candidates first seen most recently; those trained on more samples first among equals.

    Numbers of samples above `most` count as that many.
    """
    return sorted(candidates, key=lambda k: (ages.get(k.id, 0), -min(k.sample_count or 0, most), k.id))[:limit]


def more_are_expected(
    candidates: Sequence[Knowledge], situation: Situation, merging: MergePolicy, waiting: WaitingPolicy
) -> bool:
    """Return whether more models to merge are expected soon than are new in this round, up to the limit.

    An entity is expected that published in the round before, if it will do so again before the longest wait ends: as
    long after its last record as that came after the one before.
    """
    mergeable = [candidate for candidate in candidates if is_mergeable(candidate, situation)]
    new = sum(situation.ages.get(candidate.id, 0) == 0 for candidate in mergeable)
    wait = situation.wait
    if new >= merging.limit or wait is None:
        return False
    if situation.round == 1:
        return wait.quiet < waiting.grace * wait.round
    return any(_is_expected(candidate, situation.ages.get(candidate.id, 0), wait) for candidate in mergeable)


def _is_expected(candidate: Knowledge, age: int, wait: Wait) -> bool:
    """Return whether the entity of this record will publish the next one soon."""
    due = wait.due.get(candidate.id)
    return age == 1 if due is None else age > 0 and due <= wait.left


def merge_shares(candidates: Sequence[Candidate], situation: Situation, policy: MergePolicy) -> list[float]:
    """Return the weight of each candidate beside the own model's 1: its samples against ours, less when it is stale.

    A model that is right no more often than chance, by our own evaluation, weighs nothing, and one far worse than
    ours little: its entity is slow, or has just begun. A candidate without a sample count is taken to have as many
    samples as we have, and high counts are bounded. Samples: McMahan et al., arXiv 1602.05629; staleness: Xie et
    al., arXiv 1903.03934, section 5.2, the polynomial discount.
    """
    most = _most_samples([candidate.knowledge for candidate in candidates], situation.samples, policy)
    shares = [
        0.0
        if candidate.evaluation.accuracy <= 1 / len(candidate.evaluation.total)
        else _sample_ratio(candidate.knowledge.sample_count, situation.samples, most)
        * _discount(situation.ages.get(candidate.knowledge.id, 0), policy)
        * min(1.0, _quality(candidate.evaluation, situation.own) / policy.sufficient) ** policy.quality
        for candidate in candidates
    ]
    return [share if share >= policy.least else 0.0 for share in shares]


def _discount(age: int, policy: MergePolicy) -> float:
    """Return the share of its weight that a model has which was first seen so many own rounds ago."""
    return float((1 + age) ** -policy.staleness)


def _most_samples(candidates: Iterable[Knowledge], ours: int, policy: MergePolicy) -> float:
    """Return the number of samples above which a stated one counts as this: no bound without a number of ours.

    Nobody can check such a number, and one of 10^12 would replace our model by another. The median is the lower of
    two, with ours among the numbers.
    """
    if not ours:
        return inf
    stated = sorted([ours, *(record.sample_count for record in candidates if record.sample_count is not None)])
    return min(policy.spread * stated[(len(stated) - 1) // 2], policy.most * ours)


def _sample_ratio(theirs: int | None, ours: int, most: float) -> float:
    """Return their samples, at most `most`, as a multiple of ours; 1 when either count is not stated."""
    return min(theirs, most) / ours if theirs is not None and ours else 1.0


def _quality(theirs: Evaluation, ours: Evaluation | None) -> float:
    """Return how far above chance their accuracy is, as a share of ours; 1 when ours is none."""
    chance = 1 / len(theirs.total)
    if ours is None or ours.accuracy <= chance:
        return 1.0
    return (theirs.accuracy - chance) / (ours.accuracy - chance)
