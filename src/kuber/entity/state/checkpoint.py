"""State of an entity, saved atomically, so that it resumes with nothing lost and nothing done twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from kuber.domain.attester_record import AttesterRecord
from kuber.domain.delivery import Delivery
from kuber.domain.deployment import Deployed
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.domain.publisher_record import PublisherRecord, PublisherRecords
from kuber.entity.deployment import PERSONAL_FILE, Decision, private_file
from kuber.entity.state import messages
from kuber.entity.state.messages import OutboxMessage
from kuber.entity.state.pinned_keys import CHECKPOINT
from kuber.errors import CorruptKnowledgeError
from kuber.files import write_atomically
from kuber.learning.weights import Weights, dump, load
from kuber.wire.registry import DeliveryBody, EvaluationBody

FILE_NAME = CHECKPOINT
_GENERATOR = "generator"  # name of the tensor that holds the generator's state
_PRIVATE_GENERATOR = "private-generator"  # likewise of the private network
_MODEL = "model."  # prefix of the model's tensors
_EVALUATIONS = ("evaluation", "previous", "published_evaluation")  # whose right answers are kept too
_START = "start."  # prefix of the tensors at the start of the round
_PHASE_START = "phase-start."  # prefix of the tensors that the next local phase, or this round's, starts from
_MOMENTUM = "momentum."  # prefix of the outer step's momentum
_PRIVATE = "private."  # prefix of the tensors of the private network
_OWN_MODELS = {
    "weights": _MODEL,
    "round_start": _START,
    "phase_start": _PHASE_START,
    "momentum": _MOMENTUM,
    "private": _PRIVATE,
}

Stage = Literal["trained", "shared", "absorbed", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Absorption:
    """A delivery that may not be recorded yet, and its cost."""

    delivery: Delivery
    publishers: tuple[str, ...]  # entity ids, one for each teacher
    samples: int = 0  # trained on in epochs of its own
    forward: int = 0  # samples that the teacher ran forward in these
    seconds: float = 0.0
    sent: tuple[float, float] | None = None  # accuracies sent to the hub; None: those of the delivery
    fallen: tuple[tuple[int, float, float], ...] = ()  # label, recall before and after, of classes that fell too far

    @property
    def report(self) -> Delivery:
        """Delivery as it is sent to the hub."""
        if self.sent is None:
            return self.delivery
        return replace(self.delivery, accuracy_before=self.sent[0], accuracy_after=self.sent[1])

    @property
    def detail(self) -> dict[str, Any]:
        """Detail of the event `absorbed`."""
        return {
            "teachers": self.delivery.teachers,
            "publishers": self.publishers,
            "method": self.delivery.method,
            "before": self.delivery.accuracy_before,
            "after": self.delivery.accuracy_after,
            "kept": self.delivery.kept,
            "reason": self.delivery.reason,
            "samples": self.samples,
            "forward": self.forward,
            "seconds": self.seconds,
            **({"fallen": self.fallen} if self.fallen else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """An entity between two steps. The JSON keys of a checkpoint are those in `_encode`."""

    session_id: str  # prefix of the idempotency keys
    round: int  # 0 before the first
    stage: Stage
    next_event: int  # its number in the event log
    weights: Weights
    generator: torch.Tensor  # state of the generator that shuffles and augments
    evaluation: Evaluation | None  # of `weights` on the common test set; None between rounds
    previous: Evaluation | None  # at the end of the previous round
    deployed: Deployed | None = None  # the model it would use; None before the end of a round
    entity_id: str | None = None  # from the registry; None before the entity has joined
    round_start: Weights | None = None  # the model at the start of the round; None between rounds
    phase_start: Weights | None = None  # where a local phase starts beyond `weights`; None: there. Never judged
    momentum: Weights | None = None  # of the outer step
    private: Weights | None = None  # of the private network, of which `weights` are the proxy; None without one
    private_generator: torch.Tensor | None = None  # state of the generator that shuffles and augments for it
    published_evaluation: Evaluation | None = None  # of the last publication
    origin: Digest | None = None  # initial checkpoint that `weights` descend from
    parents: tuple[str, ...] = ()  # knowledge absorbed since the last publication
    refused: tuple[str, ...] = ()  # knowledge found unsound
    publishers: PublisherRecords = field(default_factory=dict)  # of those whose models were examined, latest last
    slow_graphs: Mapping[str, str] = field(default_factory=dict)  # digest -> id of its publisher
    attesters: Mapping[str, AttesterRecord] = field(default_factory=dict)  # by entity id, latest last
    first_seen: Mapping[str, int] = field(default_factory=dict)  # knowledge id -> round
    pinned_keys: Mapping[str, str] = field(default_factory=dict)  # entity id -> its last known public key
    sequence: int = 0  # number of records signed
    acknowledged: int = 0  # sequence of the last record that the hub has stored
    fruitless: Mapping[str, int] = field(default_factory=dict)  # method -> searches in a row without a teacher
    outbox: tuple[OutboxMessage, ...] = ()  # messages that the hub has not received, in order
    absorption: Absorption | None = None  # not recorded yet
    evaluated_since: tuple[Digest, date] | None = None  # set of the last evaluation, and the day of the first on it
    guidance: float = 1.0  # share of its weight that guidance has in the next local phase
    hub: str | None = None  # id of the hub that the entity has joined; None at one of an older version


def initial_state(*, session_id: str, weights: Weights, generator: torch.Tensor) -> State:
    """Return the state of an entity that has not trained yet."""
    return State(
        session_id=session_id,
        round=0,
        stage="ended",
        next_event=0,
        weights=weights,
        generator=generator,
        evaluation=None,
        previous=None,
    )


class CheckpointStore(Protocol):
    """Storage of an entity's state: on disk to resume after a kill, or in memory in a simulation."""

    def save(self, state: State) -> None: ...

    def latest(self) -> State | None: ...

    def save_round(self, round: int, weights: Weights) -> str | None:
        """Store the weights at the end of a round; return the name of their file, if any."""

    def load_round(self, round: int, architecture: Architecture) -> Weights | None:
        """Return the weights at the end of a round; None if they are not kept. Raises KnowledgeError if damaged."""

    def load_deployed(self, deployed: Deployed, architecture: Architecture) -> Weights | None:
        """Return the weights of a model deployed before; None if not kept. Raises KnowledgeError if damaged."""

    def deploy(self, decision: Decision, round: int) -> str | None:
        """Store the model deployed at the end of a round unless it is stored; return the name of its file, if any."""


