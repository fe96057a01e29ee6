"""What an entity has to tell the hub, and how that is written down until the hub hears it."""

from dataclasses import dataclass

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft
from kuber.wire import DeliveryBody, DraftBody, EvaluationBody


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A signed record whose blobs the vault may not have yet."""

    draft: Draft
    key: str

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Of its blobs."""
        return tuple(artifact.digest for artifact in self.draft.artifacts.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryReport:
    """What became of a delivery."""

    delivery: Delivery
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestationReport:
    """What our own evaluation of somebody's knowledge found."""

    knowledge: str
    evaluation: Evaluation


OutboxMessage = Publication | DeliveryReport | AttestationReport


def encode(errand: OutboxMessage) -> dict[str, str]:
    """An errand as texts."""
    match errand:
        case Publication(draft=draft, key=key):
            return {"publication": DraftBody.of(draft).model_dump_json(), "key": key}
        case DeliveryReport(delivery=delivery, key=key):
            return {"absorbed": DeliveryBody.of(delivery).model_dump_json(), "key": key}
        case AttestationReport(knowledge=knowledge, evaluation=evaluation):
            return {"finding": EvaluationBody.of(evaluation).model_dump_json(), "knowledge": knowledge}


def decode(texts: dict[str, str]) -> OutboxMessage:
    """The errand again. KeyError or ValueError when these are not the texts of one."""
    if "publication" in texts:
        return Publication(draft=DraftBody.read(texts["publication"]).value(), key=texts["key"])
    if "absorbed" in texts:
        return DeliveryReport(delivery=DeliveryBody.read(texts["absorbed"]).value(), key=texts["key"])
    return AttestationReport(knowledge=texts["knowledge"], evaluation=EvaluationBody.read(texts["finding"]).value())
