"""Tensors of the Open Inference Protocol, version 2: JSON, and Triton's binary data after it.

Source: kserve/open-inference-protocol, inference_rest.md; triton-inference-server/server, extension_binary_data.md and
extension_classification.md.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.errors import shown
from effnet.serving.http.errors import bad_request, unknown

IMAGE = "image"
"""The name of the only input."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A requested output: as binary data after the JSON, and as the `classes` best classes in place of numbers."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferRequest:
    """A request: `images` are encoded files, or `tensor` is uint8 [batch, height, width, channels].

    `wanted` are the requested outputs, all if it is empty; `binary` is the default of those without a setting.
    """

    identity: str | None
    images: tuple[bytes, ...] = ()
    tensor: np.ndarray | None = None
    wanted: tuple[Wanted, ...] = ()
    binary: bool = False


def read_request(body: bytes, *, header_bytes: int | None, known: Sequence[str]) -> InferRequest:
    """Return the request in a body whose first `header_bytes` are JSON, all of them if None.

    `known` are the names of the outputs. With 0 the body is one encoded image (Triton's raw binary request). Raises
    HttpError for anything that is not as the protocol says.
    """
    if header_bytes == 0:
        return InferRequest(identity=None, images=(body,), binary=True)
    if header_bytes is not None and not 0 < header_bytes <= len(body):
        raise bad_request(
            f"Inference-Header-Content-Length must lie in 0..{len(body)}, the length of the body; got {header_bytes}"
        )
    end = len(body) if header_bytes is None else header_bytes
    try:
        data = json.loads(body[:end])  # `parse_json` calls Python for each number, of which there may be millions
    except (ValueError, RecursionError) as error:
        raise bad_request(f"a request must be JSON; {error}") from error
    data = _object(data, "a request")
    identity = data.get("id")
    if identity is not None and not isinstance(identity, str):
        raise bad_request(f"id must be a text; got {shown(identity)}")
    parameters = _object(data.get("parameters", {}), "parameters")
    inputs = data.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        found = len(inputs) if isinstance(inputs, list) else shown(inputs)
        raise bad_request(f"inputs must be a list of one tensor, {IMAGE}; got {found}")
    binary = parameters.get("binary_data_output", False)
    images, tensor = _read_input(_object(inputs[0], "an input"), memoryview(body)[end:])
    wanted = _wanted(data.get("outputs"), known, binary=bool(binary))
    return InferRequest(identity=identity, images=images, tensor=tensor, wanted=wanted, binary=bool(binary))


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{what} must be a JSON object; got {shown(value)}")
    return value


def _wanted(outputs: object, known: Sequence[str], *, binary: bool) -> tuple[Wanted, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list) or len(outputs) > len(known):
        raise bad_request(f"outputs must be a list of at most {len(known)}; got {shown(outputs)}")
    found = []
    for output in outputs:
        output = _object(output, "an output")
        parameters = _object(output.get("parameters", {}), "parameters")
        name, classes = output.get("name"), parameters.get("classification", 0)
        if not isinstance(name, str) or name not in known:
            raise unknown("the output", str(name), known)
        if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
            raise bad_request(f"classification must be a number of classes; got {shown(classes)}")
        found.append(Wanted(name=name, binary=bool(parameters.get("binary_data", binary)), classes=classes))
    if len({each.name for each in found}) < len(found):
        raise bad_request("an output must be requested once; one is listed twice")
    return tuple(found)


def _read_input(given: Mapping[str, Any], rest: memoryview) -> tuple[tuple[bytes, ...], np.ndarray | None]:
    """Return the encoded images, or the tensor, of the input; `rest` is the binary data after the JSON."""
    if given.get("name") != IMAGE:
        raise unknown("the input", str(given.get("name")), (IMAGE,))
    shape, kind = given.get("shape"), given.get("datatype")
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side <= 2**31 for side in shape):
        raise bad_request(f"the shape of {IMAGE} must be a list of whole numbers; got {shown(shape)}")
    size = _object(given.get("parameters", {}), "parameters").get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise bad_request(f"binary_data_size must be the {len(rest)} bytes that follow the JSON; got {shown(size)}")
    if kind == "BYTES":
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
            raise bad_request(f"encoded images must be of shape [images] or [images, 1]; got {shown(shape)}")
        images = _texts(given, rest, count=shape[0], binary=size is not None or len(rest) > 0)
        if len(images) != shape[0]:
            raise bad_request(f"there must be {shape[0]} encoded images, as the shape says; got {len(images)}")
        return images, None
    if kind != "UINT8":
        raise bad_request(f"the datatype of {IMAGE} must be UINT8, or BYTES for encoded images; got {shown(kind)}")
    found = np.frombuffer(rest, np.uint8) if len(rest) or size is not None else _numbers(given.get("data"))
    if found.size != math.prod(shape):
        raise bad_request(
            f"the data of {IMAGE} must be {math.prod(shape):,} values, as its shape says; got {found.size:,}"
        )
    return (), found.reshape(shape)


