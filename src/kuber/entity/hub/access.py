"""Access of an entity to its hub, and what it shares there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kuber.domain.evaluation import Evaluation
from kuber.domain.ports import Registry, Vault
from kuber.entity.clock import Clock
from kuber.signing import Identity

Counts = Literal["exact", "rounded"] | None
Approve = Callable[[Evaluation, int], bool]  # the evaluation to be claimed and the round -> whether to publish


@dataclass(frozen=True, kw_only=True, slots=True)
class HubAccess:
    """Registry and vault of a hub, and the identity that the entity has there."""

    registry: Registry
    vault: Vault
    identity: Identity
    background: bool = False  # try services that do not answer in threads, not in the next round; only in real time
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """Limits of what an entity publishes, reports and accepts."""

    verified_only: bool = False  # discover only records that the hub has verified
    report: bool = True  # round and evaluation to the registry, and reasons with deliveries
    transfer_dtype: Literal["float32", "bfloat16"] = "float32"  # of published weights
    counts: Counts = "exact"  # of training samples, in each class and in all, in records; "rounded" to tens
    approve: Approve = lambda evaluation, round: True  # called before each publication
