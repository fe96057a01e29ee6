"""Free space that a vault leaves on its disk, for the databases of the hub and for whatever else is there."""

import shutil
from collections.abc import Callable
from pathlib import Path

from kuber.errors import InsufficientStorageError

MOST_KEPT = 1 << 30  # bytes, if the operator names no number
SHARE_KEPT = 20  # one part of so many of the disk, if that is less


class FreeDisk:
    """Free space of the disk with a folder, of which some is kept. Safe to use from several threads."""

    def __init__(self, folder: Path, keep: int | None = None, *, free: Callable[[], int] | None = None) -> None:
        """`keep` is how many bytes stay free, by default a twentieth of the disk, at most MOST_KEPT."""
        self.folder = folder
        self.keep = keep if keep is not None else min(MOST_KEPT, shutil.disk_usage(folder).total // SHARE_KEPT)
        self._free = free

    @property
    def free(self) -> int:
        """Free bytes, for this process."""
        return self._free() if self._free is not None else shutil.disk_usage(self.folder).free

    def check(self, size: int) -> None:
        """Raise InsufficientStorageError when this many bytes more would leave too few free."""
        if self.keep and self.free - size < self.keep:
            raise InsufficientStorageError(
                f"The vault has no space for the blob: it leaves {self.keep} bytes of its disk free; "
                "free some space there and send it again."
            )
