"""The formats that a bundle can be exported to: each one's name, file, runtime and precision."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from effnet.errors import InputError, nearest, shown

Runtime = Literal["onnxruntime", "openvino", "litert", "executorch", "coreml"]
Precision = Literal["fp32", "fp16", "bf16", "w8", "int8"]
Result = Literal["probabilities", "features"]

_FEATURES = "-features"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One export format: `file` is in the bundle's folder, `others` next to it.

    `precision` is that of weights and arithmetic: w8 has int8 weights and computes in fp32, fp16 stores fp16 weights,
    bf16 does too and computes in bfloat16 if the processor has it. Formats that cannot run here, Core ML's, have no
    engine. `result` is the output for an image: a probability per class, or the features before the classifier.
    """

    name: str
    runtime: Runtime
    precision: Precision
    file: str
    others: tuple[str, ...] = ()
    result: Result = "probabilities"

    @property
    def base(self) -> str:
        """The name of the format of probabilities in the same runtime and precision."""
        return self.name.removesuffix(_FEATURES)

    @property
    def asked(self) -> str:
        """The options of `effnet export BUNDLE` that write it."""
        return f"{'--features ' if self.result == 'features' else ''}--to {self.base}"

    def size_bytes(self, folder: str | os.PathLike[str]) -> int:
        """Return the size of all its files in `folder`; a file may be a folder."""
        return sum(_size(Path(folder) / name) for name in (self.file, *self.others))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
    return path.stat().st_size


def _format(name: str, runtime: Runtime, precision: Precision, file: str, *others: str) -> Format:
    return Format(name=name, runtime=runtime, precision=precision, file=file, others=others)


FORMATS = {
    found.name: found
    for found in (
        _format("onnx", "onnxruntime", "fp32", "model.onnx"),
        _format("onnx-fp16", "onnxruntime", "fp16", "model.fp16.onnx"),
        _format("onnx-w8", "onnxruntime", "w8", "model.w8.onnx"),
        _format("onnx-int8", "onnxruntime", "int8", "model.int8.onnx"),
        _format("openvino", "openvino", "fp32", "model.xml", "model.bin"),
        _format("openvino-fp16", "openvino", "fp16", "model.fp16.xml", "model.fp16.bin"),
        _format("openvino-bf16", "openvino", "bf16", "model.bf16.xml", "model.bf16.bin"),
        _format("openvino-int8", "openvino", "int8", "model.int8.xml", "model.int8.bin"),
        _format("litert", "litert", "fp32", "model.tflite"),
        _format("litert-int8", "litert", "int8", "model.int8.tflite"),
        _format("executorch", "executorch", "fp32", "model.pte"),
        _format("executorch-int8", "executorch", "int8", "model.int8.pte"),
        _format("coreml", "coreml", "fp16", "model.mlpackage"),
    )
}


# effnet has no check that lower precisions preserve the similarity of embeddings.
_EMBEDDED: tuple[Precision, ...] = ("fp32", "fp16")

FEATURES = {
    found.name: replace(
        found,
        name=found.name + _FEATURES,
        file=found.file.replace("model", "features", 1),
        others=tuple(other.replace("model", "features", 1) for other in found.others),
        result="features",
    )
    for found in FORMATS.values()
    if found.precision in _EMBEDDED and found.runtime != "coreml"
}
"""The formats of embeddings, by the name of the one with probabilities."""

EXPORTS = FORMATS | {found.name: found for found in FEATURES.values()}
"""All formats that `effnet export` can write into a bundle."""


def features_format(name: str) -> Format:
    """Return the format of embeddings for the format `name`; raise InputError if there is none."""
    if name not in FEATURES:
        raise InputError(
            f"embeddings can be exported to {', '.join(FEATURES)}; got {find_format(name).name}, "
            f"whose {'output' if name == 'coreml' else 'rounding'} effnet cannot check"
        )
    return FEATURES[name]


def features_beside(target: Format) -> Format:
    """Return the format of embeddings in the runtime of `target`: in its precision, or else in fp32.

    Raises InputError if the runtime has none.
    """
    if target.name in FEATURES:
        return FEATURES[target.name]
    same = (found for found in FEATURES.values() if found.runtime == target.runtime)
    return next(same, None) or features_format(target.name)


def find_export(name: str) -> Format:
    """Return the export called `name`, of embeddings or not; raise InputError like `find_format`."""
    return EXPORTS.get(name) or find_format(name)


def find_format(name: str) -> Format:
    """Return the format called `name`; raise InputError for an unknown name, suggesting the nearest."""
    if name not in FORMATS:
        raise InputError(f"a format must be one of {', '.join(FORMATS)}; got {shown(name)}{nearest(name, FORMATS)}")
    return FORMATS[name]


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a file, by its name; raise InputError if no format has such a name.

    The longest ending counts: model.int8.onnx is onnx-int8, any other .onnx is onnx.
    """
    name = Path(path).name
    for found in sorted(FORMATS.values(), key=lambda f: -len(f.file)):
        if name.endswith(found.file.removeprefix("model")):
            return found
    endings = ", ".join(found.file.removeprefix("model") for found in FORMATS.values())
    raise InputError(f"the name of a model's file must end with one of {endings}; got {path}")
