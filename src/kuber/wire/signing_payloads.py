"""Bytes that are signed; each begins with its kind, so that none can pass for another."""

from dataclasses import replace

from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key
from kuber.wire.base import canonical, canonical_json
from kuber.wire.registry import DraftBody, EnrolmentBody, KeyBody

_UNSIGNED = frozenset({"signature", "prior", "prior_signature"})


def record_bytes(draft: Draft) -> bytes:
    """Return the bytes that a publisher signs: its whole draft but the prior, which `prior_bytes` are for."""
    return body_bytes(DraftBody.of(draft.draft if isinstance(draft, Knowledge) else draft))


def body_bytes(body: DraftBody) -> bytes:
    """Return the same bytes for a draft that is a message already."""
    return signed_and_whole(body)[0]


def signed_and_whole(body: DraftBody) -> tuple[bytes, bytes]:
    """Return the bytes of a draft that are signed, and its canonical JSON, which has also what is not."""
    values = body.model_dump(mode="json", exclude_none=True)
    signed = {name: value for name, value in values.items() if name not in _UNSIGNED}
    return b"kuber record 1\n" + canonical_json(signed), canonical_json(values)


def prior_bytes(draft: Draft) -> bytes:
    """Return the bytes that a publisher signs beside its record: the prior that the logits of this record carry.

    Versions that do not know the field leave it out, and can check the signature of the rest.
    """
    return f"kuber prior 1\n{draft.signature}\n{draft.prior}".encode()


def succession_bytes(entity: str, key: Key) -> bytes:
    """Return the bytes that an entity signs with its last key to introduce the next one."""
    return b"kuber key 1\n" + entity.encode() + b"\n" + canonical(KeyBody.of(replace(key, signature=None)))


def challenge_bytes(hub: str, nonce: str, answered: str) -> bytes:
    """Return the bytes that a hub signs to prove its id: its own nonce, and the one that it answers."""
    return f"kuber challenge 1\n{hub}\n{nonce}\n{answered}".encode()


def enrolment_bytes(enrolment: EnrolmentBody) -> bytes:
    """Return the bytes that an entity signs to join, which prove that the key is its own."""
    return b"kuber enrolment 1\n" + canonical(enrolment.model_copy(update={"signature": None}))
