"""Registry, vault and entities started one by one."""

import hashlib
import json
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.fixtures.commands import Command, called
from tests.fixtures.hub import unused_port

SETTINGS = ["--dataset", "digits", "--architecture", "mlp", "--learning-rate", "0.1", "--batch-size", "16"]
SETTINGS += ["--num-entities", "2", "--num-rounds", "3", "--local-epochs", "2"]


@pytest.fixture
def start(process, tmp_path):
    started = []

    def start(*arguments: str, **options) -> Command:
        started.append(Command(*arguments, folder=tmp_path, **options))
        return started[-1]

    yield start
    for command in started:
        command.terminate()
        command.close()


def bearer(hub) -> dict[str, str]:
    return {"Authorization": f"Bearer {hub.operator}"}


def test_processes_started_one_by_one_work_together(start, own_hub):
    hub = own_hub("--open-enrolment")
    entities = [
        start("entity", str(index), *SETTINGS, "--registry", hub.registry, "--vault", hub.vault) for index in (0, 1)
    ]
    for entity in entities:
        out, err = entity.communicate()
        assert entity.returncode == 0, err
        assert "on the common test set" in out
    members = httpx.get(f"{hub.registry}/v1/entities", headers=bearer(hub)).json()["items"]
    assert sorted(member["name"] for member in members) == ["0", "1"]
    records = httpx.get(f"{hub.registry}/v1/knowledge", headers=bearer(hub)).json()["items"]
    assert {record["entity"] for record in records} == {member["id"] for member in members}
    for record in records:
        artifact = record["artifacts"]["weights"]
        blob = httpx.get(f"{hub.vault}/v1/blobs/{artifact['digest']}", headers=bearer(hub)).content
        assert len(blob) == artifact["size"]


def test_an_entity_joins_only_with_an_invitation(start, own_hub, tmp_path):
    hub = own_hub()
    where = ["--registry", hub.registry, "--vault", hub.vault]
    uninvited = start("entity", "0", *SETTINGS, *where)
    _, err = uninvited.communicate()
    assert uninvited.returncode == 4
    assert "kuber hub invite 0" in err
    token = str(tmp_path / "registry" / "admin-token")
    operator = ["--registry", hub.registry, "--admin-token", token]
    invited = start("hub", "invite", "0", *operator)
    code, err = invited.communicate()
    assert invited.returncode == 0, err
    entity = start("entity", "0", *SETTINGS, "--num-rounds", "1", *where, "--invitation", code.strip())
    _, err = entity.communicate()
    assert entity.returncode == 0, err
    changed = start("entity", "0", "--registry", hub.registry, "--change-key")
    out, err = changed.communicate()
    assert changed.returncode == 0, err
    assert out.startswith("Entity 0 signs with ")
    again = start("entity", "0", *SETTINGS, "--num-rounds", "1", *where)  # its key is known by now
    _, err = again.communicate()
    assert again.returncode == 0, err
    out, _ = start("hub", "audit", *operator).communicate()
    acts = [line.split()[2] for line in out.splitlines()]
    assert acts[:2] == ["invite", "enrol"]
    assert set(acts[2:]) == {"publish", "report", "change-key"}


def test_without_a_key_none_can_be_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = called("entity", "0", "--change-key")
    assert (done.returncode, done.stderr) == (2, "error: " + done.stderr.removeprefix("error: "))
    assert "There is no key in identities/0 to replace" in done.stderr


KILLED = str(Path(__file__).parents[2] / "services" / "kill_points.py")
FEW = [">published", ">state"]
MORE = ["<published", ">discovered", ">pulled", ">attested", "<recorded", ">recorded"]
MORE += ["<event", ">event", "<state", ">round"]


