"""Messages of the registry. Fields have the names of the dataclass fields."""

from dataclasses import replace
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from kuber.domain.architecture_pin import ArchitecturePin
from kuber.domain.auth import AuditEntry, Caller, Invitation, Scope
from kuber.domain.delivery import MAX_REASON, Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import Cells, EvaluationSet
from kuber.domain.knowledge import Architecture, Artifact, CarriedPrior, Draft, Knowledge, TensorSpec
from kuber.domain.member import Key, Member
from kuber.domain.printable_text import printable
from kuber.domain.query import MAX_LIMIT, Page
from kuber.domain.suspicion import Suspicion
from kuber.domain.task import Task
from kuber.domain.tensor_dtypes import MAX_DIMENSIONS, MAX_TENSOR_NAME, MAX_TENSORS
from kuber.domain.verification import Attestation, Standing, Verification
from kuber.wire.base import (
    Body,
    Count,
    Day,
    DigestField,
    Escaped,
    HexText,
    Message,
    Positive,
    RoundNumber,
    Sentence,
    Share,
    Text,
    Time,
)
from kuber.wire.sent_blobs import SentBlobs

MAX_CLASSES = 100_000
MAX_VERDICT = 1000  # characters of the reason of a verification

B = TypeVar("B", bound=BaseModel)


def _not_integer(value: Any) -> Any:
    if isinstance(value, int):
        raise ValueError("an integer is not read as a float, which could have another value")
    return value


def _argument_error(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(
            "an argument is a 64-bit integer, a finite number, a text, true, false, or a list of integers"
        ) from None


def _escaped_reason(value: Any) -> Any:
    """Return the reason of a verdict fit to be shown; it may quote what a model's maker wrote."""
    fits = isinstance(value, str) and len(value) <= MAX_VERDICT
    return printable(value)[:MAX_VERDICT] if fits else value


def _not_blank(text: str) -> str:
    if text.isspace():
        raise ValueError("it must not be blank")
    return text


Counts = Annotated[tuple[Count, ...], Field(max_length=MAX_CLASSES)]
Shape = Annotated[tuple[Count, ...], Field(max_length=MAX_DIMENSIONS)]
_Integer = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False), BeforeValidator(_not_integer)]
_Argument = Annotated[
    StrictBool | _Integer | _Number | Annotated[str, Field(max_length=1000)] | tuple[_Integer, ...],
    WrapValidator(_argument_error),
]
Secret = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]*$")]


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$", description="Made by the registry; no path has it.")]
HubId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="Id of a hub: its public key, as hex digits.")]


class EvaluationBody(Body[Evaluation]):
    """Evaluation: counts per class."""

    test_set: DigestField
    correct: Counts
    total: Counts


class EvaluationSetBody(Body[EvaluationSet]):
    """The publisher's own validation data."""

    since: Day
    cells: Cells = "all"


class VerificationBody(Body[Verification]):
    """The hub's verification of a record."""

    standing: Standing
    reason: Annotated[str, BeforeValidator(_escaped_reason), Field(min_length=1, max_length=MAX_VERDICT)]
    evaluation: EvaluationBody | None = None


class QuarantineRequest(Message):
    """The operator's reason to quarantine a record."""

    reason: Annotated[Text, AfterValidator(_not_blank)]


class AttestationBody(Body[Attestation]):
    """An entity's evaluation of another entity's knowledge."""

    entity: Text
    evaluation: EvaluationBody
    at: Time


class SuspicionBody(Body[Suspicion]):
    """A record that the evaluations of others contradict, or a copy."""

    knowledge: Text
    entity: Text
    publisher: Text
    claimed: Share
    found: Share | None = None
    agreed: Count = 0
    refused_by: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    copy_of: Text | None = None
    first_publisher: Text | None = None


class TaskBody(Body[Task]):
    """A task."""

    name: Text
    labels: Annotated[tuple[Text, ...], Field(min_length=2, max_length=MAX_CLASSES)]
    input_shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)]
    test_set: DigestField | None = None


class TensorBody(Body[TensorSpec]):
    """Dtype and shape of one tensor."""

    dtype: Annotated[str, Field(max_length=16)]
    shape: Shape

    def value(self) -> TensorSpec:
        """Return the domain value; written out, since a manifest has many."""
        return TensorSpec(dtype=self.dtype, shape=self.shape)


ManifestField = Annotated[
    dict[Annotated[str, Field(max_length=MAX_TENSOR_NAME)], TensorBody], Field(max_length=MAX_TENSORS)
]


class ArchitectureBody(Body[Architecture]):
    """Network that the weights belong to."""

    name: Text
    arguments: Annotated[dict[Text, _Argument], Field(max_length=1000)]
    manifest: ManifestField


class PinnedArchitectureBody(Body[ArchitecturePin]):
    """Pin of an architecture: a name and its arguments."""

    pin: HexText
    name: Text
    arguments: Annotated[dict[Text, _Argument], Field(max_length=1000)]
    records: Count


class ArtifactBody(Body[Artifact]):
    """One file in the vault."""

    digest: DigestField
    size: Positive


