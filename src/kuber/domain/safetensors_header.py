"""Read the header of a safetensors file without loading a tensor library.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from kuber.domain.knowledge import Manifest, TensorSpec
from kuber.domain.tensor_dtypes import DTYPE_BYTES, MAX_DIMENSIONS

HEADER_LIMIT = 1_000_000  # bytes; enough for ten thousand tensors
PREFIX_LENGTH = 8
USUAL_HEADER = 1 << 16  # bytes read of a file at first; a longer header takes a second read


def header_length(prefix: bytes) -> int:
    """Return how many bytes of JSON follow the first eight. ValueError when they are none or too many."""
    if len(prefix) < PREFIX_LENGTH:
        raise ValueError("a safetensors file is longer than 8 bytes")
    length = int.from_bytes(prefix[:PREFIX_LENGTH], "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise ValueError(f"a safetensors header has 2 to {HEADER_LIMIT} bytes, not {length}")
    return length


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Position of a tensor, in bytes after the header; `end` is exclusive."""

    name: str
    spec: TensorSpec
    begin: int
    end: int


def read_file_manifest(head: Callable[[int], bytes], *, size: int) -> dict[str, TensorSpec]:
    """Read the tensors of a file of `size` bytes; `head(length)` returns its first bytes, or all of a shorter file.

    Raises ValueError as `read_manifest` does.
    """
    start = head(USUAL_HEADER)
    end = PREFIX_LENGTH + header_length(start)
    if end > len(start):
        start = head(end)
    return read_manifest(start[PREFIX_LENGTH:end], size=size)


def read_manifest(header: bytes, *, size: int) -> dict[str, TensorSpec]:
    """Return the tensors that the JSON `header` of a file of `size` bytes lists.

    Raises ValueError unless the tensors fill the file without gap, overlap or rest.
    """
    return {span.name: span.spec for span in read_spans(header, size=size)}


def read_spans(header: bytes, *, size: int) -> list[TensorSpan]:
    """Return the same tensors with their positions, in order of position."""
    try:
        entries = json.loads(header, object_pairs_hook=_distinct)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("the safetensors header is not JSON") from None
    if not header.startswith(b"{"):  # the format allows no leading blanks
        raise ValueError("the safetensors header is not a JSON object")
    notes = entries.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ValueError("the __metadata__ of a safetensors header maps texts to texts")
    spans = []
    for name, entry in entries.items():
        span = _tensor(name, entry)
        if span.end - span.begin != prod(span.spec.shape) * DTYPE_BYTES[span.spec.dtype]:
            raise ValueError(f"tensor {name[:100]!r} has other bytes than its dtype and shape need")
        spans.append(span)
    spans.sort(key=lambda span: (span.begin, span.end))
    position = 0
    for span in spans:
        if span.begin != position:
            raise ValueError("the tensors of a safetensors file must follow each other without gap or overlap")
        position = span.end
    if PREFIX_LENGTH + len(header) + position != size:
        raise ValueError("a safetensors file must end with its last tensor")
    return spans


def bfloat16_manifest(manifest: Manifest) -> dict[str, TensorSpec]:
    """Return the same tensors with bfloat16 for float32, as they may be published in half the bytes."""
    return {
        name: TensorSpec(dtype="BF16", shape=spec.shape) if spec.dtype == "F32" else spec
        for name, spec in manifest.items()
    }


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. ValueError for a repeated name, of which readers differ on the value that counts."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("the safetensors header gives a name twice")
    return entries


def _tensor(name: str, entry: Any) -> TensorSpan:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"tensor {name[:100]!r} lacks dtype, shape or data_offsets") from None
    # Multiplying the lengths of a shape of 1 MB would take seconds.
    numbers = [begin, end, *shape] if isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS else [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not isinstance(dtype, str):
        raise ValueError(f"tensor {name[:100]!r} has an invalid dtype, shape or data_offsets")
    return TensorSpan(name, TensorSpec(dtype=dtype, shape=tuple(shape)), begin, end)
