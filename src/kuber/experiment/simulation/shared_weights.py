"""Memory shared by simulated entities and workers: the blobs of their vault, and idle weights."""

import weakref

from torch import Tensor

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture
from kuber.experiment.engines.mapped_memory import Block, MappedMemoryWriter
from kuber.learning.weights import Weights, load


class MappedBlobBytes:
    """The bytes of a `MemoryVault`, in mapped memory."""

    def __init__(self, memory: MappedMemoryWriter) -> None:
        self._memory = memory
        self._blocks: dict[Digest, Block] = {}

    def store(self, digest: Digest, data: bytes) -> None:
        self._blocks[digest] = self._memory.write([memoryview(data)])[0]._replace(size=len(data))

    def head(self, digest: Digest, length: int) -> bytes:
        return self._memory.read(self._blocks[digest], length)


class MappedWeightStore:
    """The `WeightStore` of all simulated entities, in mapped memory; a model that several pulled is stored once."""

    def __init__(self, memory: MappedMemoryWriter) -> None:
        self._memory = memory
        self._loaded: dict[Digest, tuple[Architecture, dict[str, weakref.ref[Tensor]]]] = {}

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        known, references = self._loaded.get(digest, (None, {}))
        if known == architecture:
            tensors = {name: reference() for name, reference in references.items()}
            weights = {name: tensor for name, tensor in tensors.items() if tensor is not None}
            if len(weights) == len(tensors):
                self._memory.note_read(len(data))  # by the entity that merges them
                return weights
        weights = self.keep(load(data, architecture))
        references = {name: weakref.ref(tensor) for name, tensor in weights.items()}
        self._loaded[digest] = architecture, references
        first = next(iter(weights.values()), None)
        if first is not None:  # once it is freed, the weights cannot be returned again
            weakref.finalize(first, self._forget, digest, references).atexit = False
        return weights

    def _forget(self, digest: Digest, references: dict[str, weakref.ref[Tensor]]) -> None:
        if self._loaded.get(digest, (None, None))[1] is references:
            del self._loaded[digest]

    def keep(self, weights: Weights) -> Weights:
        self._memory.note_read(sum(tensor.nbytes for tensor in weights.values()))
        return self._memory.keep(weights)
