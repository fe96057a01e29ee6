"""Speed of a registry: point reads, durable publications, discovery. Run by hub.py."""

import secrets
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
from hub_site import ONE_BY_ONE, SMALL, TASK, TEST_SET, UNCOUNTED, draft, hub, listener, pairs, report, weights

from kuber.client.credentials import Credentials
from kuber.client.memory.vault import MemoryVault
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Draft
from kuber.domain.query import Query
from kuber.services.db import database
from kuber.services.registry.store import RegistryStore

BARE = """
import sqlite3, sys, json
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
import uvicorn
base = sqlite3.connect(sys.argv[1], check_same_thread=False)
async def read(request):
    row = base.execute("SELECT body FROM records WHERE id = ?", (request.path_params["id"],)).fetchone()
    return Response(row[0], media_type="application/json")
uvicorn.run(Starlette(routes=[Route("/v1/knowledge/{id}", read)]), port=int(sys.argv[2]), log_level="error")
"""


def reads(folder: Path, times: int) -> None:
    """Measure point reads of a record by 32 connections, and the same bytes from bare Starlette and sqlite3."""
    with hub(folder / "hub") as (registry_url, vault_url), ExitStack() as stack:
        me = Credentials()
        registry = stack.enter_context(HttpRegistry(registry_url, credentials=me))
        vault = stack.enter_context(HttpVault(vault_url, credentials=me))
        member = registry.register("bench")
        record = registry.publish(draft(member.id, vault.put(SMALL), 1, me.identity, registry.hub_id()), key="one")
        path = f"/v1/knowledge/{record.id}"
        headers = {"Authorization": f"Bearer {me.token()}"}
        body = httpx.get(f"{registry_url}{path}", headers=headers).content
        base = sqlite3.connect(folder / "bare.sqlite")
        base.execute("CREATE TABLE records (id TEXT PRIMARY KEY, body BLOB)")
        base.execute("INSERT INTO records VALUES (?, ?)", (record.id, body))
        base.commit()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (folder / "bare.py").write_text(BARE)
        bare = subprocess.Popen([sys.executable, str(folder / "bare.py"), str(folder / "bare.sqlite"), str(port)])
        stack.callback(bare.wait)
        stack.callback(bare.terminate)
        time.sleep(2)

        def load(url: str) -> None:
            wrk = ["wrk", "-t1", "-c32", "-d3s", "-H", f"Authorization: Bearer {me.token()}", f"{url}{path}"]
            output = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
            rates.append(float(output.partition("Requests/sec:")[2].split()[0]))

        rates: list[float] = []
        pairs(lambda: load(registry_url), lambda: load(f"http://127.0.0.1:{port}"), times)
        ours, theirs = statistics.median(rates[2::2]), statistics.median(rates[3::2])
        report("point reads per second / bare", ">= 0.4", ratio=ours / theirs, ours=ours, theirs=theirs)


def counting(folder: Path, times: int) -> None:
    """Measure point reads of a record by 32 connections, with and without metrics."""
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:

        def site(name: str, program: tuple[str, ...]) -> Callable[[], None]:
            registry_url, vault_url = stack.enter_context(hub(folder / name, program))
            me = Credentials()
            registry = stack.enter_context(HttpRegistry(registry_url, credentials=me))
            vault = stack.enter_context(HttpVault(vault_url, credentials=me))
            member = registry.register("bench")
            record = registry.publish(
                draft(member.id, vault.put(SMALL), 1, me.identity, registry.hub_id()), key="one"
            )
            rates[name] = []

            def load() -> None:
                wrk = ["wrk", "-t1", "-c32", "-d3s", "-H", f"Authorization: Bearer {me.token()}"]
                output = subprocess.run(
                    [*wrk, f"{registry_url}/v1/knowledge/{record.id}"], capture_output=True, text=True, check=True
                ).stdout
                rates[name].append(float(output.partition("Requests/sec:")[2].split()[0]))

            return load

        pairs(site("counted", ("-m", "kuber")), site("uncounted", ("-c", UNCOUNTED)), times)
    ratios = [ours / theirs for ours, theirs in zip(rates["counted"][1:], rates["uncounted"][1:], strict=True)]
    ours, theirs = (statistics.median(rates[name][1:]) for name in ("counted", "uncounted"))
    report(
        "point reads per second, with / without metrics",
        ">= 0.95",
        ratio=statistics.median(ratios),
        ours=ours,
        theirs=theirs,
    )