class Checkpoints:
    """Folder of one entity: its latest state, its weights at the end of each round, and averages it has deployed."""

    def __init__(self, folder: Path, *, holds_weights: bool = True) -> None:
        """Without `holds_weights` the model is its owner's to keep: its tensors are neither saved nor loaded."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._holds_weights = holds_weights

    def save(self, state: State) -> None:
        """Replace the latest state; a kill leaves either the old or the new one."""
        tensors: Weights = {}
        if self._holds_weights:
            # Copies: after a phase that was reverted, models share memory, which safetensors refuses.
            for field_name, prefix in _OWN_MODELS.items():
                held = getattr(state, field_name) or {}
                tensors |= {f"{prefix}{name}": _copy(tensor) for name, tensor in held.items()}
        tensors[_GENERATOR] = state.generator
        if state.private_generator is not None:
            tensors[_PRIVATE_GENERATOR] = state.private_generator
        write_atomically(self._folder / FILE_NAME, save(tensors, metadata={"state": json.dumps(_encode(state))}))

    def latest(self) -> State | None:
        """Return the state saved last; None in a new folder. Raises CorruptKnowledgeError when it cannot be read."""
        path = self._folder / FILE_NAME
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                fields = json.loads(file.metadata()["state"])
                names = [name for name in file.keys() if self._holds_weights or name == _GENERATOR]  # noqa: SIM118
                tensors = {name: file.get_tensor(name) for name in names}
            generator, private_generator = tensors.pop(_GENERATOR), tensors.pop(_PRIVATE_GENERATOR, None)
            models = {
                field_name: {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
                for field_name, prefix in _OWN_MODELS.items()
            }
            state = _decode(fields, models=models, generator=generator)
            return replace(state, private=models["private"] or None, private_generator=private_generator)
        except KeyError as error:
            raise CorruptKnowledgeError(
                f"Checkpoint {path} has no field {error}: a different version of KUber wrote it. Start a new run."
            ) from None
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise CorruptKnowledgeError(f"The checkpoint {path} cannot be read ({error}); start a new run.") from None

    def save_round(self, round: int, weights: Weights) -> str:
        """Store the weights at the end of a round; return the name of their file."""
        path = round_path(self._folder, round)
        write_atomically(path, dump(weights))
        return path.name

    def load_round(self, round: int, architecture: Architecture) -> Weights | None:
        """Return the weights at the end of a round; None if there is no file of them. Raises KnowledgeError."""
        return _load(round_path(self._folder, round), architecture)

    def load_deployed(self, deployed: Deployed, architecture: Architecture) -> Weights | None:
        """Return the weights of a model deployed before; None if there is no file of them. Raises KnowledgeError."""
        path = average_path if deployed.averaged else round_path
        return _load(path(self._folder, deployed.round), architecture)

    def deploy(self, decision: Decision, round: int) -> str:
        """Store a new average; return the name of the file that holds the model deployed at the end of a round."""
        deployed = decision.deployed
        if decision.personal is not None:
            write_atomically(self._folder / PERSONAL_FILE, dump(decision.personal))
        if decision.private is not None:
            write_atomically(self._folder / private_file(round), dump(decision.private.weights))
        if not deployed.averaged:
            return round_path(self._folder, deployed.round).name
        path = average_path(self._folder, deployed.round)
        if decision.average is not None:
            write_atomically(path, dump(decision.average))
        return path.name


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _load(path: Path, architecture: Architecture) -> Weights | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptKnowledgeError(f"{path} cannot be read ({error}).") from None
    return load(data, architecture)


def round_path(folder: Path, round: int) -> Path:
    """Return the path in an entity's folder of its weights at the end of `round`."""
    return folder / f"round-{round:04d}.safetensors"


