"""Check a model file's output: its width, and that it holds probabilities or finite embeddings."""

from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.names import CONFIG
from effnet.errors import BundleError
from effnet.runtimes.base import Engine

# The sums of effnet's own files differ from 1 by a millionth, also in int8: all of them compute softmax in fp32.
# bfloat16 rounds each probability to 0.4 %.
_SUM_TOLERANCE, _RANGE_TOLERANCE = 2e-2, 1e-3


def check_signature(engine: Engine, config: ModelConfig, path: Path, target: Format) -> None:
    """Raise BundleError unless the inputs and outputs of the file at `path` match the config."""
    width = config.arch.feature_channels if target.result == "features" else len(config.class_names)
    wanted = (config.preprocess.resolution, config.preprocess.channels, width)
    found = (engine.side, engine.channels, engine.classes)
    if found != wanted:
        raise BundleError(
            f"{path} must map {_maps(*wanted, target)}, as in {CONFIG}; it maps {_maps(*found, target)}. "
            "`effnet export` writes it again"
        )


def _maps(side: int, channels: int, width: int, target: Format) -> str:
    return f"image [{side}, {side}, {channels}] to {target.result} [{width}]"


def check_probabilities(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless each row of float32 [batch, classes] holds probabilities."""
    low, high = rows.min(initial=0.0), rows.max(initial=0.0)
    # Written so that NaN fails.
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise BundleError(
            f"{path} must return probabilities, from 0 to 1; it returned {low:.4g} to {high:.4g}: it is damaged or "
            "another model. `effnet export` writes it again"
        )
    if len(rows) and not np.abs((sums := rows.sum(1)) - 1).max() <= _SUM_TOLERANCE:
        raise BundleError(
            f"{path} must return probabilities, whose sum is 1; theirs lies in {sums.min():.4g}..{sums.max():.4g}: it "
            "is damaged or another model. `effnet export` writes it again"
        )


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
