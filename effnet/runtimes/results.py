"""Check a model file's output: its width, and that embeddings are finite; a task checks its own outputs."""

from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.names import CONFIG
from effnet.errors import BundleError
from effnet.runtimes.base import Engine
from effnet.tasks.task import FEATURES


def check_signature(engine: Engine, config: ModelConfig, path: Path, target: Format) -> None:
    """Raise BundleError unless the inputs and outputs of the file at `path` match the config."""
    width = config.arch.feature_channels if target.result == "features" else len(config.class_names)
    output = FEATURES.name if target.result == "features" else config.output.name
    wanted = (config.preprocess.resolution, config.preprocess.channels, width)
    found = (engine.side, engine.channels, engine.classes)
    if found != wanted:
        raise BundleError(
            f"{path} must map {_maps(*wanted, output)}, as in {CONFIG}; it maps {_maps(*found, output)}. "
            "`effnet export` writes it again"
        )


def _maps(side: int, channels: int, width: int, output: str) -> str:
    return f"image [{side}, {side}, {channels}] to {output} [{width}]"


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
