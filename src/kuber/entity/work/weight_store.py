"""Where an entity's weights lie while it waits: in its memory, or wherever a simulation of thousands puts them."""

from typing import Protocol

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture
from kuber.learning.weights import Weights, load


class WeightStore(Protocol):
    """Finds room for weights. Nobody writes to weights that have one."""

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        """As `kuber.learning.weights.load`, of the blob with this digest."""
        ...

    def keep(self, weights: Weights) -> Weights:
        """The same weights, perhaps elsewhere."""
        ...


class MemoryWeightStore:
    """Leaves weights where they are."""

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        return load(data, architecture)

    def keep(self, weights: Weights) -> Weights:
        return weights
