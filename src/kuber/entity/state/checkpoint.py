"""What an entity saves so that it can go on where it was: nothing lost, nothing done twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.domain.strategy import Situation
from kuber.entity.state import pending
from kuber.entity.state.pending import OutboxMessage
from kuber.errors import CorruptKnowledgeError
from kuber.files import write_atomically
from kuber.learning.weights import Weights, dump
from kuber.wire import DeliveryBody, EvaluationBody

FILE_NAME = "checkpoint.safetensors"
_GENERATOR = "generator"  # name of the tensor that holds the generator's state
_MODEL = "model."  # prefix of the model's tensors
_START = "start."  # ... of those that its local phase began with

Stage = Literal["trained", "shared", "absorbed", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Absorption:
    """A delivery that is done but perhaps not yet recorded, and what it cost."""

    delivery: Delivery
    publishers: tuple[str, ...]
    samples: int
    forward: int
    seconds: float

    @property
    def detail(self) -> dict[str, Any]:
        """As the event log tells it."""
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
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """An entity between two steps."""

    life: str  # names this life of the entity, so that its idempotency keys are its own
    round: int  # that the stage belongs to; 0 before the first
    stage: Stage
    seq: int  # of the next event
    weights: Weights
    generator: torch.Tensor  # state of the generator that shuffles and augments
    own: Evaluation | None  # of `weights` on the common test set
    previous: Evaluation | None  # at the end of the round before
    member: str | None = None  # the id that the registry gave us
    start: Weights | None = None  # that the local phase of this round began with; until the round has ended
    shared: Evaluation | None = None  # of what was published last
    origin: Digest | None = None  # of the initial checkpoint that `weights` descend from
    parents: tuple[str, ...] = ()  # knowledge absorbed since the last publication
    refused: tuple[str, ...] = ()  # knowledge found unsound
    seen: Mapping[str, int] = field(default_factory=dict)  # candidates -> round first seen
    keys: Mapping[str, str] = field(default_factory=dict)  # entity -> the last public key that we know it by
    published: int = 0  # records signed so far
    errands: tuple[OutboxMessage, ...] = ()  # that the hub has not heard of, in order
    absorption: Absorption | None = None  # done, and not recorded yet

    def situation(
        self,
        *,
        own: Evaluation | None,
        previous: Evaluation | None,
        classes: int,
        samples: int,
        architecture: Architecture,
    ) -> Situation:
        """What the entity knows when it decides: `samples` private ones, 0 where that is not told."""
        return Situation(
            round=self.round,
            classes=classes,
            own=own,
            previous=previous,
            published=self.shared,
            samples=samples,
            architecture=architecture,
            origin=self.origin,
            ages={id: self.round - first for id, first in self.seen.items()},
        )


def initial_state(*, life: str, weights: Weights, generator: torch.Tensor) -> State:
    """The state of an entity that has not trained yet."""
    return State(
        life=life, round=0, stage="ended", seq=0, weights=weights, generator=generator, own=None, previous=None
    )


class CheckpointStore(Protocol):
    """Where an entity keeps its state: on disk to go on after a kill, or nowhere in a simulation."""

    def save(self, state: State) -> None: ...

    def latest(self) -> State | None: ...

    def save_round(self, round: int, weights: Weights) -> str | None:
        """Take the weights at the end of a round; the name of the file they went to, if any."""
        ...


class Checkpoints:
    """The folder of one entity: its latest state, and its weights at the end of each round."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def save(self, state: State) -> None:
        """Replace the latest state; a kill leaves either the old or the new one."""
        tensors = {f"{_MODEL}{name}": tensor.contiguous() for name, tensor in state.weights.items()}
        # Copies: after a phase that was undone, the model is the one it began with, and would share its memory.
        tensors |= {f"{_START}{name}": tensor.clone() for name, tensor in (state.start or {}).items()}
        tensors[_GENERATOR] = state.generator
        write_atomically(self._folder / FILE_NAME, save(tensors, metadata={"state": json.dumps(_encode(state))}))

    def latest(self) -> State | None:
        """The state saved last; None in a new folder."""
        path = self._folder / FILE_NAME
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                fields = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            generator = tensors.pop(_GENERATOR)
            weights = {name.removeprefix(_MODEL): tensors[name] for name in tensors if name.startswith(_MODEL)}
            start = {name.removeprefix(_START): tensors[name] for name in tensors if name.startswith(_START)}
            return _decode(fields, weights=weights, start=start or None, generator=generator)
        except KeyError as error:
            raise CorruptKnowledgeError(
                f"The checkpoint {path} lacks {error}, as one of another KUber would; start a new run."
            ) from None
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise CorruptKnowledgeError(f"The checkpoint {path} cannot be read ({error}); start a new run.") from None

    def save_round(self, round: int, weights: Weights) -> str:
        """Keep the weights at the end of a round; returns the file's name."""
        path = round_path(self._folder, round)
        write_atomically(path, dump(weights))
        return path.name


def round_path(folder: Path, round: int) -> Path:
    """The file in an entity's folder that holds its weights at the end of `round`."""
    return folder / f"round-{round:04d}.safetensors"


def _encode(state: State) -> dict[str, Any]:
    absorption = state.absorption
    return {
        "life": state.life,
        "round": state.round,
        "stage": state.stage,
        "seq": state.seq,
        "own": _encode_evaluation(state.own),
        "previous": _encode_evaluation(state.previous),
        "shared": _encode_evaluation(state.shared),
        "origin": None if state.origin is None else str(state.origin),
        "parents": state.parents,
        "refused": state.refused,
        "seen": dict(state.seen),
        "keys": dict(state.keys),
        "published": state.published,
        "member": state.member,
        "errands": [pending.encode(errand) for errand in state.errands],
        "absorption": absorption
        and {
            "delivery": DeliveryBody.of(absorption.delivery).model_dump(mode="json"),
            "publishers": absorption.publishers,
            "samples": absorption.samples,
            "forward": absorption.forward,
            "seconds": absorption.seconds,
        },
    }


def _decode(fields: dict[str, Any], *, weights: Weights, start: Weights | None, generator: torch.Tensor) -> State:
    absorption = fields.pop("absorption")
    return State(
        life=fields["life"],
        round=fields["round"],
        stage=fields["stage"],
        seq=fields["seq"],
        weights=weights,
        generator=generator,
        own=_decode_evaluation(fields["own"]),
        previous=_decode_evaluation(fields["previous"]),
        start=start,
        shared=_decode_evaluation(fields["shared"]),
        origin=None if fields["origin"] is None else Digest.parse(fields["origin"]),
        parents=tuple(fields["parents"]),
        refused=tuple(fields["refused"]),
        seen=fields["seen"],
        keys=fields["keys"],
        published=fields["published"],
        member=fields["member"],
        errands=tuple(pending.decode(texts) for texts in fields["errands"]),
        absorption=absorption
        and Absorption(
            delivery=DeliveryBody.model_validate_json(json.dumps(absorption["delivery"])).value(),
            publishers=tuple(absorption["publishers"]),
            samples=absorption["samples"],
            forward=absorption["forward"],
            seconds=absorption["seconds"],
        ),
    )


def _encode_evaluation(evaluation: Evaluation | None) -> Any:
    return evaluation and EvaluationBody.of(evaluation).model_dump(mode="json")


def _decode_evaluation(fields: Any) -> Evaluation | None:
    return fields and EvaluationBody.model_validate_json(json.dumps(fields)).value()
