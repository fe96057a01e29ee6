"""`kuber entity`, interrupted: it says how to resume, and the command it prints does."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.fixtures.commands import KUBER, Finished, finished

STOP = str(Path(__file__).parents[1] / "services" / "kill_points.py")
TINY = ["--dataset", "digits", "--architecture", "mlp", "--num-entities", "2", "--num-rounds", "2"]
TINY += ["--local-epochs", "1", "--batch-size", "16", "--strategy", "local"]


def kuber(folder: Path, *arguments: str, program: tuple[str, ...] = KUBER) -> Finished:
    return finished(*arguments, folder=folder, program=program, new_session=True)


def resume_command(stopped: Finished) -> list[str]:
    found = re.fullmatch(r"Interrupted\. Resume with: kuber (.*)", stopped.stderr.splitlines()[-1])
    assert found is not None, stopped.stderr
    return shlex.split(found[1])


@pytest.mark.parametrize("identity", [[], ["--identity", "my keys"]], ids=["default", "given"])
def test_an_interrupted_entity_says_how_to_resume(tmp_path, own_hub, identity):
    hub = own_hub("--open-enrolment")
    where = ["--registry", hub.registry, "--vault", hub.vault, "--patience", "5.0"]
    stopped = kuber(tmp_path, "entity", "1", *TINY, *where, *identity, program=(STOP, "interrupt>state", "2"))
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    words = resume_command(stopped)
    (folder,) = (tmp_path / "runs").iterdir()
    given = ["--identity", str(tmp_path / "my keys")] if identity else []
    assert words == ["entity", "1", "--resume", str(folder), *given, *where]
    resumed = kuber(tmp_path, *words)
    assert resumed.returncode == 0, resumed.stderr
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["round"] for event in events if event["kind"] == "round-ended"] == [1, 2]


def test_an_entity_interrupted_before_it_joined_keeps_its_invitation(tmp_path, own_hub):
    hub = own_hub()
    where = ["--registry", hub.registry, "--vault", hub.vault]
    operator = ["--registry", hub.registry, "--admin-token", str(tmp_path / "registry" / "admin-token")]
    code = kuber(tmp_path, "hub", "invite", "0", *operator).stdout.strip()
    program = (STOP, "interrupt<joined", "1")
    stopped = kuber(tmp_path, "entity", "0", *TINY, *where, "--invitation", code, program=program)
    assert stopped.returncode == 130, stopped.stderr
    words = resume_command(stopped)
    assert words[-2:] == ["--invitation", code]
    resumed = kuber(tmp_path, *words)
    assert resumed.returncode == 0, resumed.stderr
