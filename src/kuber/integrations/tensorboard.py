"""Export of a run's curves to TensorBoard."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kuber.entity.state.entity_folder import MAX_BYTES, quoted
from kuber.errors import SettingsError, first_line
from kuber.integrations.scalars import PAUSE, Traffic, event_batches, scalars


def write(run_dir: Path, to: Path, *, follow: bool = False, pause: float = PAUSE) -> int:
    """Write the scalars of a run over its rounds, a folder for each entity; return how many.

    With `follow` it continues until the run ends. Raises SettingsError when `run_dir` is not a run folder, `to` is
    not empty, or TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError("TensorBoard is not installed: pip install 'kuber[tensorboard]'.") from None
    batches, total, count = event_batches(run_dir, follow=follow, pause=pause), Traffic(), 0
    _prepare(to)
    writers: dict[str, Any] = {}
    with _translate_errors(to), ExitStack() as stack:
        for events in batches:
            for scalar in scalars(events, total):
                if scalar.entity not in writers:
                    writers[scalar.entity] = SummaryWriter(str(to / _folder(scalar.entity)))
                    stack.callback(writers[scalar.entity].close)
                time = scalar.time.timestamp()
                writers[scalar.entity].add_scalar(scalar.name, scalar.value, scalar.round, time)
                count += 1
            for writer in writers.values():
                writer.flush()
    return count


@contextmanager
def _translate_errors(to: Path) -> Iterator[None]:
    """Raise what writing raises, such as that of a full disk, as SettingsError of one sentence."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"The curves cannot be written to {to}: {first_line(error)}.") from None


def _prepare(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
        empty = next(to.iterdir(), None) is None
    except OSError as error:
        raise SettingsError(f"The folder {to} cannot be made: {error.strerror}.") from None
    if not empty:
        raise SettingsError(f"{to} is not empty, so curves would be drawn twice; name a new folder.")


def _folder(entity: str) -> str:
    """Return a valid folder name, different for each entity."""
    name = re.sub(r"[^\w. -]", lambda found: quote(found[0], safe=""), entity)
    if len(name.encode(errors="surrogatepass")) > MAX_BYTES:
        return f"%{quoted(entity)}"
    return name if name.strip(". ") else f"%{name}"