def average_path(folder: Path, round: int) -> Path:
    """Return the path in an entity's folder of the average that it deployed at the end of `round`."""
    return folder / f"average-{round:04d}.safetensors"


def _encode(state: State) -> dict[str, Any]:
    absorption = state.absorption
    return {
        "life": state.session_id,
        "round": state.round,
        "stage": state.stage,
        "seq": state.next_event,
        "own": _encode_evaluation(state.evaluation),
        "previous": _encode_evaluation(state.previous),
        "deployed": state.deployed
        and {
            "round": state.deployed.round,
            "averaged": state.deployed.averaged,
            "evaluation": _encode_evaluation(state.deployed.evaluation),
        },
        "shared": _encode_evaluation(state.published_evaluation),
        "origin": None if state.origin is None else str(state.origin),
        "parents": state.parents,
        "refused": state.refused,
        "publishers": {
            id: [record.sound, record.useless, record.refused, record.until]
            for id, record in state.publishers.items()
        },
        "slow": dict(state.slow_graphs),
        "attesters": {id: [record.agreed, record.differed] for id, record in state.attesters.items()},
        "seen": dict(state.first_seen),
        "keys": dict(state.pinned_keys),
        "published": state.sequence,
        "acknowledged": state.acknowledged,
        "fruitless": dict(state.fruitless),
        "member": state.entity_id,
        "errands": [messages.encode(message) for message in state.outbox],
        "absorption": absorption
        and {
            "delivery": DeliveryBody.of(absorption.delivery).model_dump(mode="json"),
            "publishers": absorption.publishers,
            "samples": absorption.samples,
            "forward": absorption.forward,
            "seconds": absorption.seconds,
        }
        | ({} if absorption.sent is None else {"sent": absorption.sent})
        | ({} if not absorption.fallen else {"fallen": absorption.fallen}),
        "guidance": state.guidance,
        "right": {name: _encode_right(getattr(state, name)) for name in _EVALUATIONS},
        "hub": state.hub,
        "evaluated_since": state.evaluated_since and [str(part) for part in state.evaluated_since],
    }


