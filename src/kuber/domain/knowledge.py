"""Knowledge: the immutable record of one trained model and its quality."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import EvaluationSet
from kuber.domain.member import HUB_LENGTH, SIGNATURE_LENGTH, check_hex
from kuber.domain.task import Task
from kuber.domain.tensor_dtypes import DTYPE_BYTES
from kuber.domain.verification import Verification

WEIGHTS = "weights"  # artifact kind: a safetensors file
ONNX = "onnx"  # artifact kind: an ONNX graph, which runs without the network's code

CarriedPrior = Literal["uniform", "own"]  # of the classes, in a model's logits: own are the training samples' shares

Argument = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """Dtype, as safetensors names it, and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"{self.dtype!r} is not a dtype of weights")
        if any(length < 0 for length in self.shape):
            raise ValueError("a tensor's shape has no negative length")


Manifest = Mapping[str, TensorSpec]  # tensor name -> dtype and shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Network of a model: a name, the arguments of its factory, and the resulting tensors."""

    name: str
    arguments: Mapping[str, Argument]
    manifest: Manifest  # empty for an architecture that is published without weights

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an architecture needs a name")


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One file of a record, in the vault under its digest; `size` in bytes."""

    digest: Digest
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("an artifact has at least one byte")

    @classmethod
    def of(cls, data: bytes) -> "Artifact":
        """Return the artifact that these bytes are."""
        return cls(digest=Digest.of(data), size=len(data))


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """Knowledge as its publisher sends it, before the registry adds an id and a time."""

    entity: str  # id of the publisher
    task: Task
    architecture: Architecture
    artifacts: Mapping[str, Artifact]  # kind -> file
    evaluation: Evaluation  # claimed by the publisher, on the common test set or else on its validation data
    round: int  # the publisher's own, from 1; 0 for an initial checkpoint, which is untrained
    parents: tuple[str, ...] = ()  # ids of the knowledge that it absorbed
    origin: Digest | None = None  # initial checkpoint that the weights descend from, if it is published
    sample_count: int | None = None  # number of training samples, if the publisher states it
    class_counts: tuple[int, ...] | None = None  # training samples of each class, if the publisher states them
    sequence: int = 0  # counts the publisher's signed records, which prevents replays
    signature: str | None = None  # ed25519 of all fields but the prior, as hex digits
    evaluation_set: EvaluationSet | None = None  # if it is the publisher's own; None in records of older versions
    hub: str | None = None  # id of the hub that the record is signed for; None in records of older versions
    prior: CarriedPrior | None = None  # that the logits carry; None if unknown, as in records of older versions
    prior_signature: str | None = None  # of the prior alone, so that older versions can check the other signature

    def __post_init__(self) -> None:
        if not self.artifacts:
            raise ValueError("knowledge has at least one artifact")
        if len(self.evaluation.total) != self.task.classes:
            raise ValueError("the evaluation needs one count for each label of the task")
        if WEIGHTS in self.artifacts and not self.architecture.manifest:
            raise ValueError("the architecture of knowledge with weights needs at least one tensor")
        if self.task.test_set is not None and self.evaluation.test_set != self.task.test_set:
            raise ValueError("the evaluation must be on the common test set of the task")
        if self.round < 0:
            raise ValueError("a round is not negative")
        if self.sample_count is not None and self.sample_count < 0:
            raise ValueError("a sample count is not negative")
        if self.sequence < 0:
            raise ValueError("a sequence is not negative")
        if self.signature is not None:
            check_hex(self.signature, SIGNATURE_LENGTH, "a signature")
        if self.hub is not None:
            check_hex(self.hub, HUB_LENGTH, "the id of a hub")
        if self.prior not in (None, "uniform", "own"):
            raise ValueError("a prior is uniform or own")
        if self.prior_signature is not None:
            check_hex(self.prior_signature, SIGNATURE_LENGTH, "a signature")
        if self.class_counts is not None and len(self.class_counts) != self.task.classes:
            raise ValueError("class counts need one count for each label of the task")
        if self.evaluation_set is not None and self.task.test_set is not None:
            raise ValueError("a task with a common test set has no evaluation set besides")

    @property
    def claimed_accuracy(self) -> float | None:
        """Accuracy that the publisher claims, 0 to 1; None if its validation set is too small to publish any."""
        withheld = self.evaluation_set is not None and self.evaluation_set.cells == "withheld"
        return None if withheld else self.evaluation.accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge(Draft):
    """A published draft, with the registry's id, time and verification."""

    id: str
    published_at: datetime
    verification: Verification | None = None  # None until the hub has verified the record
    copy_of: str | None = None  # id of the first record of another publisher with the same file, both trained

    def __repr__(self) -> str:
        kinds = " and ".join(self.artifacts)
        accuracy = self.claimed_accuracy
        claim = "no accuracy" if accuracy is None else f"{100 * accuracy:.1f} %"
        return (
            f"<Knowledge {self.id}: {self.task.name}, {self.architecture.name} as {kinds}, entity {self.entity} "
            f"round {self.round}, {claim} claimed>"
        )

    @property
    def trusted(self) -> Evaluation:
        """Evaluation to rank by: the hub's on the task's test set, or else the publisher's claim."""
        found = self.verification.evaluation if self.verification else None
        return found if found is not None and found.test_set == self.task.test_set else self.evaluation

    @property
    def draft(self) -> Draft:
        """Draft of the publisher."""
        return Draft(**{field.name: getattr(self, field.name) for field in fields(Draft)})

    @classmethod
    def from_draft(cls, draft: Draft, *, id: str, published_at: datetime) -> "Knowledge":
        """Return the draft as a record with the registry's id and time."""
        values = {field.name: getattr(draft, field.name) for field in fields(Draft)}
        return cls(**values, id=id, published_at=published_at)
