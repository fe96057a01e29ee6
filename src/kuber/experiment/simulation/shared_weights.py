"""What simulated entities share of memory: the blobs of their vault and the weights at rest, in one arena."""

import weakref

from torch import Tensor

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture
from kuber.experiment.engines.mapped_memory import Block, MappedMemoryWriter
from kuber.learning.weights import Weights, load


class MappedBlobBytes:
    """The bytes of a `MemoryVault`, in an arena."""

    def __init__(self, memory: MappedMemoryWriter) -> None:
        self._memory = memory
        self._blocks: dict[Digest, Block] = {}

    def keep(self, digest: Digest, data: bytes) -> None:
        self._blocks[digest] = self._memory.write([memoryview(data)])[0]._replace(size=len(data))

    def head(self, digest: Digest, length: int) -> bytes:
        return self._memory.read(self._blocks[digest], length)


class MappedWeightStore:
    """The `WeightStore` of all simulated entities: in an arena, and a model that many pulled only once."""

    def __init__(self, memory: MappedMemoryWriter) -> None:
        self._memory = memory
        self._loaded: dict[Digest, tuple[Architecture, dict[str, weakref.ref[Tensor]]]] = {}

    def load(self, digest: Digest, data: bytes, architecture: Architecture) -> Weights:
        known, held = self._loaded.get(digest, (None, {}))
        if known == architecture:
            there = {name: tensor() for name, tensor in held.items()}
            weights = {name: tensor for name, tensor in there.items() if tensor is not None}
            if len(weights) == len(there):
                self._memory.note_read(len(data))  # by whoever merges it
                return weights
        weights = self.keep(load(data, architecture))
        held = {name: weakref.ref(tensor) for name, tensor in weights.items()}
        self._loaded[digest] = architecture, held
        first = next(iter(weights.values()), None)
        if first is not None:  # without it nobody can be given these weights again
            weakref.finalize(first, self._forget, digest, held).atexit = False
        return weights

    def _forget(self, digest: Digest, held: dict[str, weakref.ref[Tensor]]) -> None:
        if self._loaded.get(digest, (None, None))[1] is held:
            del self._loaded[digest]

    def keep(self, weights: Weights) -> Weights:
        self._memory.note_read(sum(tensor.nbytes for tensor in weights.values()))
        return self._memory.keep(weights)
