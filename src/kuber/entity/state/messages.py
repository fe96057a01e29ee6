"""Messages from an entity to the hub, and their JSON while they are queued."""

from dataclasses import dataclass

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft
from kuber.wire.registry import DeliveryBody, DraftBody, EvaluationBody


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A signed record whose blobs the vault may not have yet."""

    draft: Draft
    key: str

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Digests of its blobs."""
        return tuple(artifact.digest for artifact in self.draft.artifacts.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryReport:
    """The outcome of a delivery."""

    delivery: Delivery
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestationReport:
    """This entity's own evaluation of another's knowledge."""

    knowledge: str
    evaluation: Evaluation


OutboxMessage = Publication | DeliveryReport | AttestationReport


def encode(message: OutboxMessage) -> dict[str, str]:
    """Return a message as JSON fields."""
    match message:
        case Publication(draft=draft, key=key):
            return {"publication": DraftBody.of(draft).model_dump_json(), "key": key}
        case DeliveryReport(delivery=delivery, key=key):
            return {"absorbed": DeliveryBody.of(delivery).model_dump_json(), "key": key}
        case AttestationReport(knowledge=knowledge, evaluation=evaluation):
            return {"finding": EvaluationBody.of(evaluation).model_dump_json(), "knowledge": knowledge}


def decode(fields: dict[str, str]) -> OutboxMessage:
    """Return the message with these JSON fields. Raises KeyError or ValueError when there is none."""
    if "publication" in fields:
        return Publication(draft=DraftBody.read(fields["publication"]).value(), key=fields["key"])
    if "absorbed" in fields:
        return DeliveryReport(delivery=DeliveryBody.read(fields["absorbed"]).value(), key=fields["key"])
    return AttestationReport(knowledge=fields["knowledge"], evaluation=EvaluationBody.read(fields["finding"]).value())
