"""Metrics of running services, read with Prometheus's own parser."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.blob import Collection, Rot, Scrub
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.query import Query
from kuber.errors import ServiceUnavailableError
from kuber.services.db.database import Database
from kuber.services.http.metrics import WINDOW, Metrics, Presence
from kuber.services.vault.metrics import VaultMetrics
from kuber.services.vault.uploads import Uploads
from tests.fixtures.hub import SigningRegistry
from tests.fixtures.waiting import wait_until

PAGE = Path(__file__).parents[3] / "docs" / "observing.md"


@dataclass
class Scraped:
    families: set[str]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]


def parse(text: str) -> Scraped:
    families, samples = set(), {}
    for family in text_string_to_metric_families(text):
        families.add(family.name + ("_total" if family.type == "counter" else ""))
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return Scraped(families, samples)


def scrape(url: str) -> Scraped:
    answer = httpx.get(f"{url}/metrics", trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


def test_counts_are_exact_and_each_metric_is_documented(own_hub, samples):
    hub = own_hub("--open-enrolment")
    me = Credentials()
    with ExitStack() as stack:
        registry = stack.enter_context(SigningRegistry(hub.registry, credentials=me))
        vault = stack.enter_context(HttpVault(hub.vault, credentials=me))
        member = registry.register("a-name-that-nobody-else-has")
        data = samples.weights()
        draft = samples.draft(member.id, vault.put(data))
        records = [registry.publish(draft, key="one"), registry.publish(draft, key="one")]
        records.append(registry.publish(samples.draft(member.id, vault.put(samples.weights())), key="two"))
        for _ in range(3):
            registry.discover(Query(task=draft.task.name))
        delivery = Delivery(
            student=member.id,
            teachers=(records[0].id,),
            method="merge",
            round=1,
            accuracy_before=0.5,
            accuracy_after=0.6,
            kept=True,
        )
        registry.record(delivery, key="three")
        registry.report(member.id, round=1)
        registry.withdraw(records[2].id)
        assert vault.get(Digest.of(data)) == data
        httpx.get(f"{hub.registry}/v1/nowhere/{member.id}", trust_env=False)
        httpx.request("OPTIONS", f"{hub.vault}/coffee", trust_env=False)
        registry_metrics, vault_metrics = scrape(hub.registry), scrape(hub.vault)
        operator = stack.enter_context(HttpVault(hub.vault, credentials=Credentials(token=hub.operator)))
        operator.scrub()
        after_scrub = scrape(hub.vault)

    count = "kuber_http_request_seconds_count"
    assert registry_metrics(count, method="POST", route="/v1/knowledge", status="201") == 2
    assert registry_metrics(count, method="POST", route="/v1/knowledge", status="200") == 1
    assert registry_metrics(count, method="GET", route="/v1/knowledge", status="200") == 3
    assert registry_metrics(count, method="GET", route="unmatched", status="404") == 1
    assert registry_metrics("kuber_http_requests_under_way") == 1  # the scrape
    for name, number in {
        "publications": 2,
        "discoveries": 3,
        "deliveries": 1,
        "reports": 1,
        "withdrawals": 1,
    }.items():
        assert registry_metrics(f"kuber_{name}_total") == number, name
    assert registry_metrics("kuber_entities_online") == 1
    # An enrolment, two records, a delivery, a report and a withdrawal.
    assert registry_metrics("kuber_database_group_writes_sum") == 6
    assert (
        registry_metrics("kuber_database_waiting_writes")
        == registry_metrics("kuber_database_failed_groups_total")
        == 0
    )
    assert registry_metrics("kuber_build_info", service="registry", version="0.1.0", protocol="1") == 1
    assert registry_metrics("process_cpu_seconds_total") > 0

    assert vault_metrics(count, method="PUT", route="/v1/blobs/{digest}", status="201") == 2
    assert vault_metrics(count, method="other", route="unmatched", status="404") == 1
    assert vault_metrics("kuber_http_received_bytes_total", route="/v1/blobs/{digest}") == 2 * len(data)
    assert vault_metrics("kuber_http_sent_bytes_total", route="/v1/blobs/{digest}") >= len(data)
    assert vault_metrics("kuber_uploads_under_way") == 0
    assert after_scrub("kuber_blobs_scrubbed_total") == 2
    assert after_scrub("kuber_blobs_rotten_total") == 0

    for name, _ in registry_metrics.samples.keys() | vault_metrics.samples.keys():
        assert not name.endswith("_created")
    named = {
        value for scraped in (registry_metrics, vault_metrics) for _, labels in scraped.samples for _, value in labels
    }
    assert not any(
        secret in value for value in named for secret in (member.id, member.name, me.token(), samples.token)
    )
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert registry_metrics.families | vault_metrics.families == {
        name for name in documented if not name.startswith("OTEL_")
    }


def test_a_vault_counts_collections_scrubs_and_uploads(vault_store):
    uploads = Uploads(vault_store)
    metrics = VaultMetrics(vault_store, uploads)
    uploads.begin(Artifact(digest=Digest.of(b"other"), size=5))
    metrics.count_collection(Collection(blobs=2, size=30, leftovers=1))
    metrics.count_scrub(
        Scrub(blobs=5, size=1, cursor=None, rotten=(Rot(digest=Digest.of(b""), fault="lost", holders=0),))
    )
    counts = parse(metrics.exposition().body.decode())
    assert counts("kuber_uploads_under_way") == 1
    assert counts("kuber_blobs_collected_total") == 2
    assert counts("kuber_blobs_collected_bytes_total") == 30
    assert counts("kuber_blobs_scrubbed_total") == 5
    assert counts("kuber_blobs_rotten_total") == 1


def test_a_failed_commit_is_counted(tmp_path, monkeypatch):
    database, metrics = Database(tmp_path / "r.sqlite", history="registry"), Metrics("registry")
    metrics.watch_database(database)
    database.write(lambda connection: connection.execute(text("SELECT 1")))
    # The transaction ends too early, and the savepoint of the write with it.
    with pytest.raises(ServiceUnavailableError):
        database.write(lambda connection: connection.connection.driver_connection.execute("COMMIT"))
    database.close()
    counts = parse(metrics.exposition().body.decode())
    assert counts("kuber_database_group_writes_count") == counts("kuber_database_group_seconds_count") == 2
    assert counts("kuber_database_failed_groups_total") == 1


def test_an_entity_without_recent_requests_is_not_online():
    now = 0.0
    presence = Presence(lambda: now)
    presence.note("a")
    presence.note("b")
    now = WINDOW + 1
    presence.note("b")
    assert presence.count() == 2
    now = 2 * WINDOW + 1
    assert presence.count() == 1
    now = 9 * WINDOW
    assert presence.count() == 0


def test_periodic_collections_are_counted(own_hub, samples):
    hub = own_hub("--open-enrolment", keeping=("--lease", "0", "--grace", "0", "--collect-every", "0.05"))
    with HttpVault(hub.vault, credentials=Credentials(token=hub.secret)) as vault:
        size = vault.put(samples.weights()).size
    wait_until(lambda: scrape(hub.vault)("kuber_blobs_collected_total"), "a collection")
    counts = scrape(hub.vault)
    assert counts("kuber_blobs_collected_total") == 1
    assert counts("kuber_blobs_collected_bytes_total") == size