@pytest.mark.parametrize("point", [*FEW, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE)])
def test_kill_9_at_a_point_loses_nothing_and_does_nothing_twice(start, own_hub, tmp_path, point):
    hub = own_hub("--open-enrolment")
    where = ["--registry", hub.registry, "--vault", hub.vault]
    teacher = start("entity", "0", *SETTINGS, "--strategy", "merge", *where)
    _, err = teacher.communicate()
    assert teacher.returncode == 0, err
    (first,) = Path(tmp_path, "runs").iterdir()
    times = "1" if point in (">pulled", ">attested") else "2"  # there is one teacher
    student = start("entity", "1", *SETTINGS, "--strategy", "merge", *where, program=(KILLED, point, times))
    student.communicate()
    assert student.returncode == -signal.SIGKILL
    (folder,) = set(Path(tmp_path, "runs").iterdir()) - {first}
    again = start("entity", "1", "--resume", str(folder), *where)
    _, err = again.communicate()
    assert again.returncode == 0, err
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [event["round"] for event in events if event["kind"] == "round-ended"] == [1, 2, 3]
    (me,) = [event["detail"]["id"] for event in events if event["kind"] == "joined"]
    page = httpx.get(f"{hub.registry}/v1/knowledge?limit=100&order=newest", headers=bearer(hub)).json()["items"]
    own = [record for record in reversed(page) if record["entity"] == me]
    published = [event["detail"]["knowledge"] for event in events if event["kind"] == "published"]
    assert [record["id"] for record in own] == published
    assert [record["round"] for record in own if record["round"]] == [1, 2, 3]
    deliveries = httpx.get(f"{hub.registry}/v1/deliveries", headers=bearer(hub)).json()["items"]
    mine = [delivery["round"] for delivery in deliveries if delivery["student"] == me]
    assert mine == [event["round"] for event in events if event["kind"] == "absorbed"]
    for record in own:
        digest = record["artifacts"]["weights"]["digest"]
        blob = httpx.get(f"{hub.vault}/v1/blobs/{digest}", headers=bearer(hub)).content
        assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == digest


@pytest.mark.process
def test_an_entity_trains_without_the_hub_and_sends_its_messages_later(start, tmp_path):
    ports = [str(unused_port()) for _ in range(2)]
    registry, vault = (f"http://127.0.0.1:{port}" for port in ports)
    operator = ["--data", str(tmp_path / "registry"), "--port", ports[0], "--vault", vault, "--open-enrolment"]
    vault_options = ["--data", str(tmp_path / "vault"), "--port", ports[1], "--registry", registry]
    secret = ["--secret", str(tmp_path / "secret")]

    def hub():
        services = [start("vault", *vault_options, *secret), start("registry", *operator, *secret)]
        for service in services:
            assert service.stdout.readline()
        return services

    def stop(services):
        for service in services:
            service.terminate()
            service.wait()

    services = hub()
    where = ["--registry", registry, "--vault", vault, "--patience", "0.2"]
    arguments = [*SETTINGS, "--strategy", "merge", "--num-rounds", "6", *where]
    entity = start("entity", "1", *arguments, program=(KILLED, "halt>round", "1"), stdin=subprocess.PIPE)
    assert entity.stdout.readline() == "halted\n"
    stop(services)
    _, err = entity.communicate()
    assert entity.returncode == 4
    assert "messages to the hub are queued" in err.splitlines()[-1]
    assert "continues without the hub" in err
    (folder,) = Path(tmp_path, "runs").iterdir()
    hub()
    again = start("entity", "1", "--resume", str(folder), *where)
    _, err = again.communicate()
    assert again.returncode == 0, err
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    ended = [event["round"] for event in events if event["kind"] == "round-ended"]
    assert ended == list(range(1, 7))
    published = [event["detail"]["knowledge"] for event in events if event["kind"] == "published"]
    bearer = {"Authorization": f"Bearer {(tmp_path / 'registry' / 'admin-token').read_text()}"}
    path = f"{registry}/v1/knowledge?limit=100&order=newest"
    records = httpx.get(path, headers=bearer).json()["items"]
    assert [record["id"] for record in reversed(records)] == published
    assert [record["round"] for record in reversed(records)] == list(range(7))  # 0: the initial checkpoint
    assert [record["sequence"] for record in reversed(records)] == list(range(1, 8))


def test_a_vault_is_no_registry(start, hub):
    entity = start("entity", "0", *SETTINGS, "--registry", hub.vault, "--vault", hub.vault)
    _, err = entity.communicate()
    assert entity.returncode == 4
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "registry" in sentence
