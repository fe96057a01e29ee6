"""One absorption, and how it is told in one line."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kuber.views.formatting import percent, points, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryView:
    """One absorption, as the student logged it."""

    round: int
    student: str  # entity name; of a hub's, the id
    publishers: tuple[str, ...]  # entity ids, each once
    teachers: tuple[str, ...]  # knowledge ids
    method: str
    before: float  # accuracies on the common test set, 0 to 1
    after: float
    kept: bool
    reason: str | None = None  # why these teachers were chosen; logs made before it was told lack it

    @property
    def share(self) -> float:
        """What it brought for each of those that taught, who share equally: accuracy after, less before."""
        return (self.after - self.before) / max(1, len(set(self.publishers)))


@dataclass(frozen=True, kw_only=True, slots=True)
class HubDelivery(DeliveryView):
    """One absorption, as the student told the registry; publishers of before we began to read are left out."""

    number: int  # of its event
    time: datetime


def absorption(one: DeliveryView, name_of: Callable[[str], str]) -> str:
    """A delivery as one line; `name_of` gives the name of an entity id."""
    teachers = ", ".join(map(name_of, one.publishers)) or "somebody"
    change = f"{percent(one.before)} -> {percent(one.after)} ({points(one.after - one.before)})"
    told = f"{name_of(one.student)} <- {teachers}: {one.method} in round {one.round}, {change}"
    return printable(told if one.kept else f"{told}, not kept")
