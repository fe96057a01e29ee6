"""Folders of entities with custom loops: one for each name, and one object at a time."""

import gc
import json
import os
import subprocess
import sys
import unicodedata
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

import kuber
from kuber.entity.state.entity_folder import FolderClaim, default_folder, quoted
from kuber.errors import SettingsError

NAMES = [
    *("ward 7", "ward_7", "ward/7", "ward\\7", "ward:7", "Ward_7", "WARD_7", "ward_7.", "ward_7 ", " ward_7"),
    *("..", ".", "...", "con", "CON", "con.txt", "nul", "COM1", "~", "a~b", "-", "--help", ".hidden"),
    *("станция " * 20, "станция " * 21, "ä" * 150, "é", unicodedata.normalize("NFD", "é"), "x" * 200, "x" * 199),
    *("\udcff", "日本", "日本 ", "ward%207", "entity.json", "a" * 100, "a" * 101),
]


def test_every_name_has_a_folder_of_its_own():
    found = [quoted(name) for name in NAMES]
    for (one, first), (other, second) in combinations(zip(NAMES, found, strict=True), 2):
        assert first.casefold() != second.casefold(), (one, other)
    for name in found:
        assert name not in (".", "..")
        assert len(os.fsencode(name)) <= 100
        assert Path(name).name == name
        assert name.isascii()


@pytest.mark.parametrize("name", ["alice", "ward_7", "site-3", "hospital.north", "0"])
def test_a_plain_name_is_that_of_its_folder(name):
    assert default_folder(name) == Path("entities", name)


def test_a_folder_of_an_earlier_version_is_used_further(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "entities" / "ward_7"
    folder.mkdir(parents=True)
    event = {"time": "2026-01-01T00:00:00Z", "entity": "ward 7", "seq": 0, "round": 0, "kind": "joined", "detail": {}}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    assert default_folder("ward 7") == Path("entities/ward_7")
    assert default_folder("ward/7") != Path("entities/ward_7")
    with pytest.raises(SettingsError, match="is that of entity 'ward 7', not of 'ward_7'"):
        FolderClaim(default_folder("ward_7"), "ward_7")


def enter(folder, name="one", **more):
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    task = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))
    fields = {"model": nn.Linear(4, 2), "task": task, "validation": (x, y), "hub": kuber.memory_hub()}
    return kuber.Entity(name, **(fields | {"formats": ("weights",), "folder": folder} | more))


def test_one_folder_has_one_entity(tmp_path):
    enter(tmp_path, "one").close()
    with pytest.raises(SettingsError, match=r"folder .* is that of entity 'one', not of 'two'"):
        enter(tmp_path, "two")
    enter(tmp_path, "one").close()


def test_a_folder_in_use_is_refused_until_the_other_is_closed(tmp_path):
    first = enter(tmp_path)
    with pytest.raises(SettingsError, match=r"in use by another Entity.*close\(\) that one first"):
        enter(tmp_path)
    first.close()
    first.close()
    enter(tmp_path).close()


def test_an_entity_that_nothing_refers_to_releases_its_folder(tmp_path):
    enter(tmp_path).step()
    gc.collect()
    enter(tmp_path).close()


def test_a_constructor_that_fails_releases_the_folder(tmp_path):
    with pytest.raises(SettingsError, match="no port"):
        enter(tmp_path, hub="http://hub.example")
    enter(tmp_path).close()


@pytest.mark.process
def test_another_process_is_refused(tmp_path):
    claim = FolderClaim(tmp_path, "one")
    code = (
        "from pathlib import Path; from kuber.entity.state.entity_folder import FolderClaim; "
        f"FolderClaim(Path({str(tmp_path)!r}), 'one')"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "in use by another Entity" in refused.stderr
    claim.release()
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.process
def test_a_forked_worker_does_not_release_the_folder(tmp_path):
    claim = FolderClaim(tmp_path, "one")
    child = os.fork()
    if child == 0:
        claim.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(SettingsError, match="in use"):
        FolderClaim(tmp_path, "one")
    claim.release()


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=r"folder .*file.* cannot be used"):
            enter(folder)
    with pytest.raises(SettingsError, match="folder is a int"):
        enter(3)


def test_a_damaged_folder_is_named(tmp_path):
    enter(tmp_path).close()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(SettingsError, match=r"folder .* cannot be resumed"):
        enter(tmp_path)


def test_names_that_look_alike_are_different_entities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub = kuber.memory_hub()
    names = ("ward 7", "ward_7", "ward/7", "..", "станция " * 20)
    for name in names:
        with enter(None, name, hub=hub) as entity:
            assert entity.publish()
    kept = sorted(name.strip() for name in names)  # a hub keeps a name without blanks around it
    assert sorted(member.name for member in hub[0].members().items) == kept
    assert len(list((tmp_path / "entities").iterdir())) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["entities"]
