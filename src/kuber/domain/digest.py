"""The name of a blob: the SHA-256 of its bytes."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """A SHA-256 digest, written `sha256:<64 lower-case hex digits>`.

    Raises ValueError when made from anything else, so a Digest in hand is always safe to use in a path or URL.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError("a digest is sha256: followed by 64 lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest written as `text`; ValueError when it is not one."""
        algorithm, _, digits = text.partition(":")
        if algorithm != "sha256":
            raise ValueError("a digest is sha256: followed by 64 lower-case hex digits")
        return cls(digits)

    @classmethod
    def of(cls, *chunks: bytes | memoryview) -> Self:
        """The digest of these bytes, taken one after the other."""
        sha = hashlib.sha256()
        for chunk in chunks:
            sha.update(chunk)
        return cls(sha.hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
