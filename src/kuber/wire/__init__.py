"""JSON messages between services and their callers: the domain's values, and back.

A message refuses unknown fields; `read` ignores them, so that an older caller understands a newer service.
"""

from kuber.wire.base import Body, DigestText, Message, canonical, sentence
from kuber.wire.event import decode_event, encode_event
from kuber.wire.problem import ProblemBody, error_from, problem_from
from kuber.wire.registry import (
    MAX_CLASSES,
    ArchitectureBody,
    ArtifactBody,
    AttestationBody,
    AuditBody,
    CallerBody,
    CodeBody,
    DeliveryBody,
    DraftBody,
    EnrolledBody,
    EnrolmentBody,
    EvaluationBody,
    HealthBody,
    InvitationBody,
    InvitationRequest,
    KeyBody,
    KnowledgeBody,
    MemberBody,
    PageBody,
    QuarantineRequest,
    ReportBody,
    TaskBody,
    TensorBody,
    TokenBody,
    VerificationBody,
)
from kuber.wire.signing_payloads import body_bytes, enrolment_bytes, record_bytes, succession_bytes
from kuber.wire.vault import (
    AnnouncementBody,
    CollectionBody,
    KindBody,
    PinBody,
    PinnedBody,
    PinsBody,
    ScrubBody,
    UploadBody,
)

PROTOCOL = 1
PROTOCOL_HEADER = "KUber-Protocol"
KEY_HEADER = "Idempotency-Key"
DIRECT_HEADER = "KUber-Direct"

__all__ = [
    "DIRECT_HEADER",
    "KEY_HEADER",
    "MAX_CLASSES",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "AnnouncementBody",
    "ArchitectureBody",
    "ArtifactBody",
    "AttestationBody",
    "AuditBody",
    "Body",
    "CallerBody",
    "CodeBody",
    "CollectionBody",
    "DeliveryBody",
    "DigestText",
    "DraftBody",
    "EnrolledBody",
    "EnrolmentBody",
    "EvaluationBody",
    "HealthBody",
    "InvitationBody",
    "InvitationRequest",
    "KeyBody",
    "KindBody",
    "KnowledgeBody",
    "MemberBody",
    "Message",
    "PageBody",
    "PinBody",
    "PinnedBody",
    "PinsBody",
    "ProblemBody",
    "QuarantineRequest",
    "ReportBody",
    "ScrubBody",
    "TaskBody",
    "TensorBody",
    "TokenBody",
    "UploadBody",
    "VerificationBody",
    "body_bytes",
    "canonical",
    "decode_event",
    "encode_event",
    "enrolment_bytes",
    "error_from",
    "problem_from",
    "record_bytes",
    "sentence",
    "succession_bytes",
]
