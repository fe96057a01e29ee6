"""What is kept of an ONNX file, and what is refused before it is run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kuber.learning.onnx_check import Refused, checked_model, serialized

FLOAT = TensorProto.FLOAT
MEMORY = 1 << 20


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(nodes=None, constants=None, opsets=(("", 17),)):
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("logits", FLOAT, None)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])] if nodes is None else nodes
    constants = [constant("w", np.ones((4, 3)))] if constants is None else constants
    body = helper.make_graph(nodes, "g", inputs, outputs, initializer=constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], ir_version=8)


def clean(message):
    return serialized(checked_model(message.SerializeToString(), memory_bytes=MEMORY))


def test_a_plain_graph_stays_the_same():
    plain = model()
    plain.ClearField("producer_name")
    assert onnx.ModelProto.FromString(clean(plain)) == plain


def test_nothing_is_kept_that_is_not_checked():
    full = model()
    secret = "hidden text"
    full.producer_name = full.doc_string = full.domain = full.producer_version = full.graph.doc_string = secret
    full.metadata_props.add(key="ort_config", value=secret)
    full.graph.metadata_props.add(key="key", value=secret)
    full.graph.value_info.append(helper.make_tensor_value_info(secret, FLOAT, [1 << 60]))
    full.graph.quantization_annotation.add(tensor_name=secret)
    full.graph.initializer[0].doc_string = full.graph.input[0].doc_string = full.graph.node[0].doc_string = secret
    full.graph.input[0].type.denotation = secret
    full.graph.input[0].type.tensor_type.shape.dim[0].denotation = secret
    full.graph.node[0].metadata_props.add(key="key", value=secret)
    full.graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.INT, i=1, doc_string=secret)
    unknown = bytes((0xAA, 0x3E, len(secret))) + secret.encode()  # field 997
    full.graph.MergeFromString(unknown)
    full.graph.node[0].MergeFromString(unknown)
    full.graph.initializer[0].MergeFromString(unknown)
    assert secret.encode() in full.SerializeToString()
    assert secret.encode() not in clean(full)


def test_a_file_that_onnxruntime_takes_for_its_own_format_is_refused():
    other = model()
    other.producer_name = "ORTM"  # bytes 4 to 8
    assert other.SerializeToString()[4:8] == b"ORTM"
    with pytest.raises(Refused, match="own format"):
        clean(other)


def test_a_graph_given_twice_is_refused():
    data = model().SerializeToString()
    with pytest.raises(Refused, match="one graph"):
        checked_model(data + data, memory_bytes=MEMORY)


def huge():
    tensor = constant("w", np.ones((4, 3)))
    tensor.dims[0] = 1 << 40
    return tensor


def negative():
    tensor = constant("w", np.ones((4, 3)))
    tensor.dims[0] = -4
    return tensor


def short():
    tensor = constant("w", np.ones((4, 3)))
    tensor.raw_data = tensor.raw_data[:-4]
    return tensor


def sparse():
    values, indices = constant("w", [1.0]), constant("i", [0], np.int64)
    body = model(constants=())
    body.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 30, 3]))
    return body


REFUSED = {
    "more elements than memory": (model(constants=[huge()]), "more elements than fit"),
    "negative length": (model(constants=[negative()]), "shape that does not exist"),
    "missing bytes": (model(constants=[short()]), "has not the bytes of its shape"),
    "sparse and huge": (sparse(), "sparse tensors has more elements"),
    "control characters": (model([helper.make_node("\x1b[2J\x00", ["x"], ["logits"])]), "operator with the name"),
    "two versions": (model(opsets=(("", 17), ("ai.onnx", 18))), "in two versions"),
    "no version": (model(opsets=(("", 0),)), "version that does not exist"),
    "two values of one name": (
        model([helper.make_node("Relu", ["x"], ["logits"]), helper.make_node("Relu", ["x"], ["logits"])]),
        "two of its values have one name",
    ),
    "a constant in the place of the input": (
        model([helper.make_node("Relu", ["x"], ["w"]), helper.make_node("Relu", ["w"], ["logits"])]),
        "two of its values have one name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_plain_is_refused(name):
    message, words = REFUSED[name]
    with pytest.raises(Refused, match=words):
        clean(message)


def test_a_graph_in_an_attribute_of_another_type_is_refused():
    hidden = model()
    attribute = hidden.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.INT, i=1)
    attribute.g.name = "hidden"
    with pytest.raises(Refused, match="hides a graph"):
        clean(hidden)
