"""The dashboard's downloads, headers and refusals, and how it starts and stops."""

import hashlib
from pathlib import Path

import httpx
import pytest

from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from tests.fixtures.commands import finished
from tests.fixtures.hub import SigningRegistry
from tests.fixtures.samples import Samples
from tests.fixtures.waiting import wait_until

from .site import World


@pytest.fixture(scope="module")
def record(quiet: World) -> Knowledge:
    """The only record of the hub."""
    samples, me = Samples(), Credentials()
    with (
        SigningRegistry(quiet.hub.registry, credentials=me) as registry,
        HttpVault(quiet.hub.vault, credentials=me) as vault,
    ):
        member = registry.register("publisher")
        return registry.publish(samples.draft(member.id, vault.put(samples.weights())), key="one")


def test_a_download_is_the_file_that_the_record_names(quiet: World, record: Knowledge) -> None:
    answer = httpx.get(f"{quiet.url}/download/{record.id}/weights")
    assert answer.status_code == 200
    artifact = record.artifacts["weights"]
    assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == str(artifact.digest)
    assert f"{record.id}.safetensors" in answer.headers["Content-Disposition"]
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(("path", "word"), [("nothing/weights", "no knowledge"), ("{id}/pickle", "no file")])
def test_a_missing_file_is_a_problem(quiet: World, record: Knowledge, path: str, word: str) -> None:
    answer = httpx.get(f"{quiet.url}/download/{path.format(id=record.id)}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert word in answer.json()["detail"]


def test_headers_forbid_requests_to_other_hosts(quiet: World) -> None:
    answer = httpx.get(quiet.url)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_foreign_host_name_is_refused(quiet: World) -> None:
    answer = httpx.get(quiet.url, headers={"Host": "evil.example"})
    assert answer.status_code == 400


def test_health_includes_the_hub(quiet: World, record: Knowledge) -> None:
    wait_until(lambda: httpx.get(f"{quiet.url}/healthz").json()["events"] >= 2, "events on the pages")
    health = httpx.get(f"{quiet.url}/healthz").json()
    assert (health["status"], health["service"], health["hub"]) == ("ok", "dashboard", True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--admin-token", "missing"), "The token cannot be read from missing"),
        (("--identity", "missing"), "There is no token in missing"),
        (("--host", "0.0.0.0"), "can be reached by other machines"),
        (("--registry", "nonsense"), "'nonsense' is not the address of a registry"),
        (("--certificate", "missing"), "Give --certificate and --private-key together"),
    ],
)
@pytest.mark.process
def test_wrong_options_are_refused_in_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "token").write_text("t" * 43)
    if "--admin-token" not in words:
        words = (*words, "--admin-token", "token")
    done = finished("dashboard", "--port", "0", *words, folder=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_occupied_port_is_reported(quiet: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 43)
    port = quiet.url.rsplit(":", maxsplit=1)[-1]
    done = finished("dashboard", "--admin-token", "token", "--port", port, folder=tmp_path)
    assert done.returncode == 4
    assert f"The dashboard cannot listen on 127.0.0.1:{port}" in done.stderr
