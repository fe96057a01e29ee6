"""Who may compute now: as many entities at a time as the machine has room for, and which of them first.

More threads than cores make every entity slower than if they took turns, so a work step waits for a slot. The
entity that has done the smallest share of its rounds goes first, and the one with the most data among equals:
then all of them finish at about the same time and no core idles at the end. No entity waits for another's result.
"""

from dataclasses import dataclass, field


@dataclass
class Slots:
    """A fixed number of slots and the queue for them."""

    count: int
    _holders: set[str] = field(default_factory=set)
    _waiting: dict[str, tuple[float, int]] = field(default_factory=dict)

    def ask(self, entity: str, *, progress: float, samples: int) -> None:
        """Join the queue with the share of rounds done and the number of private samples."""
        self._waiting[entity] = (progress, -samples)

    def leave(self, entity: str) -> None:
        """Give the slot back, or leave the queue."""
        self._holders.discard(entity)
        self._waiting.pop(entity, None)

    def grant(self) -> list[str]:
        """The entities whose turn it is now; they hold a slot from here on."""
        granted = sorted(self._waiting, key=lambda entity: (self._waiting[entity], entity))
        granted = granted[: self.count - len(self._holders)]
        for entity in granted:
            del self._waiting[entity]
            self._holders.add(entity)
        return granted
