"""Simulated network between an entity and the hub: a call of a port takes virtual time, and may fail."""

from dataclasses import dataclass

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Page, Query
from kuber.domain.verification import Attestation
from kuber.entity.clock import Clock
from kuber.errors import ServiceUnavailableError
from kuber.experiment.world.conditions import Conditions


@dataclass
class SharedBandwidth:
    """The hub's bandwidth, shared by all entities: transfers are served one after the other."""

    bandwidth: float  # bytes a second
    _free: float = 0.0

    def reserve(self, now: float, size: int) -> float:
        """Queue a transfer of `size` bytes; return the seconds from now until it is done, 0 without bytes."""
        if size == 0:
            return 0.0
        self._free = max(self._free, now) + size / self.bandwidth
        return self._free - now


class NetworkLink:
    """The connection of one entity to the hub."""

    def __init__(
        self,
        conditions: Conditions,
        hub: SharedBandwidth,
        *,
        patience: float,
        clock: Clock,
    ) -> None:
        """`clock` is the virtual one; `patience` is in seconds."""
        self._patience = patience
        self._conditions = conditions
        self._hub = hub
        self._clock = clock

    def transfer(self, *, up: int = 0, down: int = 0) -> None:
        """Sleep for the duration of one call that moves so many bytes of weights; a call cut off is repeated.

        Raises ServiceUnavailableError, after the link's patience, while the hub is unreachable.
        """
        link = self._conditions.link
        while True:
            self._await_hub()
            now = self._clock.now()
            queued = self._hub.reserve(now, up + down)
            seconds = link.latency + max(queued, up / link.up + down / link.down)
            cut = next((cut for cut in self._conditions.cuts if now < cut.start < now + seconds), None)
            if cut is None:
                self._clock.sleep(seconds)
                return
            self._clock.sleep(cut.start - now)

    def _await_hub(self) -> None:
        for cut in self._conditions.cuts:
            now = self._clock.now()
            if now in cut:
                if cut.end - now > self._patience:
                    self._clock.sleep(self._patience)
                    raise ServiceUnavailableError("The hub cannot be reached; try again later.")
                self._clock.sleep(cut.end - now)


class DelayedRegistry:
    """The Registry port over a network link. A call takes effect when its time is over, not before."""

    def __init__(self, registry: Registry, link: NetworkLink) -> None:
        self._registry = registry
        self._link = link

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        self._link.transfer()
        return self._registry.register(name, public_key=public_key)

    def hub_id(self) -> str | None:
        return self._registry.hub_id()

    def member(self, id: str) -> Member:
        self._link.transfer()
        return self._registry.member(id)

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        self._link.transfer()
        self._registry.report(id, round=round, evaluation=evaluation)

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        self._link.transfer()
        return self._registry.publish(draft, key=key)

    def discover(self, query: Query) -> Page[Knowledge]:
        self._link.transfer()
        return self._registry.discover(query)

    def knowledge(self, id: str) -> Knowledge:
        self._link.transfer()
        return self._registry.knowledge(id)

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        self._link.transfer()
        self._registry.attest(id, entity=entity, evaluation=evaluation)

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        self._link.transfer()
        return self._registry.attestations(id)

    def record(self, delivery: Delivery, *, key: str) -> None:
        self._link.transfer()
        self._registry.record(delivery, key=key)


class DelayedVault:
    """The Vault port over a network link; a transfer takes the time of its bytes."""

    def __init__(self, vault: Vault, link: NetworkLink) -> None:
        self._vault = vault
        self._link = link

    def put(self, data: bytes) -> Artifact:
        self._link.transfer(up=len(data))
        return self._vault.put(data)

    def get(self, digest: Digest) -> bytes:
        self._link.transfer(down=self._vault.size(digest) or 0)
        return self._vault.get(digest)

    def size(self, digest: Digest) -> int | None:
        self._link.transfer()
        return self._vault.size(digest)
