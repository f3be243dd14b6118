"""The tools of the quantization search to write, score and time one artifact; a caller may replace each of them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig, write_config
from effnet.compression.activations import train_replaced
from effnet.compression.equalize import equalize
from effnet.compression.qat import sensitive_layers, train_rounded
from effnet.compression.subject import Sensitivity, Subject
from effnet.data.datasets import Split
from effnet.measurement.answers import right_answers
from effnet.measurement.evaluate import evaluate
from effnet.measurement.in_image import outside_ms
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.runtimes.onnxruntime.int8_graph import WEIGHT_LEVELS, levels_here
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import find_format, find_runtime
from effnet.runtimes.write import Quantization, write_export
from effnet.system.files import written_whole
from effnet.weights.folding import fold_norms, unfold_norms


def write(
    format_name: str, folder: Path, subject: Subject, images: np.ndarray | None, quantization: Quantization | None
) -> Path:
    """Write the export and its config into `folder`, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    config: ModelConfig = subject.config
    write_config(config, folder)
    return write_export(format_name, folder, config, subject.state, images=images, quantization=quantization)


def answer(folder: Path, format_name: str, split: Split, threads: int) -> np.ndarray:
    """Return whether the export is right on each image of `split`, bool [images]; unreadable images are wrong."""
    return right_answers(Predictor(folder, threads=threads, format=format_name), split)


def figure(folder: Path, format_name: str, split: Split, threads: int) -> float:
    """Return the figure of an export on `split`, for a task that has no right answers."""
    return evaluate(Predictor(folder, threads=threads, format=format_name), split).figure


def outside(folder: Path, format_name: str, split: Split, threads: int) -> float:
    """Return the time from an export's outputs to the answer for an image, in milliseconds."""
    return outside_ms(Predictor(folder, threads=threads, format=format_name), split)


def equalized(subject: Subject, images: np.ndarray) -> Subject | None:
    """Return the subject after cross-layer equalization; None unless its activation is ReLU.

    Layers that share their weights are left alone, and keep their BatchNorms.
    """
    spec = subject.config.arch
    if spec.activation != "relu":
        return None
    state = unfold_norms(spec, equalize(spec, fold_norms(spec, subject.state)), shared=subject.state)
    return replace(subject, state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """How artifacts are made and measured; `equalize` maps a subject and images to an equivalent, equalized subject.

    If it returns None, the search skips that step. `figure` and `outside` are for tasks without right answers.
    """

    write: Callable[[str, Path, Subject, np.ndarray | None, Quantization | None], Path] = write
    answer: Callable[[Path, str, Split, int], np.ndarray] = answer
    figure: Callable[[Path, str, Split, int], float] = figure
    outside: Callable[[Path, str, Split, int], float] = outside
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    rank_layers: Callable[[Subject, np.ndarray], Sensitivity] = sensitive_layers
    equalize: Callable[[Subject, np.ndarray], Subject | None] = equalized
    train_replaced: Callable[..., Subject] = train_replaced
    train_rounded: Callable[..., Subject] = train_rounded


def tools_of(runtime: str, *, stopwatch: Stopwatch | None = None) -> Tools:
    """Return the tools for a runtime: fake quantization has the same largest weight as its int8 export here."""
    levels = levels_here() if find_runtime(runtime).mlas else WEIGHT_LEVELS
    return Tools(
        stopwatch=stopwatch or Stopwatch(),
        rank_layers=partial(sensitive_layers, weight_levels=levels),
        train_rounded=partial(train_rounded, weight_levels=levels),
    )


def copy_export(format_name: str, source: Path, folder: Path) -> Path:
    """Copy an export from one folder to another, each of its files whole or not at all; return its new path."""
    found = find_format(format_name)
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(found.files):  # the file that runtimes open comes last
        with written_whole(folder / name) as beside:
            shutil.copyfile(source / name, beside)
    return folder / found.file


def size_mb(folder: Path, format_name: str) -> float:
    """Return the size of an export, in 10^6 bytes."""
    return find_format(format_name).size_bytes(folder) / 1e6
