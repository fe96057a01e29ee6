"""Graphs with changed bytes and fields: each is refused in a sentence, or written anew with checked fields only."""

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kuber.learning.onnx_check import Refused, check, checked_model, serialized

MEMORY = 1 << 20


def sound():
    """A graph with constants, attributes with tensors, and several kinds of nodes."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["m"]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(3, "f4"), "c")),
        helper.make_node("Add", ["m", "c"], ["logits"]),
    ]
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        initializer=[numpy_helper.from_array(np.ones((4, 3), "f4"), "w")],
        doc_string="a text",
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, doc_string="a text")


def changed_bytes(data, draws):
    """Change, delete, insert, repeat or swap some bytes."""
    changed = bytearray(data)
    for _ in range(draws.randint(1, 4)):
        place, length = draws.randrange(len(changed)), draws.randint(1, 12)
        match draws.randrange(5):
            case 0:
                changed[place] = draws.randrange(256)
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = draws.randbytes(length)
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                other = draws.randrange(len(changed))
                changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed)


def messages(message):
    """All messages in a message, itself included."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if not hasattr(value, "ListFields") else [value]:
                yield from messages(inner)


def changed_fields(model, draws):
    """Give one field of one message a hostile value, or a copy of another."""
    message = draws.choice(list(messages(model)))
    field = draws.choice(message.DESCRIPTOR.fields)
    single = {
        onnx.AttributeProto.INT: [0, -1, 1 << 40, 1 << 62, 9999],
        "text": ["\x00\x1b[2J", "", "com.microsoft", "Loop", "/etc/passwd", "x" * 10_000],
    }
    try:
        current = getattr(message, field.name)
        if field.message_type is not None:
            target = current if hasattr(current, "ListFields") else current.add()
            source = [other for other in messages(model) if other.DESCRIPTOR.name == field.message_type.name]
            if source:
                target.MergeFrom(draws.choice(source))
            return model.SerializeToString()
        values = single["text"] if field.cpp_type == field.CPPTYPE_STRING else single[onnx.AttributeProto.INT]
        value = draws.choice(values)
        value = value.encode() if field.type == field.TYPE_BYTES else value
        if hasattr(current, "append"):
            current.append(value)
        else:
            setattr(message, field.name, value)
    except (TypeError, ValueError):  # a value that this field does not take
        pass
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["bytes", "fields"])
def test_a_mutated_graph_is_refused_or_made_clean(kind):
    draws, plain = random.Random(kind), sound().SerializeToString()
    outcomes = {"refused": 0, "kept": 0}
    for _ in range(400):
        mutated = changed_bytes(plain, draws) if kind == "bytes" else changed_fields(sound(), draws)
        try:
            data = serialized(checked_model(mutated, memory_bytes=MEMORY))
        except Refused:
            outcomes["refused"] += 1
            continue
        outcomes["kept"] += 1
        again = onnx.ModelProto.FromString(data)
        check(again, memory_bytes=MEMORY)
        assert serialized(checked_model(data, memory_bytes=MEMORY)) == data
        assert data[4:8] != b"ORTM"
        assert not any((again.doc_string, again.metadata_props, again.functions, again.graph.doc_string))
    assert min(outcomes.values()) > 20, outcomes
