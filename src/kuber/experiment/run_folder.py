"""Run folders: made, named, held while somebody is at work, and found again."""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kuber.data.common_test_set import with_effective_sizes
from kuber.data.datasets import Echo, load_dataset
from kuber.errors import KUberError, SettingsError
from kuber.files import write_atomically
from kuber.settings import Settings
from kuber.views import LOCK_FILE, NAME_TIME_FORMAT, SETTINGS_FILE

LOCK_TIMEOUT = 0.5  # seconds; whoever lists runs locks each of them for a moment


def open_run(
    settings: Settings | None, resume: Path | None, *, kind: str = "", echo: Echo = lambda _: None
) -> tuple[Path, Settings]:
    """Return the folder and the settings of a new run, or of the earlier run to resume.

    A new folder is named after time and scenario (`kind` joins the name) and holds the settings that were given.
    Raises SettingsError when the folder cannot be made, or is not one of a run.
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
    """A new folder named after the time, the data set and these words; it holds the settings that were given."""
    stem = "-".join([f"{datetime.now(UTC):{NAME_TIME_FORMAT}}", Path(settings.dataset).stem, *words])
    for number in range(1000):
        folder = settings.runs_dir / (f"{stem}-{number}" if number else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise SettingsError(f"The run folder {folder} cannot be made: a file is in the way.") from None
        except OSError as error:
            raise SettingsError(f"The run folder {folder} cannot be made: {error.strerror}.") from None
        told = settings.model_dump_json(exclude_unset=True, indent=2)
        write_atomically(folder / SETTINGS_FILE, f"{told}\n".encode(), durable=False)
        return folder.resolve()
    raise SettingsError(f"There are too many runs named {stem} in {settings.runs_dir}.")


def settings_of(folder: Path) -> Settings:
    """The settings a run folder was made with; SettingsError when it is none."""
    path = folder / SETTINGS_FILE
    try:
        return Settings.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        raise SettingsError(f"{folder} is not the folder of a run: it has no readable {SETTINGS_FILE}.") from None


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold a run folder while we are at work in it; whoever lists runs sees it, and sees when we were killed.

    A new one is taken away again when what was to be done in it is refused before anything was. Raises SettingsError
    when another is at work there.
    """
    made_with = _names(folder)
    try:
        file = (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise SettingsError(f"The run folder {folder} cannot be written: {error.strerror}.") from None
    with file:
        limit = time.monotonic() + LOCK_TIMEOUT
        while not _locked(file.fileno()):
            if time.monotonic() > limit:
                raise SettingsError(f"Another process is at work in {folder}; wait for its end, or stop it.")
            time.sleep(0.02)
        try:
            yield
        except KUberError:
            if LOCK_FILE not in made_with and _names(folder) == made_with | {LOCK_FILE}:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
