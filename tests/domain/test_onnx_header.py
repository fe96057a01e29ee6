"""Outermost fields of an ONNX file, read without a library."""

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from kuber.domain.artifact_checks import check_artifact
from kuber.domain.knowledge import ONNX


def file(*, domain="", functions=()):
    inner = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "logits")]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["logits"])], "g", inner[:1], inner[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_model(body, opset_imports=opsets, functions=functions, ir_version=8).SerializeToString()


def check(data):
    check_artifact(ONNX, io.BytesIO(data).read, len(data))


def test_a_graph_of_standard_operators_is_accepted():
    check(file())
    check(file(domain="ai.onnx.ml"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "one graph"),
        (b"PK\x03\x04 a zip file", "not an ONNX file|ONNX does not define"),
        (file()[:-3], "ends within"),
        (file() + b"\x00", "not an ONNX file|ends within"),
        (file() + file(), "one graph"),
        (b"\x08\x08\x12\x04ORTM" + file()[2:], "onnxruntime's own format"),
        (file(domain="com.microsoft"), "'com.microsoft', which are not standard"),
        (file(functions=[helper.make_function("", "F", [], [], [], [])]), "functions"),
        (b"\x08\x01" * 20_000, "over 10000 fields"),
        (b"\x08" + b"\xff" * 11, "not an ONNX file"),
        (b"\x12\xff\xff\xff\xff\x0f", "ends within"),
    ],
)
def test_other_files_are_refused_in_a_sentence(data, words):
    with pytest.raises(ValueError, match=words):
        check(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_value_errors(data):
    with suppress(ValueError):
        check(data)
