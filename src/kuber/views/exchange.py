"""Exchange of knowledge: totals of each entity of a run, and between an entity of a hub and its partners."""

from dataclasses import dataclass

from kuber.views.formatting import natural
from kuber.views.hub import HubView
from kuber.views.run import RunView


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityExchange:
    """Totals of one entity. Gains are differences of accuracy on the common test set: 1.0 is 100 points."""

    entity: str  # name
    published: int  # models
    taught: int  # kept deliveries of others in which its models took part
    kept: int  # its own deliveries whose result it kept
    declined: int  # its own deliveries whose result it did not keep
    gained: float  # sum over the kept deliveries, accuracy after minus before
    gave: float  # its equal shares of what the deliveries that it taught brought


def exchanges(view: RunView) -> list[EntityExchange]:
    """Return the totals of every entity, in the order of the view.

    The sums of `gained` and of `gave` are equal, unless a teacher is not in the view.
    """
    gained = dict.fromkeys(view.entities, 0.0)
    gave = dict.fromkeys(view.entities, 0.0)
    taught = dict.fromkeys(view.entities, 0)
    kept = dict.fromkeys(view.entities, 0)
    declined = dict.fromkeys(view.entities, 0)
    for delivery in view.deliveries:
        if not delivery.kept:
            declined[delivery.student] += 1
            continue
        kept[delivery.student] += 1
        gained[delivery.student] += delivery.after - delivery.before
        publishers = dict.fromkeys(delivery.publishers)  # each once, however many of its models took part
        for name in map(view.name_of, publishers):
            if name in taught:
                taught[name] += 1
                gave[name] += delivery.share
    return [
        EntityExchange(
            entity=name,
            published=entity.published,
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
    """Totals between an entity and one other, in the deliveries that a view holds."""

    id: str
    name: str
    took: int = 0  # kept deliveries of the entity that the partner taught
    gained: float = 0.0  # the partner's equal share of what those brought, 0 to 1
    gave: int = 0  # kept deliveries of the partner that the entity taught
    helped: float = 0.0  # the entity's equal share of what those brought
    undone: int = 0  # deliveries of either from the other that were not kept


def partners(view: HubView, entity: str) -> list[Partner]:
    """Return the entities with which this one exchanged knowledge, in the order of their names."""
    found: dict[str, Partner] = {}

    def partner(id: str) -> Partner:
        return found.setdefault(id, Partner(id=id, name=view.name_of(id)))

    for delivery in view.deliveries:
        for publisher in delivery.publishers:
            if entity not in (delivery.student, publisher) or delivery.student == publisher:
                continue
            if delivery.student == entity:
                other = partner(publisher)
                if delivery.kept:
                    other.took += 1
                    other.gained += delivery.share
            else:
                other = partner(delivery.student)
                if delivery.kept:
                    other.gave += 1
                    other.helped += delivery.share
            if not delivery.kept:
                other.undone += 1
    return sorted(found.values(), key=lambda other: natural(other.name))
