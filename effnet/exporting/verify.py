"""The exported file against the module that it came from, on real pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from effnet.data.preprocess import normalize
from effnet.errors import EffnetError
from effnet.runtime.config import ModelConfig
from effnet.runtime.predictor import Predictor

# The sum of float rounding over a few hundred layers stays well below this.
TOLERANCE = 1e-3
# Rounded weights change probabilities by as much as the network is sensitive; a fault changes them by far more.
_HALF_TOLERANCE = 2e-2
_EAGER_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCheck:
    """How far two runtimes differ: the largest difference of a probability, and the share of equal top classes."""

    images: int
    max_difference: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the check as JSON-able data."""
        return asdict(self)


def check_export(module: torch.nn.Module, predictor: Predictor, images: np.ndarray) -> ExportCheck:
    """Runs `images`, uint8 [batch, R, R, C], through the eager module and through the predictor's export.

    Raises EffnetError as `compare` does.
    """
    return compare(eager_probabilities(module, predictor.config, images), predictor, images)


@torch.no_grad()
def eager_probabilities(module: torch.nn.Module, config: ModelConfig, images: np.ndarray) -> np.ndarray:
    """Returns float32 [batch, classes] of the eager module for uint8 [batch, R, R, C].

    The module's logits are raw; the config's temperature is applied to them, as every export has it inside.
    """
    module = module.to("cpu").eval()
    pixels = torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)
    # In parts: the maps of all pictures at once would take more memory than training did.
    logits = torch.cat([module(part) for part in pixels.split(_EAGER_BATCH)])
    return (logits / config.temperature).softmax(1).numpy()


def compare(eager: np.ndarray, predictor: Predictor, images: np.ndarray) -> ExportCheck:
    """Returns how far the predictor's export is from `eager`, the module's probabilities [batch, classes].

    Raises EffnetError where a probability differs by more than 1e-3, or by 2e-2 where weights have 16 bits: such a file
    must not be shipped. What 8 bits and bfloat16 may cost is for a score to say; there only NaN is refused.
    """
    exported = predictor.probabilities(images)
    difference = float(np.abs(eager - exported).max())
    agreement = float((eager.argmax(1) == exported.argmax(1)).mean())
    tolerance = {"fp32": TOLERANCE, "fp16": _HALF_TOLERANCE}.get(predictor.format.precision, 1.0)
    if not difference <= tolerance:
        raise EffnetError(
            f"the exported file must give eager's probabilities within {tolerance}; it differs by {difference:.2g} "
            f"on {len(images)} pictures. This is a bug in effnet: please report it with the bundle's config.json"
        )
    return ExportCheck(images=len(images), max_difference=difference, agreement=agreement)
