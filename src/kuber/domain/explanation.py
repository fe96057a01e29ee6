"""Why teachers were chosen, in one sentence."""

from collections.abc import Sequence

from kuber.domain.delivery import MAX_REASON
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import is_mergeable
from kuber.domain.ranking import more_accurate
from kuber.domain.strategy import Choice, Method, Strategy

SHOWN = 3  # teachers or classes that are named
LABEL = 30  # characters that are shown of a label


def explanation(strategy: Strategy, choice: Choice) -> str | None:
    """What the strategy says of its choice, as a delivery can carry it; None where it says nothing."""
    explain = getattr(strategy, "explain", None)  # a strategy of before there were reasons has none
    if explain is None:
        return None
    text = "".join(one for one in " ".join(explain(choice).split()) if one.isprintable())
    return _cut(text, MAX_REASON) or None


def reason_for(choice: Choice) -> str:
    """Why those who were absorbed, of whom there is one at least: facts that hold whatever strategy chose them.

    What they know, are worth or weigh, beside us and among the candidates. Shares are in per cent.
    """
    match choice.search.method:
        case Method.GUIDE:
            sentence = _complement(choice) or _accuracies(choice)
        case Method.DISTIL:
            sentence = _decline(choice) + (_best(choice) or _accuracies(choice))
        case Method.MERGE:
            sentence = _relatives(choice)
    unused = len({one.id for one in choice.chosen}) - len(choice.absorbed)
    if unused:
        sentence += f"; {unused} more {'was' if unused == 1 else 'were'} chosen but not used"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _complement(choice: Choice) -> str | None:
    """The classes on which they are ahead of us, farthest first; None when there are none."""
    known, own = _known(choice), choice.situation.own
    ours = own.recalls if own else (None,) * len(known[0].task.labels)
    theirs = [max(recalls) for recalls in zip(*(_recalls(one.trusted) for one in known), strict=True)]
    ahead = [(best - (have or 0.0), label) for label, (best, have) in enumerate(zip(theirs, ours, strict=True))]
    ahead = sorted(((gain, label) for gain, label in ahead if gain > 0), key=lambda one: (-one[0], one[1]))
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
    texts = [_percent(one.trusted.accuracy) for one in known]
    lead = _count(len(known), len(choice.candidates), "candidate")
    return f"{lead}, which {_claim(known)} {_listed(texts)}{beside}"


def _decline(choice: Choice) -> str:
    own, previous = choice.situation.own, choice.situation.previous
    if own is None or previous is None or own.accuracy >= previous.accuracy:
        return ""
    return f"our accuracy fell from {_percent(previous.accuracy)} to {_percent(own.accuracy)}; "


def _best(choice: Choice) -> str | None:
    """That a single teacher is the best of those that are better than we are; None where it is not."""
    known, own = _known(choice), choice.situation.own
    higher = more_accurate(choice.candidates, own) if own else []
    if len(known) > 1 or not higher or known[0].trusted.accuracy < higher[0].trusted.accuracy:
        return None
    among = "the only one that" if len(higher) == 1 else f"the best of {len(higher)} that"
    return f"{among} {_claim(higher)} more, with {_percent(known[0].trusted.accuracy)}"


def _relatives(choice: Choice) -> str:
    ids = {one.knowledge.id for one in choice.absorbed}
    relatives = [one for one in choice.candidates if is_mergeable(one, choice.situation)]
    pool, noun, what = relatives, "relative", " (same architecture and initial checkpoint)"
    if not ids <= {one.id for one in relatives}:
        pool, noun, what = list(choice.candidates), "candidate", ""
    lead = _count(len(ids), len(pool), noun)
    places = {one.id: (choice.situation.ages.get(one.id, 0), -(one.sample_count or 0)) for one in pool}
    if len(choice.chosen) < len(pool):
        last, rest = max(places[id] for id in ids), min(place for id, place in places.items() if id not in ids)
        if last[0] < rest[0]:
            lead = f"the {'' if len(ids) == 1 else f'{len(ids)} '}newest of {len(pool)} {noun}s"
        elif last < rest:
            what += ", the newest with the most samples"
    found = _listed([_percent(one.evaluation.accuracy) for one in choice.absorbed])
    weighed = _listed(["under 0.01" if share < 0.005 else f"{share:.2f}" for share in choice.shares])
    return f"{lead}{what}; found {found}" + (f", weighed {weighed} beside our 1" if weighed else "")


def _known(choice: Choice) -> list[Knowledge]:
    """Those who were absorbed, as they were known when they were chosen."""
    chosen = {one.id: one for one in choice.chosen}
    return [chosen[one.knowledge.id] for one in choice.absorbed]


def _claim(known: Sequence[Knowledge]) -> str:
    """Whose word their evaluations are, as a verb."""
    many = len(known) > 1
    claim, are = ("claim", "are") if many else ("claims", "is")
    if known[0].task.test_set is None:  # then they were evaluated by us before they were chosen
        return f"{are} found by us to have"
    verified = {one.trusted is not one.evaluation for one in known}
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
    """The first of these texts, and how many more there are."""
    if not texts:
        return ""
    named = list(texts) if len(texts) <= SHOWN else [*texts[:SHOWN], f"{len(texts) - SHOWN} more"]
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
