"""Knowledge given and taken: per entity of a run, and between an entity and each partner."""

from dataclasses import dataclass

from kuber.views.formatting import natural
from kuber.views.hub import HubView
from kuber.views.run import RunView


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityExchange:
    """What one entity gave and took. Gains are differences of accuracy on the common test set, 1 is 100 points."""

    entity: str  # name
    shared: int  # models that it published
    taught: int  # kept deliveries of others in which its models took part
    kept: int  # deliveries of its own whose result it kept
    declined: int  # ... and did not keep
    gained: float  # sum over those that it kept, after less before
    gave: float  # the same of those that it taught, shared equally among the publishers


def exchanges(view: RunView) -> list[EntityExchange]:
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
        EntityExchange(
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


@dataclass(kw_only=True, slots=True)
class Partner:
    """What passed between an entity and one other, in the deliveries that a view remembers."""

    id: str
    name: str
    took: int = 0  # kept absorptions of ours in which its knowledge took part
    gained: float = 0.0  # its equal share of what those brought us, 0 to 1
    gave: int = 0  # kept absorptions of its own in which our knowledge took part
    helped: float = 0.0  # our equal share of what those brought it
    undone: int = 0  # absorptions of either from the other that were not kept


def partners(view: HubView, entity: str) -> list[Partner]:
    """Everybody that the entity exchanged knowledge with, in the order of their names."""
    found: dict[str, Partner] = {}

    def partner(id: str) -> Partner:
        return found.setdefault(id, Partner(id=id, name=view.name_of(id)))

    for one in view.deliveries:
        for publisher in one.publishers:
            if entity not in (one.student, publisher) or one.student == publisher:
                continue
            if one.student == entity:
                with_them = partner(publisher)
                if one.kept:
                    with_them.took += 1
                    with_them.gained += one.share
            else:
                with_them = partner(one.student)
                if one.kept:
                    with_them.gave += 1
                    with_them.helped += one.share
            if not one.kept:
                with_them.undone += 1
    return sorted(found.values(), key=lambda one: natural(one.name))
