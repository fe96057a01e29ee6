"""The curves of a run as TensorBoard logs."""

import re
from pathlib import Path
from typing import Any

from kuber.errors import SettingsError
from kuber.integrations.scalars import events_of, scalars


def write(run_dir: Path, to: Path, *, follow: bool = False) -> int:
    """Write the scalars of a run, a folder for each entity, over its rounds; how many there were.

    With `follow` it goes on until the run has ended. Raises SettingsError when `run_dir` is no run folder, `to` is
    not an empty or a new folder, or TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError("TensorBoard is not installed: pip install 'kuber[tensorboard]'.") from None
    events = events_of(run_dir, follow=follow)
    writers: dict[str, Any] = {}
    count = 0
    try:
        _prepare(to)
        for scalar in scalars(events):
            if scalar.entity not in writers:
                folder = to / (re.sub(r"[^\w.-]", "_", scalar.entity).strip(".") or "_")
                writers[scalar.entity] = SummaryWriter(str(folder), flush_secs=5)  # type: ignore[no-untyped-call]
            writer = writers[scalar.entity]
            writer.add_scalar(scalar.name, scalar.value, scalar.round, scalar.time.timestamp())
            count += 1
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
