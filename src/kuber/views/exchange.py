"""Exchange of knowledge: totals of each entity of a run, and between an entity of a hub and its partners."""

from dataclasses import dataclass

from kuber.views.formatting import natural
from kuber.views.hub import HubView
from kuber.views.run import RunView


@dataclass(kw_only=True, slots=True)
class EntityExchange:
    """Totals of one entity. Gains are differences of accuracy on the common test set: 1.0 is 100 points."""

    entity: str  # name
    published: int  # models
    taught: int = 0  # kept deliveries of others in which its models took part
    kept: int = 0  # its own deliveries whose result it kept
    declined: int = 0  # its own deliveries whose result it did not keep
    gained: float = 0.0  # sum over the kept deliveries, accuracy after minus before
    gave: float = 0.0  # its equal shares of what the deliveries that it taught brought


def exchanges(view: RunView) -> list[EntityExchange]:
    """Return the totals of every entity, in the order of the view.

    The sums of `gained` and of `gave` are equal, unless a teacher is not in the view.
    """
    found = {name: EntityExchange(entity=name, published=entity.published) for name, entity in view.entities.items()}
    for delivery in view.deliveries:
        student = found[delivery.student]
        if not delivery.kept:
            student.declined += 1
            continue
        student.kept += 1
        student.gained += delivery.after - delivery.before
        publishers = dict.fromkeys(delivery.publishers)  # each once, however many of its models took part
        for name in map(view.name_of, publishers):
            if name in found:
                found[name].taught += 1
                found[name].gave += delivery.share
    return list(found.values())


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
    for delivery in view.deliveries:
        for publisher in delivery.publishers:
            if entity not in (delivery.student, publisher) or delivery.student == publisher:
                continue
            id = publisher if delivery.student == entity else delivery.student
            other = found.setdefault(id, Partner(id=id, name=view.name_of(id)))
            if not delivery.kept:
                other.undone += 1
            elif delivery.student == entity:
                other.took += 1
                other.gained += delivery.share
            else:
                other.gave += 1
                other.helped += delivery.share
    return sorted(found.values(), key=lambda other: natural(other.name))