class _DraftFields(Message):
    entity: Text
    task: TaskBody
    architecture: ArchitectureBody
    artifacts: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")], ArtifactBody],
        Field(min_length=1, max_length=16),
    ]
    evaluation: EvaluationBody
    round: RoundNumber
    parents: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    origin: DigestField | None = None
    sample_count: Count | None = None
    class_counts: Counts | None = None
    sequence: Count = 0
    signature: HexText | None = None
    evaluation_set: EvaluationSetBody | None = None
    hub: HubId | None = None
    prior: CarriedPrior | None = None
    prior_signature: HexText | None = None


class DraftBody(_DraftFields, Body[Draft]):
    """Knowledge as its publisher sends it."""


class PublicationBody(DraftBody):
    """A draft with small blobs, which are no part of the record: their bytes are stored in the vault with it."""

    blobs: SentBlobs = Field(default_factory=dict, exclude=True)


class KnowledgeBody(_DraftFields, Body[Knowledge]):
    """A published record."""

    id: Id
    published_at: Time
    verification: VerificationBody | None = None
    copy_of: Text | None = None


class KeyBody(Body[Key]):
    """A public key of an entity."""

    public_key: HexText
    since: Count = 0
    signature: HexText | None = None
    hub: HubId | None = None
    by_hub: Literal[True] | None = None


class MemberBody(Body[Member]):
    """A registered entity."""

    id: Id
    name: Text
    registered_at: Time
    sequence: Count = 0
    keys: Annotated[tuple[KeyBody, ...], Field(max_length=1000)] = ()


class ChallengeRequest(Message):
    """Request for a challenge to sign; the hub signs this nonce, which proves that it has its key."""

    nonce: HexText


class ChallengeBody(Message):
    """Nonce to be signed by who joins, within minutes and once, and the hub's proof of its id."""

    hub: HubId
    nonce: HexText
    signature: HexText


class EnrolmentBody(Message):
    """Request to join under a name, signed with the entity's key for the hub and its nonce."""

    name: Text
    public_key: HexText
    at: Time  # when it was signed
    invitation: Secret | None = None
    hub: HubId | None = None  # with a nonce of this hub; both are None in older versions
    nonce: HexText | None = None
    signature: HexText | None = None


class TokenBody(Message):
    """A token to be checked."""

    token: Secret


class EnrolledBody(Message):
    """A member and its new token."""

    member: MemberBody
    token: Secret


class CallerBody(Body[Caller]):
    """Owner of a token."""

    scope: Scope
    expires_at: Time
    entity: Text | None = None


class InvitationRequest(Message):
    """Request for an invitation: a name, and days until it expires."""

    name: Text
    days: Annotated[float, Field(gt=0, le=366)] = 7.0


class InvitationBody(Body[Invitation]):
    """Invitation for an entity to join, without its code."""

    name: Text
    made_at: Time
    expires_at: Time
    used_at: Time | None = None


class ReportBody(Message):
    """Report of an entity that is alive: its round, and the evaluation of its model."""

    round: RoundNumber
    evaluation: EvaluationBody | None = None


class CodeBody(Message):
    """Code of a new invitation; it is sent once."""

    code: Secret


class AuditBody(Body[AuditEntry]):
    """A change at the hub."""

    time: Time
    actor: Text
    act: Text
    subject: Text
    detail: Annotated[dict[Text, Any], Field(max_length=100, default_factory=dict)]


MISSED = "missed"  # type of the server-sent event that says which events were removed


class MissedBody(Message):
    """Statement to a follower that events after number `after` are no longer there: they had reached their age.

    The last of them has the number `through` and the time `until`. Some with lower numbers are still there.
    """

    after: Annotated[int, Field(ge=0)]
    through: Annotated[int, Field(ge=0)]
    until: Time


class IdsBody(Message):
    """Ids of records that match a part of one, the earliest first."""

    knowledge: tuple[Text, ...]


class DeliveryBody(Body[Delivery]):
    """Outcome of absorbing knowledge."""

    student: Text
    teachers: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]
    method: Text
    round: RoundNumber
    accuracy_before: Share
    accuracy_after: Share
    kept: StrictBool
    reason: Annotated[Sentence, Field(max_length=MAX_REASON)] | None = None


class PageBody(Message, Generic[B]):
    """One page of a listing; `cursor` continues with the next page."""

    items: Annotated[tuple[B, ...], Field(max_length=MAX_LIMIT)]
    cursor: Annotated[str, Field(max_length=4000)] | None = None

    @classmethod
    def of(cls, page: Page[Any]) -> Self:
        """Return the message of this page, on a parametrised class such as PageBody[MemberBody]."""
        return cls.model_validate(page, from_attributes=True)

    def value(self) -> Page[Any]:
        """Return the page of domain values."""
        items = tuple(item.value() if isinstance(item, Body) else item for item in self.items)
        return Page(items=items, cursor=self.cursor)


class RecordPageBody(PageBody[KnowledgeBody]):
    """One page of records; `omitted` are the ids of those that are too large for any page."""

    omitted: Annotated[tuple[Text, ...], Field(max_length=MAX_LIMIT)] = ()

    def value(self) -> Page[Knowledge]:
        """Return the page of domain values."""
        return replace(super().value(), omitted=self.omitted)


class HealthBody(Message):
    """Answer of /healthz."""

    status: Literal["ok"]
    service: Annotated[Escaped, Field(max_length=200)]
    protocol: Annotated[int, Field(strict=True)]
    version: Annotated[Escaped, Field(max_length=200)]
    hub: HubId | None = None  # of a registry
