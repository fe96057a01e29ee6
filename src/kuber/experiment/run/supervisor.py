"""The entity processes of a run: started, given slots in turn, watched, and stopped."""

from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from kuber.domain.event import Event
from kuber.entity.state.event_log import EventTail
from kuber.errors import KUberError, TrainingError, error_class
from kuber.experiment.engines.fork_server import CONTEXT
from kuber.experiment.run.entity_process import EntityJob, live
from kuber.experiment.run.hub_processes import HubProcesses
from kuber.experiment.run.scheduler import Slots

LOOK_SECONDS = 0.2  # between two looks at the event log
STOP_SECONDS = 5.0


class RunProgress(Protocol):
    """Who is shown a run while it goes on."""

    def on_event(self, event: Event) -> None: ...

    def on_progress(self, entity: str, fraction: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Child:
    """One entity process and our ends of the two pipes to it."""

    name: str
    process: BaseProcess
    channel: Connection
    lifeline: Connection


class EntitySupervisor:
    """Every entity of a run. `work` returns when all are done, and raises the first failure after stopping all."""

    def __init__(
        self, assignments: list[EntityJob], *, slots: int, hub: HubProcesses, tail: EventTail, watcher: RunProgress
    ) -> None:
        self._slots = Slots(slots)
        self._hub = hub
        self._tail = tail
        self._watcher = watcher
        self._places = [self._start(assignment) for assignment in assignments]

    def work(self) -> None:
        """Serve the entities until the last one is done; none of them outlives this call."""
        active = {place.channel: place for place in self._places}
        try:
            while active:
                for channel in wait(list(active), LOOK_SECONDS):
                    assert isinstance(channel, Connection)
                    if not self._hear(active[channel]):
                        del active[channel]
                for name in self._slots.grant():
                    self._send_grant(name)
                self._show()
                self._hub.check()
            for place in self._places:
                place.process.join(STOP_SECONDS)
            self._show()
        finally:
            self._stop()

    def _start(self, assignment: EntityJob) -> _Child:
        ours, theirs = CONTEXT.Pipe()
        their_lifeline, our_lifeline = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=live, args=(assignment, theirs, their_lifeline), daemon=True)
        process.start()
        theirs.close()
        their_lifeline.close()
        return _Child(str(assignment.index), process, ours, our_lifeline)

    def _hear(self, place: _Child) -> bool:
        """Take one message of an entity; False when it is done. Raises what made it fail."""
        try:
            kind, *rest = place.channel.recv()
        except (EOFError, ConnectionResetError):
            place.process.join(STOP_SECONDS)
            raise TrainingError(
                f"Entity {place.name} ended unexpectedly (exit code {place.process.exitcode}); "
                "its folder may hold a traceback.txt. `kuber run --resume` goes on from its checkpoint."
            ) from None
        if kind == "ask":
            progress, samples = rest
            self._slots.ask(place.name, progress=progress, samples=samples)
        elif kind == "progress":
            self._watcher.on_progress(place.name, rest[0])
        elif kind == "failed":
            code, message = rest
            raise (error_class(code) or KUberError)(f"Entity {place.name}: {message}")
        else:
            self._slots.leave(place.name)
        return bool(kind != "done")

    def _send_grant(self, name: str) -> None:
        place = next(place for place in self._places if place.name == name)
        try:
            place.channel.send("granted")
        except (BrokenPipeError, ConnectionResetError):
            self._slots.leave(name)  # it has died; its channel says so at the next look

    def _show(self) -> None:
        for event in self._tail.read():
            self._watcher.on_event(event)

    def _stop(self) -> None:
        for place in self._places:
            place.lifeline.close()
            place.process.terminate()
        for place in self._places:
            place.process.join(STOP_SECONDS)
            if place.process.is_alive():
                place.process.kill()
                place.process.join()
            place.channel.close()
