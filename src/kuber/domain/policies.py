"""The small decisions that strategies are made of, each with its settings: pure functions of what is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Knowledge
from kuber.domain.query import MAX_LIMIT
from kuber.domain.strategy import Candidate, Situation


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishPolicy:
    """When to publish."""

    gain: float = 0.0  # accuracy over what we published last, at least
    class_gain: float = 0.05  # or recall on some class


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionPolicy:
    """Whom to choose."""

    limit: int = 3  # knowledge pulled in a round, at most
    freshness: float = 0.8  # what a candidate's help is worth for each of our rounds that it is old


@dataclass(frozen=True, kw_only=True, slots=True)
class MergePolicy:
    """How to weigh models in an average."""

    staleness: float = 0.5  # a model seen `age` rounds ago counts (1 + age) ** -staleness
    quality: float = 4.0  # one that is q times as much above chance as ours counts min(1, q) ** quality


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptancePolicy:
    """What to keep."""

    tolerance: float = 0.0  # accuracy that may be lost
    noise: float = 0.0  # and as many standard errors of the evaluation: few samples tell little


def is_no_worse(before: Evaluation, after: Evaluation, settings: AcceptancePolicy) -> bool:
    """Whether accuracy fell by no more than is tolerated. The standard error is that of a binomial proportion."""
    error = sqrt(before.accuracy * (1 - before.accuracy) / sum(before.total))
    return after.accuracy >= before.accuracy - settings.tolerance - settings.noise * error


def has_improved(situation: Situation, settings: PublishPolicy) -> bool:
    """Whether our model can do something that what we published last could not."""
    own, shared = situation.own, situation.shared
    if own is None:
        return False
    if shared is None or own.accuracy > shared.accuracy + settings.gain:
        return True
    pairs = zip(own.recalls, shared.recalls, strict=True)
    return any(now is not None and now >= (then or 0.0) + settings.class_gain for now, then in pairs)


def weak_classes(own: Evaluation) -> tuple[int, ...]:
    """The labels on which a model's recall is below its own mean, weakest first; all when none is."""
    recalls = [(recall, label) for label, recall in enumerate(own.recalls) if recall is not None]
    mean = sum(recall for recall, _ in recalls) / len(recalls)
    weak = tuple(label for recall, label in sorted(recalls) if recall < mean)
    return (weak or tuple(label for _, label in sorted(recalls)))[:MAX_LIMIT]


def select_complementary(
    candidates: Sequence[Knowledge], own: Evaluation | None, ages: dict[str, int] | None, settings: SelectionPolicy
) -> list[Knowledge]:
    """Up to `limit` candidates that together know best what we do not, by their claims; none that adds nothing.

    Greedy: each next one is the candidate that adds most to the best recall found so far, summed over the classes.
    """
    covered = (
        [recall or 0.0 for recall in own.recalls]
        if own
        else [0.0] * len(candidates[0].task.labels if candidates else ())
    )
    chosen: list[Knowledge] = []
    left = list(candidates)
    while left and len(chosen) < settings.limit:
        gains = [
            settings.freshness ** (ages or {}).get(one.id, 0)
            * sum(max(0.0, (recall or 0.0) - have) for recall, have in zip(one.trusted.recalls, covered, strict=True))
            for one in left
        ]
        best = max(range(len(left)), key=lambda place: gains[place])
        if gains[best] <= 0:
            break
        one = left.pop(best)
        chosen.append(one)
        covered = [max(recall or 0.0, have) for recall, have in zip(one.trusted.recalls, covered, strict=True)]
    return chosen


def is_mergeable(knowledge: Knowledge, situation: Situation) -> bool:
    """Whether a model can be merged with ours: the same architecture, and weights of a common origin."""
    return (
        situation.origin is not None
        and knowledge.origin == situation.origin
        and knowledge.architecture == situation.architecture
        and WEIGHTS in knowledge.artifacts
    )


def most_recent(candidates: Sequence[Knowledge], ages: dict[str, int], limit: int) -> list[Knowledge]:
    """The candidates seen for the shortest time; those trained on more samples first among equals."""
    return sorted(candidates, key=lambda one: (ages.get(one.id, 0), -(one.sample_count or 0), one.id))[:limit]


def merge_shares(candidates: Sequence[Candidate], situation: Situation, settings: MergePolicy) -> list[float]:
    """What each candidate weighs beside our own model's one: its samples against ours, less when it is stale.

    A model that is right no more often than chance, by our own evaluation, weighs nothing, and one that is worse than
    ours little: it comes from one who is slow, or has just begun. One that does not tell its samples is taken to have
    as many as we have. Samples: McMahan et al., arXiv 1602.05629; staleness:
    Xie et al., arXiv 1903.03934, section 5.2, the polynomial discount.
    """
    return [
        0.0
        if one.evaluation.accuracy <= 1 / len(one.evaluation.total)
        else _more_samples(one.knowledge.sample_count, situation.samples)
        * (1 + situation.ages.get(one.knowledge.id, 0)) ** -settings.staleness
        * _quality(one.evaluation, situation.own) ** settings.quality
        for one in candidates
    ]


def _more_samples(theirs: int | None, ours: int) -> float:
    """How many times our samples they have; as many where one of us does not tell."""
    return theirs / ours if theirs is not None and ours else 1.0


def _quality(theirs: Evaluation, ours: Evaluation | None) -> float:
    """How much above chance they are, against how much we are; 1 where they are no worse."""
    chance = 1 / len(theirs.total)
    if ours is None or ours.accuracy <= chance:
        return 1.0
    return min(1.0, (theirs.accuracy - chance) / (ours.accuracy - chance))
