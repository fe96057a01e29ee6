"""Run folders: create, name, resume and lock them."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kuber.data.common_test_set import with_effective_sizes
from kuber.data.datasets import Echo, load_dataset
from kuber.errors import KUberError, SettingsError
from kuber.files import try_lock, write_atomically
from kuber.settings import Settings
from kuber.views.run_index import LOCK_FILE, NAME_TIME_FORMAT, SETTINGS_FILE

if TYPE_CHECKING:  # torch would delay the start of `kuber run`
    from kuber.learning.runtime import Runtime

RUNTIME_FILE = "runtime.json"
LOCK_TIMEOUT = 0.5  # seconds; listing runs locks each of them for a moment


def open_run(
    settings: Settings | None, resume: Path | None, *, kind: str = "", echo: Echo = lambda _: None
) -> tuple[Path, Settings]:
    """Return the folder and the settings of a new run, or of the earlier run to resume.

    A new folder is named after the time, the settings and `kind`, and holds the settings without defaults.
    Raises SettingsError if the folder cannot be created, or is not that of a run.
    """
    if resume is not None:
        return resume.resolve(), settings_of(resume)
    assert settings is not None
    settings = within_dataset(settings, echo)
    return new_folder(settings, settings.strategy, f"seed{settings.seed}", *filter(None, [kind])), settings


def within_dataset(settings: Settings, echo: Echo = lambda _: None) -> Settings:
    """Return the settings to record: a preset's train_size is lowered to what the data set holds."""
    if not settings.is_from_preset("train_size"):
        return settings
    dataset = load_dataset(
        settings.dataset, data_dir=settings.data_dir, cache_dir=settings.cache_dir, verify=False, echo=echo
    )
    return with_effective_sizes(settings, dataset)


def new_folder(settings: Settings, *words: str) -> Path:
    """Create a folder named after the time, the data set and these words; write the settings without defaults."""
    stem = "-".join([f"{datetime.now(UTC):{NAME_TIME_FORMAT}}", Path(settings.dataset).stem, *words]).replace(
        "/", "_"
    )
    for number in range(1000):
        folder = settings.runs_dir / (f"{stem}-{number}" if number else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise SettingsError(f"The run folder {folder} cannot be created: a file has that name.") from None
        except OSError as error:
            raise SettingsError(f"The run folder {folder} cannot be created: {error.strerror}.") from None
        content = settings.model_dump_json(exclude_unset=True, indent=2)
        write_atomically(folder / SETTINGS_FILE, f"{content}\n".encode(), durable=False)
        return folder.resolve()
    raise SettingsError(f"There are too many runs named {stem} in {settings.runs_dir}.")


def settings_of(folder: Path) -> Settings:
    """Return the settings of a run. Raises SettingsError if this is not the folder of a run."""
    path = folder / SETTINGS_FILE
    try:
        return Settings.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        raise SettingsError(f"{folder} is not the folder of a run: it has no readable {SETTINGS_FILE}.") from None


def write_runtime(folder: Path, runtime: "Runtime") -> None:
    """Record device, precision and threads of a run."""
    (folder / RUNTIME_FILE).write_text(json.dumps(asdict(runtime)) + "\n", encoding="utf-8")


def recorded_runtime(folder: Path) -> "Runtime | None":
    """Return device, precision and threads of a run; None for a new one. Raises SettingsError for a damaged file."""
    from kuber.learning.runtime import Runtime
    from kuber.views.result import parsed

    path = folder / RUNTIME_FILE
    try:
        return parsed(Runtime, path.read_bytes(), what="a runtime")
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except ValueError:
        reason = "it does not say device, precision and threads"
    raise SettingsError(f"{path} cannot be used: {reason}. Remove it, and they are chosen again.")


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Lock a run folder while this process works in it. Listings of runs see the lock, which ends with the process.

    A new folder is removed if an error occurs before anything was written to it. Raises SettingsError if another
    process works there.
    """
    before = _names(folder)
    try:
        file = (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise SettingsError(f"The run folder {folder} cannot be written: {error.strerror}.") from None
    with file:
        limit = time.monotonic() + LOCK_TIMEOUT
        while not try_lock(file.fileno()):
            if time.monotonic() > limit:
                raise SettingsError(f"Another process works in {folder}; wait until it ends, or stop it.")
            time.sleep(0.02)
        try:
            yield
        except KUberError:
            if LOCK_FILE not in before and _names(folder) == before | {LOCK_FILE}:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
