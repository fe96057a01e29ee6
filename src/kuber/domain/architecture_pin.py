"""Pins of architectures, as an operator lists them."""

from collections.abc import Mapping
from dataclasses import dataclass

from kuber.domain.knowledge import Argument


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitecturePin:
    """One name and its arguments, pinned to the tensors of the records that have them."""

    pin: str  # digest of name and arguments, as hex digits
    name: str
    arguments: Mapping[str, Argument]
    records: int  # visible ones; without one the next publisher decides
