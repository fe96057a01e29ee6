"""Run kuber and kill it at a named point: `kill_points.py POINT TIMES ARGUMENTS`.

A point is a call that the command makes; the process is killed before (`<`) or after (`>`) the TIMES-th one, as in
`>commit`. With the prefix `interrupt` it is interrupted there, with `halt` it waits for a line on its standard input:
`halt>commit`. So a test stops a process where it wants to, however busy the machine is. The product knows nothing of
the points.
"""

import importlib
import os
import re
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from kuber.services.db import database
from kuber.services.registry import publishing, vault_client
from kuber.services.registry import store as registry_store
from kuber.services.vault import blob_writer, filesystem, garbage_collection, presigned, s3, s3_client, store, uploads

POINTS = {
    "write": (blob_writer.HashingWriter, "write"),
    "sync of the file": (os, "fsync"),
    "name": (Path, "replace"),
    "sync of the folder": (filesystem, "sync_folder"),
    "row": (store.VaultStore, "index"),
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
    "sent blobs stored": (filesystem.FilesystemStorage, "put_all"),
    "pin": (vault_client.RegistryVault, "_pin_with_others"),
    "check": (publishing, "check_weights"),
    "unpin": (vault_client.RegistryVault, "unpin"),
    "commit": (database.Database, "_commit"),
    "publication": (publishing.Publications, "publish"),
    "withdrawal": (registry_store.RegistryStore, "withdraw"),
    "delivery": (registry_store.RegistryStore, "record"),
    "attestation": (registry_store.RegistryStore, "attest"),
}

# Points of an entity, by name, as a service does not load these modules.
ENTITY_POINTS = {
    "joined": ("kuber.client.registry", "HttpRegistry", "register"),
    "published": ("kuber.client.registry", "HttpRegistry", "_publish"),
    "discovered": ("kuber.client.registry", "HttpRegistry", "discover"),
    "pulled": ("kuber.client.vault", "HttpVault", "get"),
    "attested": ("kuber.client.registry", "HttpRegistry", "attest"),
    "recorded": ("kuber.client.registry", "HttpRegistry", "record"),
    "event": ("kuber.entity.state.event_log", "EventLog", "append"),
    "state": ("kuber.entity.state.checkpoint", "Checkpoints", "save"),
    "round": ("kuber.entity.state.checkpoint", "Checkpoints", "save_round"),
}

# Points of `kuber run` and `kuber compare`, in the process that the user started.
RUN_POINTS = {
    "round shown": ("kuber.cli.run_progress", "PlainLines", "on_event"),
    "row of a comparison": ("kuber.experiment.comparison.compare", "_Executor", "_row"),
}
assert not POINTS.keys() & (ENTITY_POINTS | RUN_POINTS).keys(), "each point has its own name"
# Only calls for which this is true are counted.
COUNTED = {"round shown": lambda view, event: event.kind == "round-ended"}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    """Interrupt the whole process group, as Ctrl-C in a terminal does. It must be a group of its own."""
    assert os.getpgid(0) == os.getpid()
    os.killpg(0, signal.SIGINT)


def halt() -> None:
    """Print a line, and wait for a line on standard input."""
    print("halted", flush=True)
    sys.stdin.readline()


def arm(act: Callable[[], None], side: str, name: str, times: int) -> None:
    """Call `act` before (`<`) or after (`>`) the TIMES-th call at a point."""
    by_name = ENTITY_POINTS | RUN_POINTS
    if name in by_name:
        module, kind, attribute = by_name[name]
        owner: object = getattr(importlib.import_module(module), kind)
    else:
        owner, attribute = POINTS[name]
    original = getattr(owner, attribute)
    counted = COUNTED.get(name, lambda *_: True)
    calls = count(1)

    def call(*args: object, **kwargs: object) -> object:
        reached = counted(*args) and next(calls) == times
        if side == "<" and reached:
            act()
        result = original(*args, **kwargs)
        if side == ">" and reached:
            act()
        return result

    setattr(owner, attribute, call)


if __name__ == "__main__":
    from kuber.cli import main

    point, number, *arguments = sys.argv[1:]
    act, side, name = re.fullmatch("(|interrupt|halt)([<>])(.*)", point).groups()  # type: ignore[union-attr]
    arm({"": kill, "interrupt": interrupt, "halt": halt}[act], side, name, int(number))
    sys.argv[1:] = arguments
    main()
