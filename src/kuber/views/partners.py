"""What an entity gave to others and took from them, partner by partner."""

from dataclasses import dataclass

from kuber.views.hub import HubView
from kuber.views.wording import natural


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
