"""Digest of a blob: the SHA-256 of its bytes, under which it is stored."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """A SHA-256 digest, written `sha256:<64 lower-case hex digits>`; safe to use in a path or URL.

    Raises ValueError for other digits.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError("a digest is sha256: followed by 64 lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest written as `text`. ValueError when it is none."""
        algorithm, _, digits = text.partition(":")
        if algorithm != "sha256":
            raise ValueError("a digest is sha256: followed by 64 lower-case hex digits")
        return cls(digits)

    @classmethod
    def of(cls, *chunks: bytes | memoryview) -> Self:
        """Return the digest of these bytes, concatenated."""
        sha = hashlib.sha256()
        for chunk in chunks:
            sha.update(chunk)
        return cls(sha.hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
