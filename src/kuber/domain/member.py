"""An entity as the registry knows it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A registered entity."""

    id: str  # made by the registry
    name: str  # chosen by the entity, unique in the registry
    registered_at: datetime