def _numbers(data: object) -> np.ndarray:
    try:
        values = np.array(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise bad_request(f"the data of {IMAGE} must be numbers in a flat or a full nested list") from error
    if (
        not isinstance(data, list)
        or values.dtype.kind not in "iu"
        or (values.size and not 0 <= values.min() <= values.max() <= 255)
    ):
        raise bad_request(f"the data of {IMAGE} must be a list of whole numbers from 0 to 255; got {shown(data)}")
    return values.astype(np.uint8).ravel()


def _texts(given: Mapping[str, Any], rest: memoryview, *, count: int, binary: bool) -> tuple[bytes, ...]:
    """Return the elements of a BYTES tensor: a length of 4 bytes before each, or the whole rest is one file."""
    if not binary:
        import base64

        data = given.get("data")
        if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
            raise bad_request("encoded images in JSON must be a list of texts in base64; send binary data instead")
        try:
            return tuple(base64.b64decode(text, validate=True) for text in data)
        except ValueError as error:
            raise bad_request(f"encoded images in JSON must be base64; {error}: send binary data instead") from error
    found, place = [], 0
    while place < len(rest):
        if place + 4 > len(rest) or place + 4 + (length := _LENGTH.unpack_from(rest, place)[0]) > len(rest):
            if count == 1:  # as OpenVINO Model Server accepts: the file alone
                return (bytes(rest),)
            raise bad_request("the binary data of BYTES must be a length of 4 bytes, then as many, for each element")
        found.append(bytes(rest[place + 4 : place + 4 + length]))
        place += 4 + length
    return tuple(found)


def write_response(
    head: Mapping[str, Any], outputs: Sequence[tuple[Wanted, np.ndarray, Sequence[str]]]
) -> tuple[bytes, int | None]:
    """Return a response's body, and the length of its JSON if binary data follow, else None.

    An output is what was requested, its float32 [batch, ...], and the labels of its columns, none if there are none.
    """
    listed, tails = [], []
    for wanted, values, labels in outputs:
        entry, data = _entry(wanted, values, labels)
        if wanted.binary:
            tail = _binary(data)
            entry["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            entry["data"] = _plain(data)
        listed.append(entry)
    text = json.dumps({**head, "outputs": listed}, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return (b"".join([text, *tails]), len(text)) if tails else (text, None)


def _entry(wanted: Wanted, values: np.ndarray, labels: Sequence[str]) -> tuple[dict[str, Any], Any]:
    if not wanted.classes:
        return {"name": wanted.name, "datatype": "FP32", "shape": list(values.shape)}, values
    rows = [_best(row, labels, wanted.classes) for row in values.reshape(len(values), -1)]
    shape = [len(rows), len(rows[0]) if rows else 0]
    return {"name": wanted.name, "datatype": "BYTES", "shape": shape}, [text for row in rows for text in row]


def _best(row: np.ndarray, labels: Sequence[str], count: int) -> list[str]:
    """Return the best classes of a row, "value:index:label" each, as Triton writes them."""
    best = np.argsort(-row, kind="stable")[:count].tolist()
    named = len(labels) == len(row)
    return [f"{row[i]:f}:{i}" + (f":{labels[i]}" if named else "") for i in best]


def _binary(data: np.ndarray | list[str]) -> bytes:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data, "<f4").tobytes()
    texts = [text.encode("utf-8", "backslashreplace") for text in data]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def _plain(data: np.ndarray | list[str]) -> list[Any]:
    if not isinstance(data, np.ndarray):
        return data
    plain: list[Any] = data.ravel().tolist()
    return plain
