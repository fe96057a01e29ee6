"""Run folders: their settings, and the lock of the process that works in them."""

import json
from pathlib import Path

import pytest

from kuber.errors import SettingsError
from kuber.experiment.run_folder import at_work, new_folder, settings_of
from kuber.settings import Settings
from kuber.views.run_index import is_at_work
from tests.fixtures.commands import Command

HOLD = """
import sys, time
from pathlib import Path
from kuber.experiment.run_folder import at_work
with at_work(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""


def test_a_folder_holds_the_settings_that_were_given(tmp_path: Path) -> None:
    folder = new_folder(Settings(runs_dir=tmp_path, num_rounds=3), "local")
    assert json.loads((folder / "settings.json").read_text()) == {"num_rounds": 3, "runs_dir": str(tmp_path)}
    assert settings_of(folder).num_rounds == 3
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    settings = Settings(runs_dir=tmp_path)
    assert len({new_folder(settings, "local") for _ in range(5)}) == 5


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with at_work(tmp_path):
        assert is_at_work(tmp_path)
        with pytest.raises(SettingsError, match="Another process works in"), at_work(tmp_path):
            pass
    assert not is_at_work(tmp_path)
    with at_work(tmp_path):
        assert is_at_work(tmp_path)


def refused(folder: Path, file: str | None = None) -> None:
    """Refuse a run, before or after it wrote a file."""
    with at_work(folder):
        if file is not None:
            (folder / file).touch()
        raise SettingsError("There are too many entities.")


def test_a_new_folder_is_removed_if_the_run_is_refused_before_it_writes(tmp_path: Path) -> None:
    settings = Settings(runs_dir=tmp_path)
    folder = new_folder(settings, "local")
    with pytest.raises(SettingsError, match="too many"):
        refused(folder)
    assert not folder.exists()
    begun = new_folder(settings, "local")
    with pytest.raises(SettingsError, match="too many"):
        refused(begun, "events.jsonl")
    assert begun.exists()
    (begun / "events.jsonl").unlink()
    with pytest.raises(SettingsError, match="too many"):
        refused(begun)  # a resumed run keeps its folder
    assert (begun / "settings.json").exists()


@pytest.mark.process
def test_a_killed_process_is_no_longer_at_work(tmp_path: Path) -> None:
    with Command(str(tmp_path), program=("-c", HOLD)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert is_at_work(tmp_path)
        process.kill()
    assert not is_at_work(tmp_path)


def test_a_missing_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be written: No such file"), at_work(tmp_path / "gone"):
        pass
