"""Storage of one entity: checkpoints, event log, blobs and idle weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kuber.entity.state.blob_cache import BlobCache, PendingBlobs
from kuber.entity.state.checkpoint import Checkpoints, CheckpointStore
from kuber.entity.state.event_log import EventSink
from kuber.entity.work.weight_store import MemoryWeightStore, WeightStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Storage of everything that outlives a work step."""

    checkpoints: CheckpointStore
    event_log: EventSink
    pending: PendingBlobs | None = None  # to be sent to the vault; None: an unreachable vault is an error
    cache: BlobCache | None = None  # of pulled blobs
    weights: WeightStore = field(default_factory=MemoryWeightStore)  # of idle weights

    @classmethod
    def in_folder(
        cls, folder: Path, event_log: EventSink, *, cache_bytes: int = 0, holds_weights: bool = True
    ) -> Self:
        """Return the storage of an entity in its own folder, with a cache of at most `cache_bytes`, if any.

        With `holds_weights` the checkpoints hold the model, too.
        """
        return cls(
            checkpoints=Checkpoints(folder, holds_weights=holds_weights),
            event_log=event_log,
            pending=BlobCache(folder / "waiting"),
            cache=BlobCache(folder / "cache", limit=cache_bytes) if cache_bytes else None,
        )
