"""What ties an entity to its hub, put together over one journal."""

from dataclasses import dataclass

from kuber.domain.knowledge import Architecture
from kuber.domain.ports import Registry, Vault
from kuber.domain.task import Task
from kuber.entity.blobs import Blobs, Waiting
from kuber.entity.housing import Housing
from kuber.entity.journal import Journal
from kuber.entity.line import Line
from kuber.entity.membership import Membership
from kuber.entity.outbox import Outbox
from kuber.entity.publisher import Consents, Forms, Publisher, as_weights
from kuber.entity.retrieval import Evaluating, Retrieval
from kuber.entity.trust import Trust
from kuber.learning.forms import Knows, known_by_name
from kuber.signing import Identity


@dataclass(frozen=True, kw_only=True, slots=True)
class Ties:
    """The parts that talk to registry and vault."""

    line: Line
    outbox: Outbox
    membership: Membership
    retrieval: Retrieval
    publisher: Publisher


def tie(
    journal: Journal,
    identity: Identity,
    *,
    registry: Registry,
    vault: Vault,
    task: Task,
    architecture: Architecture,
    evaluating: Evaluating,
    sample_count: int | None,
    class_counts: tuple[int, ...] | None,
    waiting: Waiting | None,
    cache: Blobs | None,
    knows: Knows = known_by_name,
    verified_only: bool = False,
    consents: Consents = lambda evaluation, round: True,
    narrow: bool = False,
    forms: Forms = as_weights,
    housing: Housing | None = None,
) -> Ties:
    """The ties of the entity whose journal this is; each argument is told of where it is used."""
    line = Line(journal)
    outbox = Outbox(registry=registry, vault=vault, journal=journal, line=line, waiting=waiting)
    trust = Trust(identity, registry=registry, journal=journal)
    retrieval = Retrieval(
        task=task,
        evaluating=evaluating,
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
    return Ties(line=line, outbox=outbox, membership=membership, retrieval=retrieval, publisher=publisher)
