"""Storage of one entity: checkpoints, event log, blobs and idle weights."""

from dataclasses import dataclass, field

from kuber.entity.state.blob_cache import BlobCache, PendingBlobs
from kuber.entity.state.checkpoint import CheckpointStore
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
