"""Runs kuber and kills it, as kill -9 does, at the named point of its work: `kill_points.py POINT TIMES ARGUMENTS`.

The points are calls that a service makes on its way; the process ends before (`<`) or after (`>`) one of them, at the
TIMES-th time. STOP_SIGNAL names another signal than SIGKILL. Nothing of this is in the product.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from kuber.services.db import database
from kuber.services.registry import publishing, vault_client
from kuber.services.registry import store as registry_store
from kuber.services.vault import (
    blob_writer,
    filesystem,
    garbage_collection,
    presigned,
    s3,
    s3_client,
    store,
    uploads,
)

POINTS = {
    "write": (blob_writer.HashingWriter, "write"),
    "sync of the file": (os, "fsync"),
    "name": (Path, "replace"),
    "sync of the folder": (filesystem, "sync_folder"),
    "row": (store.VaultStore, "_index"),
    "answer": (filesystem.FileBlobWriter, "cancel"),
    "append": (uploads.UploadSession, "append"),
    "completion": (uploads.Uploads, "complete"),
    "part sent": (s3_client.ObjectWriter, "write"),
    "staged": (s3.S3BlobWriter, "finish"),
    "copied": (s3.S3BlobWriter, "commit"),
    "staged object removed": (s3.S3Storage, "unstage"),
    "object removed": (s3.S3Storage, "delete"),
    "copied to be hashed": (presigned, "hash_object"),
    "fetched": (uploads.Uploads, "complete_direct"),
    "rows removed": (garbage_collection, "_delete_rows"),
    "file removed": (Path, "unlink"),
    "pin": (vault_client.RegistryVault, "pin"),
    "check": (publishing, "check_weights"),
    "unpin": (vault_client.RegistryVault, "unpin"),
    "commit": (database.Database, "_commit"),
    "publication": (publishing.Publications, "publish"),
    "withdrawal": (registry_store.RegistryStore, "withdraw"),
    "delivery": (registry_store.RegistryStore, "record"),
    "attestation": (registry_store.RegistryStore, "attest"),
}


# Of an entity: by name, as a service does not load these.
ENTITY_POINTS = {
    "joined": ("kuber.client.registry", "HttpRegistry", "register"),
    "blob stored": ("kuber.client.vault", "HttpVault", "put"),
    "published": ("kuber.client.registry", "HttpRegistry", "publish"),
    "discovered": ("kuber.client.registry", "HttpRegistry", "discover"),
    "pulled": ("kuber.client.vault", "HttpVault", "get"),
    "attested": ("kuber.client.registry", "HttpRegistry", "attest"),
    "recorded": ("kuber.client.registry", "HttpRegistry", "record"),
    "event": ("kuber.entity.state.event_log", "EventLog", "append"),
    "state": ("kuber.entity.state.checkpoint", "Checkpoints", "save"),
    "round": ("kuber.entity.state.checkpoint", "Checkpoints", "save_round"),
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
        os.kill(os.getpid(), signal.Signals[os.environ.get("STOP_SIGNAL", "SIGKILL")])

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
