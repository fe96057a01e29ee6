"""Digest of a network's tensors, by which an architecture without a name is known."""

import re

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, Manifest

LENGTH = 16  # hex digits
_STATED = re.compile(f"[0-9a-f]{{{LENGTH}}}")


def tensors_digest(manifest: Manifest) -> str:
    """Return the digest of the tensors' names, dtypes and shapes."""
    lines = (f"{tensor} {spec.dtype} {tuple(spec.shape)}" for tensor, spec in sorted(manifest.items()))
    return Digest.of("\n".join(lines).encode(errors="replace")).hex[:LENGTH]


def stated_tensors(architecture: Architecture) -> str | None:
    """Return the digest of the tensors that the architecture's arguments state; None if they state none."""
    stated = architecture.arguments.get("tensors")
    return stated if isinstance(stated, str) and _STATED.fullmatch(stated) else None
