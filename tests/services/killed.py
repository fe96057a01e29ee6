"""Runs kuber and kills it, as kill -9 does, at the named point of its work: `killed.py POINT TIMES ARGUMENTS`.

The points are calls that a service makes on its way; the process ends before (`<`) or after (`>`) one of them, at the
TIMES-th time. Nothing of this is in the product.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from kuber.services import (
    bucket,
    database,
    registry_store,
    registry_vault,
    vault_bucket,
    vault_collection,
    vault_direct,
    vault_folder,
    vault_incoming,
    vault_store,
    vault_uploads,
)

POINTS = {
    "write": (vault_incoming.Incoming, "write"),
    "sync of the file": (os, "fsync"),
    "name": (Path, "replace"),
    "sync of the folder": (vault_folder, "sync"),
    "row": (vault_store.VaultStore, "_index"),
    "answer": (vault_incoming.Incoming, "discard"),
    "append": (vault_uploads.Part, "append"),
    "completion": (vault_uploads.Uploads, "complete"),
    "part sent": (bucket.Sender, "write"),
    "staged": (vault_bucket.StagedBlob, "end"),
    "copied": (vault_bucket.StagedBlob, "place"),
    "staged object removed": (vault_bucket.BucketShelves, "unstage"),
    "object removed": (vault_bucket.BucketShelves, "remove"),
    "copied to be hashed": (vault_direct, "hashed"),
    "fetched": (vault_uploads.Uploads, "fetch"),
    "rows removed": (vault_collection, "_remove_rows"),
    "file removed": (Path, "unlink"),
    "pin": (registry_vault.RegistryVault, "pin"),
    "header": (registry_vault.RegistryVault, "head"),
    "unpin": (registry_vault.RegistryVault, "unpin"),
    "commit": (database.Database, "_commit"),
    "publication": (registry_store.RegistryStore, "accept"),
    "withdrawal": (registry_store.RegistryStore, "withdraw"),
    "delivery": (registry_store.RegistryStore, "record"),
    "attestation": (registry_store.RegistryStore, "attest"),
}


# Of an entity: by name, as a service does not load these.
ENTITY_POINTS = {
    "blob stored": ("kuber.client.vault", "HttpVault", "put"),
    "published": ("kuber.client.registry", "HttpRegistry", "publish"),
    "discovered": ("kuber.client.registry", "HttpRegistry", "discover"),
    "pulled": ("kuber.client.vault", "HttpVault", "get"),
    "attested": ("kuber.client.registry", "HttpRegistry", "attest"),
    "recorded": ("kuber.client.registry", "HttpRegistry", "record"),
    "event": ("kuber.entity.log", "EventLog", "append"),
    "state": ("kuber.entity.checkpoint", "Checkpoints", "save"),
    "round": ("kuber.entity.checkpoint", "Checkpoints", "save_round"),
}


def arm(point: str, times: int) -> None:
    side, name = point[0], point[1:]
    if name in ENTITY_POINTS:
        module, kind, attribute = ENTITY_POINTS[name]
        place: object = getattr(importlib.import_module(module), kind)
    else:
        place, attribute = POINTS[name]
    original = getattr(place, attribute)
    left = [times]

    def last() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def call(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if side == "<" and not left[0]:
            last()
        result = original(*args, **kwargs)
        if side == ">" and not left[0]:
            last()
        return result

    setattr(place, attribute, call)


if __name__ == "__main__":
    from kuber.cli import main

    point, times, *arguments = sys.argv[1:]
    arm(point, int(times))
    sys.argv[1:] = arguments
    main()
