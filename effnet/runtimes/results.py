"""Check a model file's output: its width, and that embeddings are finite; a task checks its own outputs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.names import CONFIG
from effnet.errors import BundleError
from effnet.runtimes.base import Engine, FileOutput
from effnet.tasks.task import FEATURES, names_in_file


def check_signature(engine: Engine, config: ModelConfig, path: Path, target: Format) -> None:
    """Raise BundleError unless the inputs and outputs of the file at `path` match the config."""
    outputs = config.file_outputs
    if target.result == "features":
        outputs = (replace(FEATURES, width=config.arch.feature_channels),)
    needed = tuple(map(FileOutput, names_in_file(outputs), (output.sides for output in outputs)))
    # The name of a single output may be another: a runtime need not keep any.
    given = engine.outputs if len(outputs) > 1 else tuple(each._replace(name=needed[0].name) for each in engine.outputs)
    wanted = (config.preprocess.size, config.preprocess.channels, needed)
    found = (engine.size, engine.channels, given)
    if found != wanted or len(engine.outputs) != len(needed):
        raise BundleError(
            f"{path} must map {_maps(*wanted)}, as in {CONFIG}; it maps {_maps(*found)}. `effnet export` writes it "
            "again"
        )


def _maps(size: tuple[int, int], channels: int, outputs: Sequence[FileOutput]) -> str:
    shown = ", ".join(f"{output.name[:80]} {list(output.shape)}" for output in outputs[:20])
    return f"image [{size[0]}, {size[1]}, {channels}] to {shown}{', ...' if len(outputs) > 20 else ''}"


def check_features(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless float32 [batch, channels] holds finite numbers."""
    if bad := int((~np.isfinite(rows)).any(1).sum()):
        raise BundleError(
            f"{path} must return finite numbers; those for {bad} of {len(rows)} images are not: it is damaged or "
            "another model. `effnet export` writes it again"
        )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return float32 [batch, channels] with rows of length 1; an all-zero row is unchanged."""
    # In float64: in float32, squares of large numbers would overflow, of small ones underflow.
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
