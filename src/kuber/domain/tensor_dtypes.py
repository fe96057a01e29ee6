"""Dtypes of the tensors that travel as weights: the one list that entities, hubs and verifiers check against."""

from collections.abc import Mapping
from types import MappingProxyType

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})  # whose numbers must be finite
BOOLEAN = "BOOL"  # one byte, 0 or 1

DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {BOOLEAN: 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
    | {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
)
"""Names as in safetensors -> bytes of one number. Not among them: complex numbers, and floats of 8 bits and fewer."""

MAX_TENSORS = 20_000
MAX_DIMENSIONS = 16  # of one tensor
MAX_TENSOR_NAME = 1000  # characters


def name_fault(name: str) -> str | None:
    """Return why a tensor cannot have this name in a record and in a file of weights; None if it can."""
    if len(name) > MAX_TENSOR_NAME:
        return f"its name is longer than {MAX_TENSOR_NAME} characters"
    if name == "__metadata__":
        return "its name is that of the notes in a safetensors file"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "its name is not valid Unicode"
    if "\0" in name:
        return "its name has the character NUL"
    return None
