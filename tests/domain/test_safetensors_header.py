"""Reading safetensors headers, honest and hostile."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from kuber.domain.knowledge import TensorSpec
from kuber.domain.safetensors_header import (
    HEADER_LIMIT,
    PREFIX_LENGTH,
    USUAL_HEADER,
    header_length,
    read_file_manifest,
    read_manifest,
)


def header_of(data: bytes) -> bytes:
    return data[PREFIX_LENGTH : PREFIX_LENGTH + header_length(data)]


def test_reads_what_safetensors_writes():
    data = save({"w": np.zeros((2, 3), np.float32), "n": np.array(7)}, metadata={"made": "here"})
    manifest = read_manifest(header_of(data), size=len(data))
    assert manifest == {"w": TensorSpec(dtype="F32", shape=(2, 3)), "n": TensorSpec(dtype="I64", shape=())}


@pytest.mark.parametrize("length", [0, 1, HEADER_LIMIT + 1, 2**63])
def test_refuses_an_impossible_header_length(length):
    with pytest.raises(ValueError, match="header has"):
        header_length(length.to_bytes(8, "little"))


def test_refuses_a_file_shorter_than_its_prefix():
    with pytest.raises(ValueError, match="longer than 8 bytes"):
        header_length(b"short")


def entry(begin, end, *, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x80not json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        ({"a": 3}, "lacks"),
        ({"a": {"dtype": "F32"}}, "lacks"),
        ({"a": entry(0, 4, shape=(-1,))}, "an invalid dtype"),
        ({"a": entry(0, True)}, "an invalid dtype"),
        ({"a": entry(0, 4, dtype="PICKLE")}, "not a dtype of weights"),
        ({"a": entry(0, 8)}, "other bytes"),
        ({"a": entry(0, 4, shape=(2**62, 4))}, "other bytes"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, "gap or overlap"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, "gap or overlap"),
        ({"a": entry(4, 8)}, "gap or overlap"),
    ],
)
def test_refuses_a_hostile_header_in_one_sentence(header, reason):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(ValueError, match=reason):
        read_manifest(raw, size=PREFIX_LENGTH + len(raw) + 12)


@pytest.mark.parametrize("extra", [-1, 1])
def test_refuses_missing_or_extra_bytes(extra):
    data = save({"w": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="must end with its last tensor"):
        read_manifest(header_of(data), size=len(data) + extra)


def read_head(data):
    """Return the manifest of a file, and the lengths that were read of it."""
    lengths = []

    def head(length):
        lengths.append(length)
        return data[:length]

    return read_file_manifest(head, size=len(data)), lengths


def test_reads_only_the_beginning_of_a_file(samples):
    assert read_head(samples.weights()) == (samples.architecture.manifest, [USUAL_HEADER])


def test_reads_a_long_header_whole(samples):
    manifest = {f"block.{number}.weight": TensorSpec(dtype="U8", shape=(1,)) for number in range(2000)}
    data = samples.weights(manifest)
    whole = 8 + int.from_bytes(data[:8], "little")
    assert read_head(data) == (manifest, [USUAL_HEADER, whole])


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:4]])
def test_refuses_invalid_files(samples, change):
    with pytest.raises(ValueError, match="safetensors"):
        read_head(change(samples.weights()))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_value_errors(raw):
    with contextlib.suppress(ValueError):
        read_manifest(raw, size=1000)
