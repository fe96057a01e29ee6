"""Small blobs that are sent with a record."""

import pytest

from kuber.domain.knowledge import Artifact
from kuber.errors import RequestRejectedError
from kuber.wire.sent_blobs import MAX_SENT_BYTES, check_sent, decode_blob, encode_blobs


def sent(*blobs):
    return {Artifact.of(blob).digest: text for blob, text in zip(blobs, encode_blobs(blobs).values(), strict=True)}


def test_blobs_travel_as_base64_by_digest():
    for data in (b"a", b"ab", b"abc", bytes(range(256))):
        artifact = Artifact.of(data)
        blobs = sent(data)
        check_sent(blobs, [artifact])
        assert decode_blob(artifact, blobs[artifact.digest]) == data


def test_all_blobs_of_a_record_are_small_together():
    half = bytes(MAX_SENT_BYTES // 2)
    artifacts = [Artifact.of(half), Artifact.of(half[1:] + b"x"), Artifact.of(b"z")]
    check_sent(sent(half, half[1:] + b"x"), artifacts)
    with pytest.raises(RequestRejectedError, match="put these in the vault first"):
        check_sent(sent(half, half[1:] + b"x", b"z"), artifacts)
