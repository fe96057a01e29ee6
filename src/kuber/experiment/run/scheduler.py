"""Slots of the CPU: how many entities compute at a time, and which of them comes next.

More threads than cores make every entity slower than if they took turns, so a work step waits for a slot. The
entity that has done the smallest share of its rounds goes first, and the one with the most data among equals:
then all of them finish at about the same time and no core idles at the end. No entity waits for another's result.
"""

from dataclasses import dataclass, field


@dataclass
class SlotScheduler:
    """A fixed number of slots and the queue for them."""

    slots: int
    _holders: set[str] = field(default_factory=set)
    _waiting: dict[str, tuple[float, int]] = field(default_factory=dict)

    def request(self, entity: str, *, progress: float, samples: int) -> None:
        """Queue an entity, with the share of rounds it has done and its number of private samples."""
        self._waiting[entity] = (progress, -samples)

    def release(self, entity: str) -> None:
        """Free the entity's slot, or take it out of the queue."""
        self._holders.discard(entity)
        self._waiting.pop(entity, None)

    def grant(self) -> list[str]:
        """Give the free slots to the first in the queue, and return those entities."""
        granted = sorted(self._waiting, key=lambda entity: (self._waiting[entity], entity))
        granted = granted[: self.slots - len(self._holders)]
        for entity in granted:
            del self._waiting[entity]
            self._holders.add(entity)
        return granted
