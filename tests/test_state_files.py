"""Files that KUber keeps: each that is empty, garbage, a folder or unreadable gives one sentence that names it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import kuber
from kuber.cli.hub_options import token_in
from kuber.client.credentials import Credentials
from kuber.client.key_rotation import change_key
from kuber.client.known_hubs import KnownHubs
from kuber.domain.auth import Scope
from kuber.domain.event import utc_now
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import EventLog, EventTail, rewind
from kuber.entity.state.pinned_keys import read_pinned_keys
from kuber.errors import KUberError
from kuber.experiment import run_folder
from kuber.experiment.comparison.compare import open_comparison, stored_row
from kuber.experiment.held_out import stored_weights
from kuber.experiment.run.runner import runtime_for
from kuber.experiment.world.config import read_world
from kuber.learning.architectures import describe
from kuber.services.backup_manifest import last_backup, read_manifest
from kuber.services.db.database import Database
from kuber.services.http.auth import hub_secret
from kuber.services.http.server import _tls
from kuber.services.registry.access import RegistryAccess
from kuber.services.vault.app import open_vault
from kuber.services.vault.filesystem import FilesystemStorage
from kuber.settings import load
from kuber.signing import Identity
from kuber.transport.certificates import trusted
from kuber.views.run_index import read_run

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff{[garbage" * 40),
    "another program's JSON": lambda path: path.write_bytes(b'{"version": [1, null], "name": {}}\n'),
    "a number": lambda path: path.write_bytes(b"7\n"),
    "a folder": lambda path: path.mkdir(),
    "unreadable": lambda path: path.symlink_to("/proc/self/mem"),  # root may read any file, but not this one
}


@dataclass(frozen=True)
class StateFile:
    """A file, and what reads it; `mended` damages are put right or do no harm."""

    name: str
    read: Callable[[Path], object]
    mended: tuple[str, ...] = ()


ALL = tuple(DAMAGES)
TEXTS = ("empty", "garbage", "another program's JSON", "a number")
ARCHITECTURE = describe("mlp", {"input_shape": (3,), "classes": 3})


def registry_token(path: Path) -> object:
    database = Database(path.parent / "registry.sqlite", history="registry")
    try:
        return RegistryAccess(database, clock=utc_now, ids=str).load_or_create_token(path, Scope.ADMIN)
    finally:
        database.close()


def database(path: Path) -> None:
    Database(path, history="registry").close()


def vault_in(path: Path) -> object:
    with open_vault(path.parent, registry="http://127.0.0.1:1", secret="s" * 32) as app:
        return app


def log_to(path: Path) -> None:
    EventLog(path, clock=utc_now).close()


def at_work(path: Path) -> None:
    with run_folder.at_work(path.parent):
        pass


def own_loop(path: Path) -> None:
    kuber.Entity(
        "ann",
        model=torch.nn.Linear(2, 2),
        task=kuber.Task(name="sides", labels=("left", "right"), input_shape=(2,)),
        validation=(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])),
        hub=kuber.memory_hub(),
        folder=path.parent,
        formats=("weights",),
    ).close()


FILES = [
    StateFile("secret", hub_secret),
    StateFile("admin-token", token_in, mended=("a number",)),  # the registry refuses it
    StateFile("admin-token", registry_token, mended=TEXTS),
    StateFile("registry.sqlite", database, mended=("empty",)),
    StateFile("vault.sqlite", vault_in, mended=("empty",)),
    StateFile("mark", lambda path: FilesystemStorage(path.parent).storage_id(), mended=("a number",)),
    StateFile("backup.json", lambda path: read_manifest(path.parent)),
    StateFile("last-backup.json", lambda path: last_backup(path.parent)),
    StateFile("key", Identity.load_or_create),
    StateFile("token", lambda path: Credentials(path=path), mended=("empty", "a number")),
    StateFile("hubs.json", lambda path: KnownHubs(path).addresses),
    StateFile("key.next", lambda path: change_key(path.parent, "a", "http://127.0.0.1:1", patience=0)),
    StateFile("checkpoint.safetensors", lambda path: Checkpoints(path.parent).latest()),
    StateFile("checkpoint.safetensors", lambda path: Checkpoints(path.parent, holds_weights=False).latest()),
    StateFile("checkpoint.safetensors", own_loop),
    StateFile("checkpoint.safetensors", lambda path: read_pinned_keys(path.parent)),
    StateFile("round-0001.safetensors", lambda path: stored_weights(path, ARCHITECTURE)),
    StateFile("events.jsonl", lambda path: rewind(path, reached={}), mended=("empty",)),
    StateFile("events.jsonl", log_to, mended=(*TEXTS, "unreadable")),
    StateFile("events.jsonl", lambda path: EventTail(path).read(), mended=("empty",)),
    StateFile("events.jsonl", own_loop, mended=("empty",)),
    StateFile("entity.json", own_loop, mended=ALL),
    StateFile("entity.lock", own_loop, mended=(*TEXTS, "unreadable")),
    StateFile("key", own_loop),
    StateFile("settings.json", lambda path: run_folder.settings_of(path.parent)),
    StateFile("runtime.json", lambda path: runtime_for(path.parent, None)),
    StateFile("lock", at_work, mended=TEXTS),
    StateFile("comparison.json", lambda path: open_comparison(None, path.parent)),
    StateFile("local-seed0.json", stored_row),
    StateFile("kuber.toml", lambda path: load({}, file=path), mended=("empty",)),
    StateFile("world.toml", lambda path: read_world(str(path)), mended=("empty",)),
    StateFile("ca.pem", lambda path: trusted(path)),
    StateFile("chain.pem", lambda path: _tls(path, path.with_name("key.pem"))),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_damaged_file_is_one_sentence(file: StateFile, damage: str, tmp_path: Path) -> None:
    if damage == "unreadable" and not Path("/proc/self/mem").exists():
        pytest.skip("there is no file here that root cannot read")
    if file.name == "key.next":
        Identity.load_or_create(tmp_path / "key")
    if file.name == "comparison.json":
        (tmp_path / "settings.json").write_text("{}")
    path = tmp_path / file.name
    DAMAGES[damage](path)
    if damage in file.mended:
        file.read(path)
        return
    with pytest.raises(KUberError) as caught:
        file.read(path)
    message = caught.value.message
    assert file.name in message or str(tmp_path) in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["settings.json", "events.jsonl", "result.json", "comparison.json", "lock"])
def test_the_index_of_runs_lists_a_run_with_a_damaged_file(name: str, damage: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / name).unlink(missing_ok=True)
    DAMAGES[damage](tmp_path / name)
    run = read_run(tmp_path)
    assert run is not None
    assert run.status in ("interrupted", "unreadable")
    assert run.message is None or "\n" not in run.message
