"""Supervisor of the entity processes of a run: starts them, grants slots, forwards events, stops them."""

from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from kuber.entity.state.event_log import EventTail
from kuber.errors import KUberError, TrainingError, error_class
from kuber.experiment.engines.fork_server import CONTEXT
from kuber.experiment.progress import RunProgress
from kuber.experiment.run.entity_process import EntityJob, main
from kuber.experiment.run.hub_processes import HubProcesses
from kuber.experiment.run.scheduler import SlotScheduler

POLL_SECONDS = 0.2  # between two reads of the event log
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Child:
    """One entity process and our ends of the two pipes to it."""

    name: str
    process: BaseProcess
    channel: Connection
    lifeline: Connection


class EntitySupervisor:
    """Every entity process of a run."""

    def __init__(
        self, jobs: list[EntityJob], *, slots: int, hub: HubProcesses, tail: EventTail, progress: RunProgress
    ) -> None:
        self._scheduler = SlotScheduler(slots)
        self._hub = hub
        self._tail = tail
        self._progress = progress
        self._children = [self._start(job) for job in jobs]

    def run(self) -> None:
        """Serve the entities until the last one is done; stop all of them before returning.

        Raises the KUberError of the first entity that fails, and ServiceError when a service of the hub has ended.
        """
        active = {child.channel: child for child in self._children}
        try:
            while active:
                for channel in wait(list(active), POLL_SECONDS):
                    assert isinstance(channel, Connection)
                    if not self._receive(active[channel]):
                        del active[channel]
                for name in self._scheduler.grant():
                    self._send_grant(name)
                self._forward_events()
                self._hub.check()
            for child in self._children:
                child.process.join(STOP_SECONDS)
            self._forward_events()
        finally:
            self._stop()

    def _start(self, job: EntityJob) -> _Child:
        ours, theirs = CONTEXT.Pipe()
        their_lifeline, our_lifeline = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=main, args=(job, theirs, their_lifeline), daemon=True)
        process.start()
        theirs.close()
        their_lifeline.close()
        return _Child(str(job.index), process, ours, our_lifeline)

    def _receive(self, child: _Child) -> bool:
        """Handle one message of an entity. Return False when it is done; raise its error when it failed."""
        try:
            kind, *content = child.channel.recv()
        except (EOFError, ConnectionResetError):
            child.process.join(STOP_SECONDS)
            raise TrainingError(
                f"Entity {child.name} ended unexpectedly (exit code {child.process.exitcode}); "
                "its folder may hold a traceback.txt. `kuber run --resume` continues from its checkpoint."
            ) from None
        if kind == "request":
            progress, samples = content
            self._scheduler.request(child.name, progress=progress, samples=samples)
        elif kind == "progress":
            self._progress.on_progress(child.name, content[0])
        elif kind == "failed":
            code, message = content
            raise (error_class(code) or KUberError)(f"Entity {child.name}: {message}")
        else:  # "release" or "done"
            self._scheduler.release(child.name)
        return bool(kind != "done")

    def _send_grant(self, name: str) -> None:
        child = next(child for child in self._children if child.name == name)
        try:
            child.channel.send("granted")
        except (BrokenPipeError, ConnectionResetError):
            self._scheduler.release(name)  # it has died; the next `_receive` raises

    def _forward_events(self) -> None:
        for event in self._tail.read():
            self._progress.on_event(event)

    def _stop(self) -> None:
        for child in self._children:
            child.lifeline.close()
            child.process.terminate()
        for child in self._children:
            child.process.join(STOP_SECONDS)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.channel.close()
