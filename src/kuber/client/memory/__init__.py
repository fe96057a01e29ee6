"""A hub in memory: for experiments, tests, and entities of one process."""

import uuid

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.event import utc_now


def memory_hub() -> tuple[MemoryRegistry, MemoryVault]:
    """Return a new registry and its vault, whose contents are lost when they are deleted."""
    vault = MemoryVault()
    return MemoryRegistry(vault=vault, clock=utc_now, ids=lambda: uuid.uuid4().hex), vault
