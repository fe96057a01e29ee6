"""What lies between a simulated entity and the hub: a call of a port takes virtual time, and may not reach it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Page, Query
from kuber.domain.verification import Attestation, Verification
from kuber.errors import ServiceUnavailableError
from kuber.experiment.world.conditions import Conditions


@dataclass
class SharedBandwidth:
    """The hub's own line, which all share: who sends or pulls waits until those before are served."""

    bandwidth: float  # bytes a second
    _free: float = 0.0

    def serve(self, now: float, size: int) -> float:
        """The seconds from now until `size` bytes are through; a call without weights passes by."""
        if size == 0:
            return 0.0
        self._free = max(self._free, now) + size / self.bandwidth
        return self._free - now


class NetworkLink:
    """The way of one entity to the hub and back."""

    def __init__(
        self,
        conditions: Conditions,
        gate: SharedBandwidth,
        *,
        patience: float,
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        """`clock` tells the virtual second; `pause` returns when so many more are over."""
        self._patience = patience
        self._conditions = conditions
        self._gate = gate
        self._clock = clock
        self._pause = pause

    def travel(self, *, up: int = 0, down: int = 0) -> None:
        """Let the time of one call go by, which moves so many bytes of weights; one cut off begins again.

        ServiceUnavailableError, after so many seconds of patience, when the hub cannot be reached.
        """
        link = self._conditions.link
        while True:
            self._await_hub()
            now = self._clock()
            through = self._gate.serve(now, up + down)
            seconds = link.latency + max(through, up / link.up + down / link.down)
            cut = next((cut for cut in self._conditions.cuts if now < cut.start < now + seconds), None)
            if cut is None:
                self._pause(seconds)
                return
            self._pause(cut.start - now)

    def _await_hub(self) -> None:
        for cut in self._conditions.cuts:
            now = self._clock()
            if now in cut:
                if cut.end - now > self._patience:
                    self._pause(self._patience)
                    raise ServiceUnavailableError("The hub cannot be reached; try again later.")
                self._pause(cut.end - now)


class DelayedRegistry:
    """The Registry port at the end of a road. What is asked happens when the call is over, and not before."""

    def __init__(self, registry: Registry, road: NetworkLink) -> None:
        self._registry = registry
        self._road = road

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        self._road.travel()
        return self._registry.register(name, public_key=public_key)

    def member(self, id: str) -> Member:
        self._road.travel()
        return self._registry.member(id)

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        self._road.travel()
        self._registry.report(id, round=round, evaluation=evaluation)

    def change_key(self, id: str, key: Key) -> Member:
        self._road.travel()
        return self._registry.change_key(id, key)

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        self._road.travel()
        return self._registry.members(limit=limit, cursor=cursor)

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        self._road.travel()
        return self._registry.publish(draft, key=key)

    def discover(self, query: Query) -> Page[Knowledge]:
        self._road.travel()
        return self._registry.discover(query)

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        self._road.travel()
        self._registry.attest(id, entity=entity, evaluation=evaluation)

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        self._road.travel()
        return self._registry.attestations(id)

    def verify(self, id: str, verification: Verification) -> None:
        self._road.travel()
        self._registry.verify(id, verification)

    def knowledge(self, id: str) -> Knowledge:
        self._road.travel()
        return self._registry.knowledge(id)

    def withdraw(self, id: str) -> None:
        self._road.travel()
        self._registry.withdraw(id)

    def record(self, delivery: Delivery, *, key: str) -> None:
        self._road.travel()
        self._registry.record(delivery, key=key)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        self._road.travel()
        return self._registry.deliveries(limit=limit, cursor=cursor)


class DelayedVault:
    """The Vault port at the end of a road; what is sent or pulled takes the time of its bytes."""

    def __init__(self, vault: Vault, road: NetworkLink) -> None:
        self._vault = vault
        self._road = road

    def put(self, data: bytes) -> Artifact:
        self._road.travel(up=len(data))
        return self._vault.put(data)

    def get(self, digest: Digest) -> bytes:
        self._road.travel(down=self._vault.size(digest) or 0)
        return self._vault.get(digest)

    def size(self, digest: Digest) -> int | None:
        self._road.travel()
        return self._vault.size(digest)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        self._road.travel()
        return self._vault.blobs(limit=limit, cursor=cursor)

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        self._road.travel()
        self._vault.pin(holder, artifacts)

    def unpin(self, holder: str) -> None:
        self._road.travel()
        self._vault.unpin(holder)
