"""The process that each entity of a run lives in."""

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
from kuber.entity.managed import drive
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, EventLog, utc_now
from kuber.entity.work.steps import Work
from kuber.errors import KUberError
from kuber.experiment.entity_factory import entity_folder, make_entity, waiting_blobs
from kuber.experiment.scenario import scenario
from kuber.learning.runtime import Runtime, keep_freed_memory
from kuber.settings import Settings
from kuber.signing import Identity

PROGRESS_SECONDS = 0.25  # between two reports of one entity


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityJob:
    """What an entity process of a run is told; picklable."""

    settings: Settings
    index: int
    folder: Path  # of the run
    registry: str
    vault: str
    invitation: str | None  # to the run's own hub; none where the entity has joined already
    runtime: Runtime


def live(assignment: EntityJob, runner: Connection, lifeline: Connection) -> None:
    """The main function of an entity process.

    Asks the runner for a slot before each work step, tells it how far it is, and reports a failure before it ends
    with the exit code of the error. Ends at once when the runner is gone, which closes the `lifeline`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    folder = entity_folder(assignment.folder, assignment.index)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _live(assignment, runner, folder)
        runner.send(("done",))
    except KUberError as error:
        runner.send(("failed", error.code, error.message))
        sys.exit(error.exit_code)
    except BaseException:
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def _live(assignment: EntityJob, runner: Connection, folder: Path) -> None:
    keep_freed_memory()
    torch.set_num_threads(assignment.runtime.threads)
    scene = scenario(assignment.settings)
    log = EventLog(assignment.folder / FILE_NAME, clock=utc_now)
    identity = Identity.kept(folder / KEY_FILE)
    credentials = Credentials(identity, invitation=assignment.invitation, path=folder / TOKEN_FILE)
    with (
        HttpRegistry(assignment.registry, credentials=credentials) as registry,
        HttpVault(assignment.vault, credentials=credentials) as vault,
    ):
        entity = make_entity(
            scene,
            assignment.index,
            runtime=assignment.runtime,
            registry=registry,
            vault=vault,
            checkpoints=Checkpoints(folder),
            log=log,
            identity=identity,
            waiting=waiting_blobs(folder),
        )
        samples = len(entity.learner.private)

        def do(work: Work) -> Any:
            runner.send(("ask", entity.progress, samples))
            runner.recv()  # granted
            try:
                return work.do(throttled(lambda share: runner.send(("progress", share))))
            finally:
                runner.send(("leave",))

        drive(entity.steps(), do)


def throttled(report: Callable[[float], None]) -> Callable[[float], None]:
    """Passes a report on only when the last one is some time ago, or the work is done."""
    last = 0.0

    def maybe(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if share >= 1 or now - last >= PROGRESS_SECONDS:
            last = now
            report(share)

    return maybe


def _end_with(lifeline: Connection) -> None:
    """End this process when the other side of the lifeline closes."""
    try:
        lifeline.recv()
    except EOFError:
        os._exit(1)