def publishes(folder: Path, times: int) -> None:
    """Measure durable publications of 32 writers at the store, with and without group commit."""

    def at_store(group: int) -> Callable[[], None]:
        def act() -> None:
            database.MAX_GROUP = group
            place = Path(tempfile.mkdtemp(dir=folder))
            vault = MemoryVault()
            artifact = vault.put(SMALL)
            store = RegistryStore(place / "registry.sqlite", vault=Headed(vault))
            entity = store.register("bench").id
            start = time.perf_counter()
            waits = _writers(lambda key: store.publish(draft(entity, artifact, 0), key=key))
            rates[group].append(32 * EACH / (time.perf_counter() - start))
            late[group].append(statistics.quantiles(waits, n=100)[98])
            store.close()

        return act

    usual = database.MAX_GROUP
    rates: dict[int, list[float]] = {1: [], usual: []}
    late: dict[int, list[float]] = {1: [], usual: []}
    pairs(at_store(usual), at_store(1), times)
    database.MAX_GROUP = usual
    ours, theirs = (statistics.median(rates[group][1:]) for group in (usual, 1))
    p99 = 1000 * statistics.median(late[usual][1:])
    report(
        "durable publications per second, grouped / one by one",
        ">= 3, p99 < 50 ms",
        ratio=ours / theirs,
        ours=ours,
        p99=p99,
    )


def publishes_over_http(folder: Path, times: int) -> None:
    """Measure the same over HTTP: 32 entities with a connection each, whose records are signed beforehand."""
    rates: dict[str, list[float]] = {}
    late: dict[str, list[float]] = {}
    with ExitStack() as stack:

        def site(name: str, program: tuple[str, ...]) -> Callable[[], None]:
            registry_url, vault_url = stack.enter_context(hub(folder / name, program))
            writers = []
            for number in range(32):
                me = Credentials()
                registry = stack.enter_context(HttpRegistry(registry_url, credentials=me, patience=60))
                writers.append((registry, registry.register(f"writer {number}").id, me.identity))
            with HttpVault(vault_url, credentials=me) as vault:
                artifact = vault.put(SMALL)
            turns = iter(range(times + 1))
            rates[name], late[name] = [], []

            def act() -> None:
                first = EACH * next(turns)
                signed = {
                    f"{number}-{turn}": (registry, draft(id, artifact, first + turn + 1, identity, registry.hub_id()))
                    for number, (registry, id, identity) in enumerate(writers)
                    for turn in range(EACH)
                }

                def publish(key: str) -> None:
                    registry, record = signed[key]
                    registry.publish(record, key=f"{key} {first}")

                start = time.perf_counter()
                waits = _writers(publish)
                rates[name].append(32 * EACH / (time.perf_counter() - start))
                late[name].append(statistics.quantiles(waits, n=100)[98])

            return act

        pairs(site("grouped", ("-m", "kuber")), site("single", ("-c", ONE_BY_ONE)), times)
    ours, theirs = (statistics.median(rates[name][1:]) for name in ("grouped", "single"))
    report(
        "durable publications per second over HTTP, grouped / one by one",
        ">= 1.5, p99 < 50 ms",
        ratio=ours / theirs,
        ours=ours,
        p99=1000 * statistics.median(late["grouped"][1:]),
    )


def publications(folder: Path, times: int) -> None:
    """Measure whole publications over HTTP, a small blob with its record: 32 entities, signed beforehand.

    Besides their rate and the 99th percentile of their time, the processor time of each: of the registry, of the
    vault, and of this process, which is that of all entities.
    """
    rates, late, used = [], [], []
    with ExitStack() as stack:
        registry_url, vault_url = stack.enter_context(hub(folder / "hub"))
        writers = []
        for number in range(32):
            me = Credentials()
            registry = stack.enter_context(HttpRegistry(registry_url, credentials=me, patience=60))
            vault = stack.enter_context(HttpVault(vault_url, credentials=me, patience=60))
            writers.append((registry, vault, registry.register(f"writer {number}").id, me.identity))
        services = [listener(url) for url in (registry_url, vault_url)]
        for turn in range(times + 1):
            prepared = {}
            for number, (_, _, id, identity) in enumerate(writers):
                for each in range(EACH):
                    blob = weights(4096)
                    prepared[f"{number}-{each}"] = (
                        blob,
                        draft(id, Artifact.of(blob), EACH * turn + each + 1, identity),
                    )

            def publish(key: str, prepared: dict[str, tuple[bytes, Draft]] = prepared, turn: int = turn) -> None:
                registry, vault, _, _ = writers[int(key.partition("-")[0])]
                blob, record = prepared[key]
                if registry.publish_with(record, [blob], key=f"{key} {turn}") is None:
                    vault.put(blob)
                    registry.publish(record, key=f"{key} {turn}")

            processes = [*services, psutil.Process()]
            before = [sum(process.cpu_times()[:2]) for process in processes]
            start = time.perf_counter()
            waits = _writers(publish)
            seconds = time.perf_counter() - start
            if turn:
                rates.append(32 * EACH / seconds)
                late.append(1000 * statistics.quantiles(waits, n=100)[98])
                after = [sum(process.cpu_times()[:2]) for process in processes]
                used.append([1000 * (b - a) / (32 * EACH) for a, b in zip(before, after, strict=True)])
    middle = [statistics.median(each) for each in zip(*used, strict=True)]
    report(
        "whole publications per second over HTTP",
        ">= 250, p99 < 100 ms, 7 ms of processor time",
        ours=statistics.median(rates),
        spread=[min(rates), max(rates)],
        p99=statistics.median(late),
        processor=dict(zip(("registry", "vault", "entities"), middle, strict=True)),
    )


