"""The metadata of a TFLite file: the format's own, and files that any unzip can read.

Readers of the convention (TFLite Task Library, MediaPipe, ML Kit) find labels.txt by the metadata's entry; it and
effnet.json are in a zip archive appended to the model. Source: tensorflow/tflite-support metadata_schema.fbs, 1.0.1.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from effnet.runtimes.litert.flatbuffer import load_schema, serialise
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.tasks.task import Output, names_in_file

LABELS, DETAILS = "labels.txt", "effnet.json"

_ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
# Versions of the metadata's schema, and of the oldest runtime with all operators used here.
_PARSER, _RUNTIME = "1.0.0", "1.14.0"
# Codes of the schema's enumerations.
_DESCRIPTIONS, _AXIS_LABELS = 1, 2
_FEATURE_CONTENT, _IMAGE_CONTENT = 1, 2
_COLOUR_SPACES = {1: 2, 3: 1}


def finish(
    model: Any,
    *,
    name: str,
    class_names: Sequence[str] = (),
    details: Mapping[str, Any],
    answers: Sequence[Output],
    maps: bool = False,
) -> bytes:
    """Return the file of a ModelT with its metadata: labels.txt and `details` as effnet.json.

    `answers` are its outputs, in order, after which there may be activation maps. labels.txt has one class per line, in
    a file of one output.
    """
    labelled = bool(class_names) and len(answers) == 1
    files = {DETAILS: json.dumps(dict(details), ensure_ascii=False, indent=1) + "\n"}
    if labelled:
        # One line per class, even if its name has line breaks; effnet.json has the exact names.
        files[LABELS] = "".join(" ".join(label.splitlines()) + "\n" for label in class_names)
    channels = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape[3]
    for entry, data in (
        ("min_runtime_version", _RUNTIME.encode() + b"\0"),
        (_ENTRY, _metadata(name, channels=channels, answers=answers, labelled=labelled, maps=maps)),
    ):
        _add_entry(model, entry, data)
    return _with_files(serialise(model), files)


def _add_entry(model: Any, name: str, data: bytes) -> None:
    schema = load_schema()
    model.buffers.append(schema.BufferT(data=data))
    model.metadata = [*(model.metadata or []), schema.MetadataT(name=name, buffer=len(model.buffers) - 1)]


def _with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """Append a zip archive: its readers start at the end of the file, the model's at the beginning."""
    whole = io.BytesIO(model)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            # A fixed date: equal models are equal files.
            archive.writestr(zipfile.ZipInfo(name), text.encode())
    return whole.getvalue()


def _metadata(name: str, *, channels: int, answers: Sequence[Output], labelled: bool, maps: bool) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    colours = _table(builder, {0: ("Int8", _COLOUR_SPACES.get(channels, 0))})
    image = _tensor(builder, IMAGE, "images, 0 to 255, resized as in effnet.json", (_IMAGE_CONTENT, colours), [])
    labels = [_file(builder, LABELS, "the classes, one per line", _AXIS_LABELS)] if labelled else []
    content = _FEATURE_CONTENT, _table(builder, {})
    called = zip(names_in_file(answers), answers, strict=True)
    outputs = [_tensor(builder, tensor, answer.meaning, content, labels) for tensor, answer in called]
    if maps:
        outputs.append(_tensor(builder, MAPS, "what each place adds to each column of the last layer", content, []))
    graph = _table(builder, {2: _vector(builder, [image]), 3: _vector(builder, outputs)})
    details = _file(builder, DETAILS, "classes, preprocessing and network as JSON", _DESCRIPTIONS)
    slots = {
        0: _text(builder, name),
        1: _text(builder, f"{answers[0].titled}, written by effnet"),
        3: _vector(builder, [graph]),
        6: _vector(builder, [details]),
        7: _text(builder, _PARSER),
    }
    builder.Finish(_table(builder, slots), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Any, name: str, description: str, content: tuple[int, int], files: list[int]) -> int:
    kind, properties = content
    slots = {
        0: _text(builder, name),
        1: _text(builder, description),
        3: ("Offset", _table(builder, {0: ("Uint8", kind), 1: ("Offset", properties)})),
    }
    return _table(builder, slots | ({6: _vector(builder, files)} if files else {}))


def _file(builder: Any, name: str, description: str, kind: int) -> int:
    return _table(builder, {0: _text(builder, name), 1: _text(builder, description), 2: ("Int8", kind)})


def _text(builder: Any, text: str) -> tuple[str, int]:
    return "Offset", builder.CreateString(text)


def _vector(builder: Any, offsets: list[int]) -> tuple[str, int]:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return "Offset", builder.EndVector()


def _table(builder: Any, slots: Mapping[int, tuple[str, int]]) -> int:
    """Write a table of fields by their numbers in the schema; objects that they point to must be written already."""
    builder.StartObject(max(slots, default=-1) + 1)
    for number, (kind, value) in slots.items():
        match kind:
            case "Offset":
                builder.PrependUOffsetTRelativeSlot(number, value, 0)
            case "Uint8":
                builder.PrependUint8Slot(number, value, 0)
            case "Int8":
                builder.PrependInt8Slot(number, value, 0)
    return builder.EndObject()
