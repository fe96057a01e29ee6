"""Knowledge: the immutable record that names one trained model and what is known of its quality."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.member import SIGNATURE_LENGTH, check_hex
from kuber.domain.task import Task
from kuber.domain.verification import Verification

WEIGHTS = "weights"  # artifact kind: a safetensors file
ONNX = "onnx"  # artifact kind: a network as one file that runs without its code

_DTYPES = {"BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64"}

Argument = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """Dtype (as safetensors writes it) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"{self.dtype!r} is not a safetensors dtype")
        if any(length < 0 for length in self.shape):
            raise ValueError("a tensor's shape has no negative length")


Manifest = Mapping[str, TensorSpec]  # tensor name -> dtype and shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Which network the weights belong to: a name, the arguments of its factory, and the tensors that result."""

    name: str
    arguments: Mapping[str, Argument]
    manifest: Manifest  # empty for an architecture that is published without weights

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an architecture needs a name")


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One file of a piece of knowledge, in the vault under its digest; `size` in bytes."""

    digest: Digest
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("an artifact has at least one byte")

    @classmethod
    def of(cls, data: bytes) -> "Artifact":
        """That these bytes are."""
        return cls(digest=Digest.of(data), size=len(data))


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """Knowledge as its publisher writes it, before the registry gives it an id and a time."""

    entity: str  # id of the publisher
    task: Task
    architecture: Architecture
    artifacts: Mapping[str, Artifact]  # kind -> file
    evaluation: Evaluation  # claimed by the publisher, on the common test set or else on its own validation data
    round: int  # the publisher's own round, from 1; 0 for an initial checkpoint, which nobody has trained yet
    parents: tuple[str, ...] = ()  # ids of the knowledge it absorbed
    origin: Digest | None = None  # of the initial checkpoint that its weights descend from, where it is published
    sample_count: int | None = None  # training samples, where the publisher chooses to tell
    class_counts: tuple[int, ...] | None = None  # of its training samples, where it chooses to tell
    sequence: int = 0  # counts the publisher's signed records, so that none can be sent again as another
    signature: str | None = None  # ed25519, as hex digits, of all the rest

    def __post_init__(self) -> None:
        if not self.artifacts:
            raise ValueError("knowledge has at least one artifact")
        if len(self.evaluation.total) != self.task.classes:
            raise ValueError("the evaluation of knowledge has one count for each label of its task")
        if WEIGHTS in self.artifacts and not self.architecture.manifest:
            raise ValueError("knowledge with weights names at least one tensor of its architecture")
        if self.task.test_set is not None and self.evaluation.test_set != self.task.test_set:
            raise ValueError("knowledge is evaluated on the common test set of its task")
        if self.round < 0:
            raise ValueError("a round is not negative")
        if self.sample_count is not None and self.sample_count < 0:
            raise ValueError("a sample count is not negative")
        if self.sequence < 0:
            raise ValueError("a sequence is not negative")
        if self.signature is not None:
            check_hex(self.signature, SIGNATURE_LENGTH, "a signature")
        if self.class_counts is not None and len(self.class_counts) != self.task.classes:
            raise ValueError("class counts have one count for each label of the task")


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge(Draft):
    """A published draft, with what the registry added."""

    id: str
    published_at: datetime
    verification: Verification | None = None  # where the hub has looked

    def __repr__(self) -> str:
        kinds = " and ".join(self.artifacts)
        return (
            f"<Knowledge {self.id}: {self.task.name}, {self.architecture.name} as {kinds}, entity {self.entity} "
            f"round {self.round}, {100 * self.evaluation.accuracy:.1f} % claimed>"
        )

    @property
    def trusted(self) -> Evaluation:
        """What the hub found on the task's test set; where it did not look, what the publisher claims."""
        found = self.verification.evaluation if self.verification else None
        return found if found is not None and found.test_set == self.task.test_set else self.evaluation

    @property
    def draft(self) -> Draft:
        """What the publisher wrote."""
        return Draft(**{field.name: getattr(self, field.name) for field in fields(Draft)})

    @classmethod
    def from_draft(cls, draft: Draft, *, id: str, published_at: datetime) -> "Knowledge":
        """The draft with the id and the time that the registry gives it."""
        told = {field.name: getattr(draft, field.name) for field in fields(Draft)}
        return cls(**told, id=id, published_at=published_at)
