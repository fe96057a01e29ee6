"""Run folders: made, named, and found again."""

import json
from datetime import UTC, datetime
from pathlib import Path

from kuber.errors import SettingsError
from kuber.settings import Settings

SETTINGS_FILE = "settings.json"


def open_run(settings: Settings | None, resume: Path | None, *, kind: str = "") -> tuple[Path, Settings]:
    """The folder and the settings of a new run, or of the earlier one to go on with.

    A new folder is named after time and scenario (`kind` joins the name) and holds the settings that were given.
    Raises SettingsError when the folder cannot be made, or is not one of a run.
    """
    if resume is not None:
        return resume.resolve(), settings_of(resume)
    assert settings is not None
    return new_folder(settings, settings.strategy, f"seed{settings.seed}", *filter(None, [kind])), settings


def new_folder(settings: Settings, *words: str) -> Path:
    """A new folder named after the time, the data set and these words; it holds the settings that were given."""
    stem = "-".join([f"{datetime.now(UTC):%Y%m%d-%H%M%S}", Path(settings.dataset).stem, *words])
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
        (folder / SETTINGS_FILE).write_text(f"{told}\n", encoding="utf-8")
        return folder.resolve()
    raise SettingsError(f"There are too many runs named {stem} in {settings.runs_dir}.")


def settings_of(folder: Path) -> Settings:
    """The settings a run folder was made with; SettingsError when it is none."""
    path = folder / SETTINGS_FILE
    try:
        return Settings.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        raise SettingsError(f"{folder} is not the folder of a run: it has no readable {SETTINGS_FILE}.") from None
