"""Main function of an entity process of `kuber run`."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.event import utc_now
from kuber.entity.hub.access import HubAccess
from kuber.entity.state.event_log import FILE_NAME, EventLog
from kuber.entity.state.storage import Storage
from kuber.entity.work.steps import Work
from kuber.errors import KUberError
from kuber.experiment.entity_factory import entity_folder, make_entity
from kuber.experiment.scenario import load_scenario
from kuber.learning.runtime import Runtime, keep_freed_memory
from kuber.settings import Settings
from kuber.signing import Identity

PROGRESS_SECONDS = 0.25  # between two reports of one entity


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityJob:
    """Everything an entity process needs to know; picklable."""

    settings: Settings
    index: int
    folder: Path  # of the run
    registry: str
    vault: str
    invitation: str | None  # to the run's hub; None when the entity has joined already
    runtime: Runtime


def main(job: EntityJob, supervisor: Connection, lifeline: Connection) -> None:
    """Run one entity in a process of its own.

    It requests a slot from the supervisor before each work step, reports its progress, and reports a failure before
    it exits with the exit code of the error. It exits at once when the supervisor is gone, which closes `lifeline`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_when_closed, args=(lifeline,), daemon=True).start()
    folder = entity_folder(job.folder, job.index)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run_entity(job, supervisor, folder)
        supervisor.send(("done",))
    except KUberError as error:
        supervisor.send(("failed", error.code, error.message))
        sys.exit(error.exit_code)
    except BaseException:
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def _run_entity(job: EntityJob, supervisor: Connection, folder: Path) -> None:
    keep_freed_memory()
    torch.set_num_threads(job.runtime.threads)
    scenario = load_scenario(job.settings)
    log = EventLog(job.folder / FILE_NAME, clock=utc_now)
    identity = Identity.load_or_create(folder / KEY_FILE)
    credentials = Credentials(identity, invitation=job.invitation, path=folder / TOKEN_FILE, hub_may_move=True)
    with (
        HttpRegistry(job.registry, credentials=credentials) as registry,
        HttpVault(job.vault, credentials=credentials) as vault,
    ):

        def execute(work: Work) -> Any:
            supervisor.send(("request", entity.progress, entity.model.sample_count))
            supervisor.recv()  # granted
            try:
                return work.do(throttled(lambda share: supervisor.send(("progress", share))))
            finally:
                supervisor.send(("release",))

        entity = make_entity(
            scenario,
            job.index,
            runtime=job.runtime,
            hub=HubAccess(registry=registry, vault=vault, identity=identity, background=True),
            storage=Storage.in_folder(folder, log),
            execute=execute,
        )
        entity.run()


def throttled(report: Callable[[float], None]) -> Callable[[float], None]:
    """Limit the rate of progress reports to one every PROGRESS_SECONDS; the report of the end always passes."""
    last = 0.0

    def report_sometimes(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if share >= 1 or now - last >= PROGRESS_SECONDS:
            last = now
            report(share)

    return report_sometimes


def _exit_when_closed(lifeline: Connection) -> None:
    """Exit this process when the other side of the lifeline closes."""
    try:
        lifeline.recv()
    except EOFError:
        os._exit(1)
