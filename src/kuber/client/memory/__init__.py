"""A hub in memory: for trying things out, for tests, and for entities that all live in one process."""

import uuid

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.event import utc_now


def memory_hub() -> tuple[MemoryRegistry, MemoryVault]:
    """A new registry and its vault; what is in them goes when they do."""
    vault = MemoryVault()
    return MemoryRegistry(vault=vault, clock=utc_now, ids=lambda: uuid.uuid4().hex), vault
