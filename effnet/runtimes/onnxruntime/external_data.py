"""Detect whether an ONNX model refers to data in other files, from its bytes, without onnx.

The walk follows the wire format of Protocol Buffers and the field numbers of onnx.proto. It is stricter than any
parser: every tensor field that could make one read outside the model counts, at any place and even if repeated.
Source: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (IR version 13).
"""

from typing import Final

# Models of effnet's largest networks have some ten thousand; the walk takes about a microsecond per field.
_MAX_FIELDS: Final = 2_000_000
# Protocol Buffers' own limit.
_MAX_DEPTH: Final = 100

_TENSOR: Final = "TensorProto"
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# The messages that can contain a tensor, each with the fields that lead to it.
_LEADS: Final[dict[str, dict[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    _TENSOR: {},
}
VARINT, LENGTH = 0, 2
# The other wire types and their bytes; groups, 3 and 4, are not part of ONNX.
FIXED: Final = {1: 8, 5: 4}


def has_external_data(model: bytes) -> bool:
    """Return whether any tensor of an ONNX model refers to another file.

    Raises ValueError, with a one-line reason, for an incomplete message, too deep nesting or too many fields.
    """
    within: list[tuple[str, int, int]] = []
    kind, at, end = "ModelProto", 0, len(model)
    for _ in range(_MAX_FIELDS):
        while at == end:
            if not within:
                return False
            kind, at, end = within.pop()
        tag, at = varint(model, at, end)
        number, wire = tag >> 3, tag & 7
        size = FIXED.get(wire, 0)
        if wire in (VARINT, LENGTH):
            size, at = varint(model, at, end)
        elif wire not in FIXED:
            raise ValueError(f"it must be an ONNX model; it has a field of wire type {wire}")
        if kind == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and size)):
            return True
        if wire == VARINT:
            continue
        if size > end - at:
            raise ValueError("it must be a whole ONNX model; a part of it is longer than the rest")
        if wire == LENGTH and number in _LEADS[kind]:
            if len(within) == _MAX_DEPTH:
                raise ValueError(f"it must be nested at most {_MAX_DEPTH} deep; it is deeper")
            within.append((kind, at + size, end))
            kind, end = _LEADS[kind][number], at + size
        else:
            at += size
    raise ValueError(f"it must have fewer than {_MAX_FIELDS:,} fields; it has more")


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at offset `at`, and the offset of the next field."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("it must be a whole ONNX model; it ends within a number or has one of more than 64 bits")
