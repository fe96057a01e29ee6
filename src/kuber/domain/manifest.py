"""Reading the header of a safetensors file without loading a tensor library.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
from math import prod
from typing import Any

from kuber.domain.knowledge import TensorSpec

HEADER_LIMIT = 1_000_000  # bytes; a network of ten thousand tensors stays below it
PREFIX_LENGTH = 8
_DIMENSIONS = 16  # multiplying the lengths of a shape of 1 MB takes seconds
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
_BITS |= {"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64}


def header_length(prefix: bytes) -> int:
    """How many bytes of JSON follow the first eight. ValueError when they announce none, or more than allowed."""
    if len(prefix) < PREFIX_LENGTH:
        raise ValueError("a safetensors file is longer than 8 bytes")
    length = int.from_bytes(prefix[:PREFIX_LENGTH], "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise ValueError(f"a safetensors header has 2 to {HEADER_LIMIT} bytes, not {length}")
    return length


def read_manifest(header: bytes, *, size: int) -> dict[str, TensorSpec]:
    """The tensors that the JSON `header` of a file of `size` bytes announces.

    Raises ValueError unless the tensors fill the file exactly: no gap, no overlap, nothing left over.
    """
    try:
        entries = json.loads(header)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("the safetensors header is not JSON") from None
    if not isinstance(entries, dict):
        raise ValueError("the safetensors header is not a JSON object")
    entries.pop("__metadata__", None)
    spans = []
    manifest = {}
    for name, entry in entries.items():
        spec, begin, end = _tensor(name, entry)
        if end - begin != prod(spec.shape) * _BITS[spec.dtype] // 8:
            raise ValueError(f"tensor {name!r} has other bytes than its dtype and shape say")
        manifest[name] = spec
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError("the tensors of a safetensors file follow each other without gap or overlap")
        position = end
    if PREFIX_LENGTH + len(header) + position != size:
        raise ValueError("a safetensors file ends with its last tensor")
    return manifest


def _tensor(name: str, entry: Any) -> tuple[TensorSpec, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets") from None
    numbers = [begin, end, *shape] if isinstance(shape, list) and len(shape) <= _DIMENSIONS else [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not isinstance(dtype, str):
        raise ValueError(f"tensor {name!r} has a dtype, shape or data_offsets that is none")
    return TensorSpec(dtype=dtype, shape=tuple(shape)), begin, end
