"""Artifact kinds, and the check of the bytes of each: without loading them, in constant memory."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from kuber.domain.knowledge import ONNX, WEIGHTS, Manifest
from kuber.domain.onnx_header import check_graph
from kuber.domain.safetensors_header import PREFIX_LENGTH, header_length, read_spans
from kuber.domain.tensor_dtypes import BOOLEAN

PIECE = 1 << 18  # bytes checked at once; a multiple of every width below

Read = Callable[[int], bytes]
"""Returns the next so many bytes of a file, fewer only at its end."""


def check_artifact(kind: str, read: Read, size: int) -> Manifest | None:
    """Read a file of `size` bytes from its start; return the manifest of weights, None for other kinds.

    `kind` is one of KINDS. Raises ValueError unless the file is a valid artifact of this kind.
    """
    return KINDS[kind](read, size)


def _check_weights(read: Read, size: int) -> Manifest:
    """Read a safetensors file whose numbers are all finite, and whose booleans are 0 or 1."""
    length = header_length(read(PREFIX_LENGTH))
    spans = read_spans(read(length), size=size)
    for span in spans:
        floats = _FLOATS.get(span.spec.dtype)
        left = span.end - span.begin
        while left:
            piece = read(min(left, PIECE))
            if not piece:
                raise ValueError("the file ends within a tensor")
            if floats is not None and not floats.all_finite(piece):
                raise ValueError(f"tensor {span.name[:100]!r} holds a number that is not finite")
            if span.spec.dtype == BOOLEAN and piece.strip(b"\0\1"):
                raise ValueError(f"tensor {span.name[:100]!r} holds a boolean that is neither 0 nor 1")
            left -= len(piece)
    return {span.name: span.spec for span in spans}


class _Floats:
    """Finiteness check for floats of one width: a number is not finite if every bit of its exponent is set.

    A whole piece is checked as one long integer; loading a tensor library would take longer.
    """

    def __init__(self, width: int, exponent: int) -> None:
        top = exponent >> (8 * width - 8)  # the exponent's bits in the last byte
        self._width = width
        self._suspect = [byte for byte in range(256) if byte & top == top]
        lowest = exponent & -exponent
        self._exponents, self._ones, self._signs = (
            int.from_bytes(bits.to_bytes(width, "little") * (PIECE // width), "little")
            for bits in (exponent, lowest, 1 << (8 * width - 1))
        )

    def all_finite(self, piece: bytes) -> bool:
        """Return whether all these little-endian numbers are finite."""
        last = piece[self._width - 1 :: self._width]
        if not any(byte in last for byte in self._suspect):  # the case for nearly all weights
            return True
        # Adding 1 to an exponent whose bits are all set carries into the sign bit.
        exponents = int.from_bytes(piece, "little") & self._exponents
        return not (exponents + self._ones) & self._signs & ((1 << 8 * len(piece)) - 1)


_FLOATS = {
    "F16": _Floats(2, 0x7C00),
    "BF16": _Floats(2, 0x7F80),
    "F32": _Floats(4, 0x7F800000),
    "F64": _Floats(8, 0x7FF0000000000000),
}
KINDS: Mapping[str, Callable[[Read, int], Manifest | None]] = MappingProxyType(
    {WEIGHTS: _check_weights, ONNX: check_graph}
)
