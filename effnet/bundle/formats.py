"""What an export format is; effnet.runtimes.registry knows all of them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "w8", "int8"]
Result = Literal["answers", "features"]

FEATURES_SUFFIX = "-features"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One export format: `file` is in the bundle's folder, `others` next to it.

    `runtime` is a name in effnet.runtimes.registry. `precision` is that of weights and arithmetic: w8 has int8 weights
    and computes in fp32, fp16 stores fp16 weights, bf16 does too and computes in bfloat16 if the processor has it.
    `result` is the output for an image: that of the bundle's task, such as a probability per class, or the features
    before the classifier.
    """

    name: str
    runtime: str
    precision: Precision
    file: str
    others: tuple[str, ...] = ()
    result: Result = "answers"

    @property
    def base(self) -> str:
        """The name of the format of answers in the same runtime and precision."""
        return self.name.removesuffix(FEATURES_SUFFIX)

    @property
    def asked(self) -> str:
        """The options of `effnet export BUNDLE` that write it."""
        return f"{'--features ' if self.result == 'features' else ''}--to {self.base}"

    @property
    def ending(self) -> str:
        """The ending of the names of its files, such as ".int8.onnx"."""
        return self.file.removeprefix("model")

    @property
    def files(self) -> tuple[str, ...]:
        """All its files; the one that the runtime opens comes first."""
        return (self.file, *self.others)

    def size_bytes(self, folder: str | os.PathLike[str]) -> int:
        """Return the size of all its files in `folder`; a file may be a folder."""
        return sum(_size(Path(folder) / name) for name in self.files)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
    return path.stat().st_size
