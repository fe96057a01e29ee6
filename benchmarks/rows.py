"""Growth of the databases of a hub: bytes per record, report, delivery, entity, and blob in the index.

python benchmarks/rows.py --times 5000
"""

import argparse
import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from hub_records import Headed
from hub_site import SMALL, draft

from kuber.client.memory.vault import MemoryVault
from kuber.domain.delivery import Delivery
from kuber.domain.knowledge import WEIGHTS
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.signing import Identity


def grown(path: Path, times: int, act: Callable[[int], object]) -> int:
    """Return the bytes by which a database grows per act."""

    def size() -> int:
        with sqlite3.connect(path) as base:
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.close()
        return path.stat().st_size

    before = size()
    for number in range(times):
        act(number)
    return round((size() - before) / times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5000)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blobs, me = MemoryVault(), Identity.generate()
        artifact = blobs.put(SMALL)
        path = folder / "registry.sqlite"
        registry = RegistryStore(path, vault=Headed(blobs))
        result = {
            "entity": grown(
                path, times, lambda n: registry.register(f"{n}", public_key=Identity.generate().public_key)
            )
        }
        member = registry.register("publisher", public_key=me.public_key).id
        ids = []

        def publish(number: int) -> None:
            ids.append(registry.publish(draft(member, artifact, number + 1, me), key=f"{number}").id)

        def deliver(number: int) -> None:
            three = tuple(ids[(number + place) % len(ids)] for place in range(3))
            done = {"accuracy_before": 0.5, "accuracy_after": 0.6, "kept": True, "reason": "They know c best." * 5}
            registry.record(
                Delivery(student=member, teachers=three, method="guide", round=number, **done), key=f"{number}"
            )

        result["record"] = grown(path, times, publish)
        evaluation = draft(member, artifact, 0).evaluation
        result["report"] = grown(
            path, times, lambda number: registry.report(member, round=number, evaluation=evaluation)
        )
        result["delivery"] = grown(path, times, deliver)
        registry.close()
        vault = VaultStore(folder / "vault")

        def keep(number: int) -> None:
            data = bytearray(SMALL)
            data[-4:-1] = number.to_bytes(3, "little")
            vault.pin(f"{number:032x}", [(WEIGHTS, vault.put(bytes(data)))])

        result["blob and its pin"] = grown(folder / "vault" / "vault.sqlite", min(times, 2000), keep)
        vault.close()
    print(json.dumps({"bytes": result}))


if __name__ == "__main__":
    main()
