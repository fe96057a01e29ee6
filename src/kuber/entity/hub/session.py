"""The session of an entity with its hub: joining it, and the parts that talk to it."""

from dataclasses import dataclass

from kuber.domain.knowledge import Architecture
from kuber.domain.ports import Registry, Vault
from kuber.domain.task import Task
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.discovery import Discovery, EvaluationFactory
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.publisher import Consents, Forms, Publisher, as_weights
from kuber.entity.hub.trust import Trust
from kuber.entity.state.blob_cache import BlobCache, PendingBlobs
from kuber.entity.state.journal import Journal
from kuber.entity.work.steps import Execute
from kuber.entity.work.weight_store import WeightStore
from kuber.errors import ConflictError, ServiceUnavailableError
from kuber.learning.compatibility import CanLoad, can_load_by_name
from kuber.signing import Identity


class Membership:
    """Who an entity is at its hub."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        *,
        registry: Registry,
        journal: Journal,
        line: HubAvailability,
        outbox: Outbox,
    ) -> None:
        self._name = name
        self._identity = identity
        self._registry = registry
        self._journal = journal
        self._line = line
        self._outbox = outbox
        self._joined = False  # in this life of the process

    @property
    def id(self) -> str:
        """That the registry gave us."""
        member = self._journal.state.member
        assert member is not None, "nothing is done before the entity has joined"
        return member

    def meet(self) -> None:
        """Join, if that is not done, and tell what waits. Where the hub is away, we go on without it.

        Raises ServiceUnavailableError when it is away and has never known us, ConflictError when it is another one.
        """
        journal = self._journal
        self._line.renew()
        if not self._joined:
            try:
                member = self._registry.register(self._name, public_key=self._identity.public_key)
            except ServiceUnavailableError as error:
                if journal.state.member is None:
                    raise
                self._line.lose(error)
                return
            if journal.state.member is None:
                journal.change(member=member.id, published=member.sequence)
            elif journal.state.member != member.id:
                raise ConflictError(
                    f"This is another registry than the one that entity {self._name!r} joined; go on with that one, "
                    "or start a new run."
                )
            self._joined = True
        self._outbox.deliver()

    def check_told(self) -> None:
        """ServiceUnavailableError when the hub has not heard everything."""
        if self._outbox.waits:
            raise ServiceUnavailableError(
                f"All rounds are done, and {len(self._journal.state.errands)} messages to the hub wait in the "
                f"entity's folder; go on with it when the hub is back. {self._outbox.waits}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSession:
    """The parts that talk to registry and vault."""

    line: HubAvailability
    outbox: Outbox
    membership: Membership
    retrieval: Discovery
    publisher: Publisher


def open_session(
    journal: Journal,
    identity: Identity,
    *,
    registry: Registry,
    vault: Vault,
    task: Task,
    architecture: Architecture,
    evaluating: EvaluationFactory,
    execute: Execute,
    sample_count: int | None,
    class_counts: tuple[int, ...] | None,
    waiting: PendingBlobs | None,
    cache: BlobCache | None,
    knows: CanLoad = can_load_by_name,
    verified_only: bool = False,
    consents: Consents = lambda evaluation, round: True,
    narrow: bool = False,
    forms: Forms = as_weights,
    housing: WeightStore | None = None,
) -> HubSession:
    """The ties of the entity whose journal this is; each argument is told of where it is used."""
    line = HubAvailability(journal)
    outbox = Outbox(registry=registry, vault=vault, journal=journal, line=line, waiting=waiting)
    trust = Trust(identity, registry=registry, journal=journal)
    retrieval = Discovery(
        task=task,
        evaluating=evaluating,
        execute=execute,
        registry=registry,
        vault=vault,
        journal=journal,
        trust=trust,
        line=line,
        outbox=outbox,
        cache=cache,
        verified_only=verified_only,
        knows=knows,
        housing=housing,
    )
    publisher = Publisher(
        task=task,
        architecture=architecture,
        sample_count=sample_count,
        class_counts=class_counts,
        registry=registry,
        vault=vault,
        journal=journal,
        trust=trust,
        retrieval=retrieval,
        outbox=outbox,
        consents=consents,
        narrow=narrow,
        forms=forms,
    )
    membership = Membership(journal.name, identity, registry=registry, journal=journal, line=line, outbox=outbox)
    return HubSession(line=line, outbox=outbox, membership=membership, retrieval=retrieval, publisher=publisher)
