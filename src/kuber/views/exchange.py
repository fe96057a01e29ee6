"""What each entity of a run gave to the others, and what it took."""

from dataclasses import dataclass

from kuber.views.run import RunView


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """What one entity gave and took. Gains are differences of accuracy on the common test set, 1 is 100 points."""

    entity: str  # name
    shared: int  # models that it published
    taught: int  # kept deliveries of others in which its models took part
    kept: int  # deliveries of its own whose result it kept
    declined: int  # ... and did not keep
    gained: float  # sum over those that it kept, after less before
    gave: float  # the same of those that it taught, shared equally among the publishers


def exchanges(view: RunView) -> list[Exchange]:
    """What every entity of the view gave and took, in their order.

    The gains of all add up to what all gave, unless a teacher is not in the view.
    """
    gained = dict.fromkeys(view.entities, 0.0)
    gave = dict.fromkeys(view.entities, 0.0)
    taught = dict.fromkeys(view.entities, 0)
    kept = dict.fromkeys(view.entities, 0)
    declined = dict.fromkeys(view.entities, 0)
    for one in view.deliveries:
        if not one.kept:
            declined[one.student] += 1
            continue
        kept[one.student] += 1
        gained[one.student] += one.after - one.before
        publishers = dict.fromkeys(one.publishers)  # each once, however many of its models took part
        for name in map(view.name_of, publishers):
            if name in taught:
                taught[name] += 1
                gave[name] += one.share
    return [
        Exchange(
            entity=name,
            shared=entity.published,
            taught=taught[name],
            kept=kept[name],
            declined=declined[name],
            gained=gained[name],
            gave=gave[name],
        )
        for name, entity in view.entities.items()
    ]
