"""The bytes that are signed: each begins with what it is, so that none can pass for another."""

from dataclasses import replace

from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key
from kuber.wire.base import canonical
from kuber.wire.registry import DraftBody, EnrolmentBody, KeyBody


def record_bytes(draft: Draft) -> bytes:
    """What a publisher signs: all that it says of its knowledge."""
    return body_bytes(DraftBody.of(draft.draft if isinstance(draft, Knowledge) else draft))


def body_bytes(body: DraftBody) -> bytes:
    """As `record_bytes`, of a draft that is a message already."""
    return b"kuber record 1\n" + canonical(body.model_copy(update={"signature": None}))


def succession_bytes(entity: str, key: Key) -> bytes:
    """What an entity signs with its last key to be known by the next."""
    return b"kuber key 1\n" + entity.encode() + b"\n" + canonical(KeyBody.of(replace(key, signature=None)))


def enrolment_bytes(enrolment: EnrolmentBody) -> bytes:
    """What an entity signs to join: that the key it names is its own."""
    return b"kuber enrolment 1\n" + canonical(enrolment.model_copy(update={"signature": None}))
