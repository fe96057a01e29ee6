"""Checks of artifact bytes."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from kuber.domain import artifact_checks, tensor_dtypes
from kuber.domain.artifact_checks import PIECE, check_artifact
from kuber.domain.knowledge import WEIGHTS, TensorSpec

FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def check(data):
    check_artifact(WEIGHTS, io.BytesIO(data).read, len(data))


@pytest.mark.parametrize("dtype", FLOATS.values())
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_finds_a_number_that_is_not_finite(dtype, wrong, place):
    numbers = np.full(PIECE // np.dtype(dtype).itemsize * 2 + 3, np.finfo(dtype).max, dtype)
    check(save({"w": numbers}))
    numbers[place] = wrong
    with pytest.raises(ValueError, match="'w' holds a number that is not finite"):
        check(save({"first": np.zeros(3, dtype), "w": numbers}))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_agrees_with_numpy_on_any_bits(bits):
    numbers = np.array(bits, "<u4").view("<f4")
    data = save({"w": numbers})
    if np.isfinite(numbers).all():
        check(data)
    else:
        with pytest.raises(ValueError):
            check(data)


def test_returns_the_manifest_of_weights():
    data = save({"w": np.ones((2, 3), np.float32), "steps": np.array(7)})
    manifest = check_artifact(WEIGHTS, io.BytesIO(data).read, len(data))
    assert manifest == {"w": TensorSpec(dtype="F32", shape=(2, 3)), "steps": TensorSpec(dtype="I64", shape=())}


def test_counters_may_be_anything():
    check(save({"w": np.ones(2, np.float32), "steps": np.array([-1, 2**62])}))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
def test_masks_and_whole_numbers_travel(dtype):
    check(save({"w": np.array([0, 1, 1, 0], dtype)}))


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_boolean_is_0_or_1(place):
    numbers = np.zeros(PIECE + 3, np.bool_)
    data = bytearray(save({"w": numbers}))
    check(data)
    data[place if place < 0 else len(data) - len(numbers) + place] = 2
    with pytest.raises(ValueError, match="'w' holds a boolean that is neither 0 nor 1"):
        check(data)


def test_each_float_has_a_check_of_finiteness():
    assert set(artifact_checks._FLOATS) == tensor_dtypes.FLOATS


def test_other_dtypes_are_refused():
    header = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    with pytest.raises(ValueError, match="'F8_E4M3' is not a dtype of weights"):
        check(len(header).to_bytes(8, "little") + header + bytes(4))


def test_a_truncated_file_is_refused():
    data = save({"w": np.ones(8, np.float32)})
    with pytest.raises(ValueError, match="ends within a tensor"):
        check_artifact(WEIGHTS, io.BytesIO(data[:-4]).read, len(data))