def _decode(fields: dict[str, Any], *, models: dict[str, Weights], generator: torch.Tensor) -> State:
    absorption = fields.pop("absorption")
    right = fields.get("right", {})  # older checkpoints lack it
    return State(
        session_id=fields["life"],
        round=fields["round"],
        stage=fields["stage"],
        next_event=fields["seq"],
        weights=models["weights"],
        round_start=models["round_start"] or None,
        phase_start=models["phase_start"] or None,
        momentum=models["momentum"] or None,
        generator=generator,
        evaluation=_decode_evaluation(fields["own"], right.get("evaluation")),
        previous=_decode_evaluation(fields["previous"], right.get("previous")),
        deployed=_decode_deployed(fields.get("deployed")),  # older checkpoints lack it
        published_evaluation=_decode_evaluation(fields["shared"], right.get("published_evaluation")),
        origin=None if fields["origin"] is None else Digest.parse(fields["origin"]),
        parents=tuple(fields["parents"]),
        refused=tuple(fields["refused"]),
        publishers={
            id: PublisherRecord(sound=sound, useless=useless, refused=refused, until=until)
            for id, (sound, useless, refused, until) in fields.get("publishers", {}).items()  # older ones lack it
        },
        slow_graphs=fields.get("slow", {}),  # older checkpoints lack it
        attesters={
            id: AttesterRecord(agreed=agreed, differed=differed)
            for id, (agreed, differed) in fields.get("attesters", {}).items()  # older ones lack it
        },
        first_seen=fields["seen"],
        pinned_keys=fields["keys"],
        sequence=fields["published"],
        acknowledged=fields.get("acknowledged", 0),  # older checkpoints lack it
        fruitless=fields.get("fruitless", {}),  # older checkpoints lack it
        entity_id=fields["member"],
        outbox=tuple(messages.decode(message) for message in fields["errands"]),
        absorption=absorption
        and Absorption(
            delivery=DeliveryBody.model_validate_json(json.dumps(absorption["delivery"])).value(),
            publishers=tuple(absorption["publishers"]),
            samples=absorption["samples"],
            forward=absorption["forward"],
            seconds=absorption["seconds"],
            sent=None if absorption.get("sent") is None else tuple(absorption["sent"]),
            fallen=tuple((label, then, now) for label, then, now in absorption.get("fallen", ())),
        ),
        guidance=fields.get("guidance", 1.0),  # older checkpoints lack it
        hub=fields.get("hub"),
        evaluated_since=_decode_since(fields.get("evaluated_since")),
    )


def _decode_deployed(fields: Any) -> Deployed | None:
    if fields is None:
        return None
    evaluation = _decode_evaluation(fields["evaluation"], None)
    assert evaluation is not None, "a deployed model was evaluated"
    return Deployed(round=fields["round"], evaluation=evaluation, averaged=fields["averaged"])


def _decode_since(fields: Any) -> tuple[Digest, date] | None:
    return fields and (Digest.parse(fields[0]), date.fromisoformat(fields[1]))


def _encode_evaluation(evaluation: Evaluation | None) -> Any:
    return evaluation and EvaluationBody.of(evaluation).model_dump(mode="json")


def _encode_right(evaluation: Evaluation | None) -> list[str] | None:
    """Return the right answers of each class as hex digits; None if they are not known."""
    return None if evaluation is None or evaluation.right is None else [f"{bits:x}" for bits in evaluation.right]


def _decode_evaluation(fields: Any, right: list[str] | None) -> Evaluation | None:
    evaluation = fields and EvaluationBody.model_validate_json(json.dumps(fields)).value()
    if not evaluation or right is None:
        return evaluation
    return replace(evaluation, right=tuple(int(bits, 16) for bits in right))
