"""Storage of weights that are not in use: in memory, or shared by the entities of a simulation."""

from typing import Protocol

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture
from kuber.learning.weights import Weights, load


class WeightStore(Protocol):
    """Stores idle weights. Stored weights are read-only."""

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        """Return the weights in the blob with this digest, as `kuber.learning.weights.load` does."""

    def keep(self, weights: Weights) -> Weights:
        """Store weights and return the stored ones, which are equal."""


class MemoryWeightStore:
    """Leaves weights in the memory of the process."""

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        return load(data, architecture)

    def keep(self, weights: Weights) -> Weights:
        return weights
