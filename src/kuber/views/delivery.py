"""One delivery, and the line of text that describes it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kuber.domain.explanation import KEPT
from kuber.views.formatting import percent, points, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryView:
    """One delivery, as the student logged it."""

    round: int  # of the student
    student: str  # entity name; in a `HubDelivery` its id
    publishers: tuple[str, ...]  # entity ids, each once
    teachers: tuple[str, ...]  # knowledge ids
    method: str
    before: float  # accuracies on the common test set, 0 to 1
    after: float
    kept: bool
    reason: str | None = None  # why these teachers, and why a loss was kept; older logs lack it

    @property
    def share(self) -> float:
        """The equal share of each teacher in the gain: accuracy after minus before, over the number of teachers."""
        return (self.after - self.before) / max(1, len(set(self.publishers)))


@dataclass(frozen=True, kw_only=True, slots=True)
class HubDelivery(DeliveryView):
    """One delivery, as the student recorded it at the registry. Publishers unknown to the view are left out."""

    number: int  # of its event
    time: datetime


def why_kept(reason: str | None) -> str:
    """Return why a result that is less accurate was kept, as its reason says; empty if it is not, or says nothing."""
    return (reason or "").rpartition(KEPT)[2].rstrip(".") if KEPT in (reason or "") else ""


def absorption(delivery: DeliveryView, name_of: Callable[[str], str]) -> str:
    """Describe a delivery in one line; `name_of` returns the name of an entity id."""
    teachers = ", ".join(map(name_of, delivery.publishers)) or "somebody"
    change = f"{percent(delivery.before)} -> {percent(delivery.after)} ({points(delivery.after - delivery.before)})"
    why = why_kept(delivery.reason) if delivery.kept else ""
    if why:
        change += f", {why}"
    line = f"{name_of(delivery.student)} <- {teachers}: {delivery.method} in round {delivery.round}, {change}"
    return printable(line if delivery.kept else f"{line}, not kept")
