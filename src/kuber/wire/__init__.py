"""The words of the domain as JSON, and back: what the services and their callers send each other.

A message refuses unknown fields; its `read` ignores them, so that an older caller understands a newer service.
"""

from kuber.wire.blobs import CollectionBody, KindBody, PinBody, PinsBody, ScrubBody, UploadBody
from kuber.wire.bodies import (
    MAX_CLASSES,
    ArchitectureBody,
    ArtifactBody,
    DeliveryBody,
    DraftBody,
    EvaluationBody,
    HealthBody,
    KnowledgeBody,
    MemberBody,
    MemberRequest,
    PageBody,
    TaskBody,
    TensorBody,
)
from kuber.wire.event import decode_event, encode_event
from kuber.wire.message import Body, DigestText, Message, canonical, sentence
from kuber.wire.problem import ProblemBody, error_from, problem_from

PROTOCOL = 1
PROTOCOL_HEADER = "KUber-Protocol"
KEY_HEADER = "Idempotency-Key"

__all__ = [
    "KEY_HEADER",
    "MAX_CLASSES",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "ArchitectureBody",
    "ArtifactBody",
    "Body",
    "CollectionBody",
    "DeliveryBody",
    "DigestText",
    "DraftBody",
    "EvaluationBody",
    "HealthBody",
    "KindBody",
    "KnowledgeBody",
    "MemberBody",
    "MemberRequest",
    "Message",
    "PageBody",
    "PinBody",
    "PinsBody",
    "ProblemBody",
    "ScrubBody",
    "TaskBody",
    "TensorBody",
    "UploadBody",
    "canonical",
    "decode_event",
    "encode_event",
    "error_from",
    "problem_from",
    "sentence",
]
