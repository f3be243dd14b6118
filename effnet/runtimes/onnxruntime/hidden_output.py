"""Hide an output of an ONNX model, in its bytes and without onnx, so that ONNX Runtime does not compute it.

ONNX Runtime computes all outputs of a graph, whichever are requested. The hidden one becomes a value_info, which has
the same content under the next field number: only one byte changes. Source: onnx/onnx.proto (IR version 13).
"""

from typing import Final

from effnet.runtimes.onnxruntime.external_data import FIXED, LENGTH, VARINT, varint

_GRAPH, _OUTPUT, _VALUE_INFO, _NAME = 7, 12, 13, 1
_TAG: Final = _VALUE_INFO << 3 | LENGTH


def hide_output(model: bytes, name: str) -> bytes:
    """Return the model without its output called `name`, unchanged if it has none.

    The bytes must have been walked by `has_external_data`, which finds incomplete messages.
    """
    for number, at, end, _ in _fields(model, 0, len(model)):
        if number != _GRAPH:
            continue
        for inner, start, stop, tag in _fields(model, at, end):
            if inner == _OUTPUT and name.encode() in _names(model, start, stop):
                return model[:tag] + bytes([_TAG]) + model[tag + 1 :]
    return model


def _names(model: bytes, at: int, end: int) -> list[bytes]:
    return [model[start:stop] for number, start, stop, _ in _fields(model, at, end) if number == _NAME]


def _fields(model: bytes, at: int, end: int) -> list[tuple[int, int, int, int]]:
    """Return the fields of a message that are bytes: number, first and last byte, and the place of the tag."""
    found = []
    while at < end:
        place = at
        tag, at = varint(model, at, end)
        wire = tag & 7
        size = FIXED.get(wire, 0)
        if wire in (VARINT, LENGTH):
            size, at = varint(model, at, end)
        if wire == LENGTH:
            found.append((tag >> 3, at, at + size, place))
        at += 0 if wire == VARINT else size
    return found