EACH = 20  # publications of each writer


class Headed:
    """A vault in memory with the interface that the registry needs."""

    def __init__(self, vault: MemoryVault) -> None:
        self._vault = vault
        self.pin, self.unpin = vault.pin, vault.unpin

    def head(self, digest: Digest, length: int) -> bytes:
        return self._vault.get(digest)[:length]

    def owner(self, digest: Digest) -> None:
        """Return nothing: nobody owns blobs here."""


def _writers(publish: Callable[[str], object]) -> list[float]:
    """Return the seconds that each publication of 32 writers took."""
    waits: list[float] = []

    def write(number: int) -> None:
        for turn in range(EACH):
            start = time.perf_counter()
            publish(f"{number}-{turn}")
            waits.append(time.perf_counter() - start)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits


def discovery(folder: Path, times: int, many: int) -> None:
    """Measure discovery of the best 100 among many records and among 1,000."""
    stores = {}
    for count in (1000, many):
        vault = MemoryVault()
        artifact = vault.put(SMALL)
        path = folder / f"{count}.sqlite"
        store = RegistryStore(path, vault=Headed(vault))
        members = [store.register(f"entity-{number}").id for number in range(20)]
        _fill(store, path, members, artifact, count)
        stores[count] = store, members[0]

    waits: dict[int, list[float]] = {1000: [], many: []}
    for turn in range(20 + max(50 * times, 2000)):  # of fewer, the 99th percentile is one or two outliers
        for count, (store, member) in stores.items():
            query = Query(task=TASK.name, test_set=TEST_SET, min_accuracy=0.2, exclude_entity=member, limit=10)
            start = time.perf_counter()
            store.discover(query)
            if turn >= 20:
                waits[count].append(time.perf_counter() - start)
    p50 = statistics.median(waits[many]) / statistics.median(waits[1000])
    few, lot = (statistics.quantiles(waits[count], n=100)[98] for count in (1000, many))
    report(f"discover among {many:,} / 1,000", "<= 1.5", p50=p50, p99=lot / few)
    for store, _ in stores.values():
        store.close()


def _fill(store: RegistryStore, path: Path, members: list[str], artifact: Artifact, count: int) -> None:
    """Publish one record; insert the others as copies of its rows, which is faster."""
    first = store.publish(draft(members[0], artifact, 0), key="first")
    base = sqlite3.connect(path, timeout=60)
    base.row_factory = sqlite3.Row
    row = dict(base.execute("SELECT * FROM knowledge").fetchone())
    parts = [dict(part) for part in base.execute("SELECT * FROM class_evaluations")]
    file = dict(base.execute("SELECT * FROM knowledge_artifacts").fetchone())
    noon = datetime(2026, 1, 1, tzinfo=UTC)
    start, end = row["seq"] + 1, row["seq"] + count

    def rows() -> Iterator[dict[str, object]]:
        for seq in range(start, end):
            changes = {"seq": seq, "id": f"{seq:032x}", "entity": members[seq % len(members)], "key": f"k{seq}"}
            changes |= {
                "accuracy": secrets.randbelow(2000) / 2000,
                "published_at": str(noon + timedelta(seconds=seq))[:19],
            }
            yield row | changes

    def insert(table: str, example: dict[str, object], values: Iterator[dict[str, object]]) -> None:
        names = ", ".join(example)
        base.executemany(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join(':' + name for name in example)})", values
        )

    insert("knowledge", row, rows())
    insert("class_evaluations", parts[0], (part | {"knowledge": seq} for seq in range(start, end) for part in parts))
    insert("knowledge_artifacts", file, (file | {"knowledge": seq} for seq in range(start, end)))
    base.commit()
    base.execute("ANALYZE")
    base.close()
    assert store.knowledge(first.id) == first
