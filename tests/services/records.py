"""Task, architecture and weights that the tests of services publish."""

import json

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, TensorSpec
from kuber.domain.task import Task

TEST_SET = Digest.of(b"common test set")
TASK = Task(name="parity", labels=("even", "odd"), input_shape=(1, 2, 2), test_set=TEST_SET)
ARCHITECTURE = Architecture(
    name="line", arguments={"width": 4, "bias": True}, manifest={"w": TensorSpec(dtype="F32", shape=(2, 4))}
)


def safetensors_file(manifest, *, fill=0):
    """Return a safetensors file with these tensors, every byte `fill`."""
    header, position = {}, 0
    for name, spec in manifest.items():
        size = 4
        for length in spec.shape:
            size *= length
        header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes([fill]) * position
