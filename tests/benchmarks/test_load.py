"""The load generator reports what the hub has recorded."""

import json
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.commands import finished

LOAD = Path(__file__).parents[2] / "benchmarks" / "load.py"


def counted(url):
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def load(*options):
    return finished("--entities", "6", "--per-task", "3", *options, program=[str(LOAD)])


def test_a_running_hub_gets_the_requested_load(own_hub, tmp_path):
    hub = own_hub()  # which needs invitations
    (tmp_path / "token").write_text(hub.operator)
    to = ["--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(tmp_path / "token")]
    done = load(*to, "--seconds", "2", "--discover", "20", "--publish", "4", "--processes", "2")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["errors"] == {}
    discover, publish = seen["discover"], seen["publish"]
    assert discover["answered"] > 10
    assert publish["answered"] > 0
    for kind in (discover, publish):
        assert kind["answered"] == round(kind["offered"] * 2)
        assert 0 < kind["p50"] <= kind["p95"] <= kind["p99"] <= kind["max"]
    counts = counted(hub.registry)
    assert counts["kuber_discoveries_total"] == discover["answered"]
    assert counts["kuber_publications_total"] == publish["answered"] + 6  # the first of each entity
    assert counts["kuber_entities_online"] == 6
    assert discover["bytes_received"] > publish["bytes_received"] > 500


def test_a_hub_that_needs_invitations_is_an_error_in_one_sentence(own_hub):
    hub = own_hub()
    done = load("--registry", hub.registry, "--vault", hub.vault, "--seconds", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the entities cannot join the hub: 403 not-authorized"
    assert load("--registry", hub.registry).returncode == 2
