"""Check the outermost fields of an ONNX file without loading a library: one graph of standard operators.

Format: a protobuf message, ModelProto of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A graph is checked
in full before it is run.
"""

from collections.abc import Callable, Iterator
from io import BytesIO

STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_GRAPH, _OPSETS, _TRAINING, _FUNCTIONS = 7, 8, 20, 25  # fields of ModelProto
_KNOWN = {1, 2, 3, 4, 5, 6, _GRAPH, _OPSETS, 14, _TRAINING, _FUNCTIONS, 26}
_VARINT, _DELIMITED = 0, 2  # protobuf's wire types
_MAX_FIELD_BYTES = 1 << 16  # of any field except the graph
_MAX_FIELDS = 10_000  # outermost fields; each takes time to read
_PIECE = 1 << 18
_ORT_MARK = b"ORTM"  # at bytes 4 to 8 of a model in onnxruntime's own format

Read = Callable[[int], bytes]


def check_graph(read: Read, size: int) -> None:
    """Read a file of `size` bytes from its start. Raise ValueError unless it has the fields of one portable graph."""
    start = read(min(size, 8))
    if is_other_format(start):
        raise ValueError("it is also a file in onnxruntime's own format")
    read = _continued(start, read)
    graphs, domains = 0, []
    for field, length in _fields(read, size):
        if field not in _KNOWN:
            raise ValueError("it has a field that ONNX does not define")
        if field in (_TRAINING, _FUNCTIONS):
            raise ValueError("it has functions or training steps; export a plain graph")
        if field == _GRAPH:
            graphs += 1
            _skip(read, length)
        elif field == _OPSETS:
            domains.append(_domain(_exactly(read, _limited(length))))
        elif length:
            _exactly(read, _limited(length))
    if graphs != 1 or not domains:
        raise ValueError("an ONNX file has one graph and lists its operator sets")
    foreign = sorted(set(domains) - STANDARD_DOMAINS)
    if foreign:
        raise ValueError(f"it uses operators of {foreign[0][:100]!r}, which are not standard")


def is_other_format(start: bytes) -> bool:
    """Return whether onnxruntime takes a file with these first 8 bytes for one in its own format."""
    return start[4:8] == _ORT_MARK


def _continued(start: bytes, read: Read) -> Read:
    """Return a function that reads `start` before what `read` reads."""
    buffered = BytesIO(start)

    def both(length: int) -> bytes:
        first = buffered.read(length)
        return first if len(first) == length else first + read(length - len(first))

    return both


def _fields(read: Read, size: int) -> Iterator[tuple[int, int]]:
    """Yield number and length of each outermost field; the caller reads the field before the next one."""
    left, count = size, 0
    while left:
        count += 1
        if count > _MAX_FIELDS:
            raise ValueError(f"it has over {_MAX_FIELDS} fields")
        tag, taken = _varint(read)
        left -= taken
        field, wire = tag >> 3, tag & 7
        if wire not in (_VARINT, _DELIMITED):
            raise ValueError("it is not an ONNX file")
        value, taken = _varint(read)
        left -= taken
        length = value if wire == _DELIMITED else 0
        left -= length
        if left < 0:
            raise ValueError("it ends within a field")
        yield field, length


def _varint(read: Read) -> tuple[int, int]:
    """Return a number, and how many bytes it took."""
    value = 0
    for place in range(10):
        byte = _exactly(read, 1)[0]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, place + 1
    raise ValueError("it is not an ONNX file")


def _domain(opset: bytes) -> str:
    """Return the domain (field 1) of an OperatorSetIdProto, empty if it has none."""
    read = BytesIO(opset).read
    domain = b""
    for field, length in _fields(read, len(opset)):
        value = _exactly(read, length)
        if field == 1:
            domain = value
    return domain.decode(errors="replace")


def _skip(read: Read, length: int) -> None:
    while length:
        length -= len(_exactly(read, min(length, _PIECE)))


def _limited(length: int) -> int:
    if length > _MAX_FIELD_BYTES:
        raise ValueError(f"one of its fields besides the graph has over {_MAX_FIELD_BYTES} bytes")
    return length


def _exactly(read: Read, length: int) -> bytes:
    piece = read(length)
    if len(piece) != length:
        raise ValueError("the file ends within a field")
    return piece
