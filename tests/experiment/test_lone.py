"""Registry, vault and entities started by hand, as README shows."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

SETTINGS = ["--dataset", "digits", "--architecture", "mlp", "--learning-rate", "0.1", "--batch-size", "16"]
SETTINGS += ["--num-entities", "2", "--num-rounds", "3", "--local-epochs", "2"]


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "kuber", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def address(service: subprocess.Popen) -> str:
    return service.stdout.readline().split()[-1]


def test_three_kinds_of_process_started_by_hand_work_together(start, tmp_path):
    vault = address(start("vault", "--port", "0"))
    registry = address(start("registry", "--port", "0", "--vault", vault))
    hub = ["--registry", registry, "--vault", vault]
    entities = [start("entity", str(index), *SETTINGS, *hub) for index in (0, 1)]
    for entity in entities:
        out, err = entity.communicate(timeout=120)
        assert entity.returncode == 0, err
        assert "on the common test set" in out
    members = httpx.get(f"{registry}/v1/entities").json()["items"]
    assert sorted(member["name"] for member in members) == ["0", "1"]
    records = httpx.get(f"{registry}/v1/knowledge").json()["items"]
    assert {record["entity"] for record in records} == {member["id"] for member in members}
    for record in records:
        artifact = record["artifacts"]["weights"]
        blob = httpx.get(f"{vault}/v1/blobs/{artifact['digest']}").content
        assert len(blob) == artifact["size"]


def test_an_entity_killed_by_hand_goes_on_from_its_folder(start, tmp_path):
    vault = address(start("vault", "--port", "0"))
    registry = address(start("registry", "--port", "0", "--vault", vault))
    hub = ["--registry", registry, "--vault", vault]
    entity = start("entity", "1", *SETTINGS, "--num-rounds", "4", *hub)
    while "round 1" not in (line := entity.stderr.readline()):
        assert line, "the entity ended early"
    entity.kill()
    (folder,) = Path(tmp_path, "runs").iterdir()
    again = start("entity", "1", "--resume", str(folder), *hub)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["round"] for event in events if event["kind"] == "round-ended"] == [1, 2, 3, 4]
    published = [event["detail"]["knowledge"] for event in events if event["kind"] == "published"]
    records = httpx.get(f"{registry}/v1/knowledge").json()["items"]
    assert sorted(record["id"] for record in records) == sorted(published)


def test_a_vault_is_no_registry(start):
    vault = address(start("vault", "--port", "0"))
    entity = start("entity", "0", *SETTINGS, "--registry", vault, "--vault", vault)
    _, err = entity.communicate(timeout=60)
    assert entity.returncode == 4
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "registry" in sentence
