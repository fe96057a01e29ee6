"""A hub in memory: for trying things out, for tests, and for entities that all live in one process."""

import uuid
from datetime import UTC, datetime

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault


def memory_hub() -> tuple[MemoryRegistry, MemoryVault]:
    """A new registry and its vault; what is in them goes when they do."""
    vault = MemoryVault()
    return MemoryRegistry(vault=vault, clock=lambda: datetime.now(UTC), ids=lambda: uuid.uuid4().hex), vault
