"""Check of an untrusted ONNX file, and the clean file made of what was checked, which alone is run.

A file may hold more than its graph: fields that the format does not define, texts of any length, hints for one
runtime, another model behind it. What is made here has the checked fields, and no others.
"""

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from math import prod
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError

from kuber.domain.onnx_header import STANDARD_DOMAINS, check_graph, is_other_format

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MAX_NODES = 100_000
MAX_RANK = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")  # of an operator

# Fields that are kept, by message; a message that is not here is kept whole. Left out are texts for readers,
# metadata, hints about types, quantization and devices, and whatever later versions of the format add.
_KEPT = {
    "ModelProto": {"ir_version", "opset_import", "graph"},
    "OperatorSetIdProto": {"domain", "version"},
    "GraphProto": {"node", "name", "initializer", "sparse_initializer", "input", "output"},
    "NodeProto": {"input", "output", "name", "op_type", "domain", "attribute"},
    "AttributeProto": {"name", "type", "f", "i", "s", "t", "floats", "ints", "strings", "tensors", "sparse_tensor"}
    | {"sparse_tensors"},
    "ValueInfoProto": {"name", "type"},
    "TensorProto": {"dims", "data_type", "float_data", "int32_data", "string_data", "int64_data", "name", "raw_data"}
    | {"double_data", "uint64_data"},
    "SparseTensorProto": {"values", "indices", "dims"},
}
# Raw bytes of an element, by type; the other types are packed or texts.
_ELEMENT_BYTES: dict[int, int] = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
}


class Refused(Exception):
    """The graph is not allowed or fails; the message is the reason."""


def checked_model(data: bytes, *, memory_bytes: int) -> onnx.ModelProto:
    """Return the model in a file, with what was checked and nothing else.

    Raises Refused unless it is one graph of standard operators, whole in this file, without control flow, whose
    tensors are no larger than `memory_bytes`.
    """
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError):
        raise Refused("it is not an ONNX file") from None
    try:
        check_graph(BytesIO(data).read, len(data))  # fields given twice, which a parser merges, and unknown ones
    except ValueError as error:
        raise Refused(str(error)) from None
    try:
        check(model, memory_bytes=memory_bytes)
    except (AttributeError, TypeError, ValueError) as error:  # a text that is not UTF-8 has another type
        raise Refused(f"a part of it is malformed ({type(error).__name__})") from None
    model.DiscardUnknownFields()
    for message in (model, *model.opset_import, model.graph, *model.graph.node):
        _clean(message)
    for value in (*model.graph.input, *model.graph.output):
        _clean(value)
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.ClearField("denotation")
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("denotation")
    for node in model.graph.node:
        for attribute in node.attribute:
            _clean(attribute)
    for sparse in _sparse_tensors(model.graph):
        _clean(sparse)
    for tensor in _tensors(model.graph):
        _clean(tensor)
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """Return a clean model as bytes that no runtime takes for another format."""
    try:
        data = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise Refused("it cannot be written again") from None
    if is_other_format(data[:8]):
        raise Refused("it reads as a file of another format")
    return bytes(data)


def check(model: onnx.ModelProto, *, memory_bytes: int) -> None:
    """Raise Refused unless the graph is whole in this file, has standard operators only, and no control flow."""
    _check_opsets(model)
    if model.functions or model.training_info:
        raise Refused("it holds functions or training steps, not one plain graph")
    if len(model.graph.node) > MAX_NODES:
        raise Refused(f"it has more than {MAX_NODES} nodes")
    for node in model.graph.node:
        if node.domain not in STANDARD_DOMAINS:
            raise Refused(f"it uses operators of {node.domain[:100]!r}, which are not standard")
        if not (isinstance(node.op_type, str) and _NAME.fullmatch(node.op_type)):
            raise Refused(f"it has an operator with the name {node.op_type[:100]!r}")
        if node.op_type in CONTROL_FLOW:
            raise Refused(f"it has control flow ({node.op_type})")
        if any(_holds_graph(attribute) for attribute in node.attribute):
            raise Refused(f"it hides a graph in a node ({node.op_type})")
    _check_names(model.graph)
    for sparse in _sparse_tensors(model.graph):
        if _count(sparse.dims) * 8 > memory_bytes:
            raise Refused("one of its sparse tensors has more elements than fit into memory")
    for tensor in _tensors(model.graph):
        _check_tensor(tensor, memory_bytes)


def _check_opsets(model: onnx.ModelProto) -> None:
    domains = [opset.domain for opset in model.opset_import]
    if foreign := sorted(set(domains) - STANDARD_DOMAINS):
        raise Refused(f"it uses operators of {foreign[0][:100]!r}, which are not standard")
    sets = {("" if opset.domain == "ai.onnx" else opset.domain, opset.version) for opset in model.opset_import}
    if len({domain for domain, _ in sets}) != len(sets):
        raise Refused("it lists a set of operators in two versions")
    if any(not 1 <= opset.version <= 1000 for opset in model.opset_import):
        raise Refused("it lists a set of operators in a version that does not exist")


def _check_names(graph: onnx.GraphProto) -> None:
    """Raise Refused when two values have one name: what is checked might not be what is run."""
    texts = [name for node in graph.node for name in (*node.input, *node.output, node.name, node.domain)]
    if not all(isinstance(text, str) for text in texts):  # protobuf returns bytes for what is not UTF-8
        raise Refused("it has a name that is not text")
    constants = [tensor.name for tensor in graph.initializer]
    constants += [sparse.values.name for sparse in graph.sparse_initializer]
    results = [name for node in graph.node for name in node.output if name]
    inputs = {value.name for value in graph.input} - set(constants)
    made = [*constants, *results, *inputs]
    if len(set(made)) != len(made) or len({value.name for value in graph.input}) != len(graph.input):
        raise Refused("two of its values have one name")
    if len({value.name for value in graph.output}) != len(graph.output):
        raise Refused("two of its outputs have one name")


def _check_tensor(tensor: onnx.TensorProto, memory_bytes: int) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise Refused("a part of it is in another file")
    if tensor.HasField("segment"):
        raise Refused("it has a tensor in segments")
    width = _ELEMENT_BYTES.get(tensor.data_type)
    needed = _count(tensor.dims) * (width or 1)
    if needed > memory_bytes:
        raise Refused("one of its tensors has more elements than fit into memory")
    if width is not None and tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
        raise Refused("one of its tensors has not the bytes of its shape")


def _count(dims: Iterable[int]) -> int:
    """Return the number of elements of a shape."""
    lengths = tuple(dims)
    if len(lengths) > MAX_RANK or any(length < 0 for length in lengths):
        raise Refused("one of its tensors has a shape that does not exist")
    return prod(lengths)


def _holds_graph(attribute: onnx.AttributeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return attribute.HasField("g") or bool(attribute.graphs) or attribute.type in kinds


def _sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    yield from graph.sparse_initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in _sparse_tensors(graph):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _clean(message: Any) -> None:
    """Clear the fields of a message that are not kept."""
    kept = _KEPT[message.DESCRIPTOR.name]
    for field in message.DESCRIPTOR.fields:
        if field.name not in kept:
            message.ClearField(field.name)
