"""The curves of a run as TensorBoard logs."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kuber.errors import SettingsError
from kuber.integrations.scalars import PAUSE, Traffic, looks, scalars


def write(run_dir: Path, to: Path, *, follow: bool = False, pause: float = PAUSE) -> int:
    """Write the scalars of a run, a folder for each entity, over its rounds; how many there were.

    With `follow` it goes on until the run has ended. Raises SettingsError when `run_dir` is no run folder, `to` is
    neither new nor empty, or TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError("TensorBoard is not installed: pip install 'kuber[tensorboard]'.") from None
    parts, total, count = looks(run_dir, follow=follow, pause=pause), Traffic(), 0
    _prepare(to)
    writers: dict[str, Any] = {}
    try:
        for events in parts:
            for scalar in scalars(events, total):
                if scalar.entity not in writers:
                    writers[scalar.entity] = SummaryWriter(str(to / _folder(scalar.entity)))
                time = scalar.time.timestamp()
                writers[scalar.entity].add_scalar(scalar.name, scalar.value, scalar.round, time)
                count += 1
            for writer in writers.values():
                writer.flush()
    finally:
        for writer in writers.values():
            writer.close()
    return count


def _prepare(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
        empty = next(to.iterdir(), None) is None
    except OSError as error:
        raise SettingsError(f"The folder {to} cannot be made: {error.strerror}.") from None
    if not empty:
        raise SettingsError(f"{to} is not empty, and curves would be drawn twice; give a new folder.")


def _folder(entity: str) -> str:
    """A folder name of its own for each name."""
    name = re.sub(r"[^\w. -]", lambda found: quote(found[0], safe=""), entity)
    return name if name.strip(". ") else f"%{name}"
