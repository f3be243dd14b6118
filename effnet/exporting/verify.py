"""The exported file against the module that it came from, on the same images."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from effnet.data.preprocess import normalize
from effnet.errors import BudgetError, BundleError, EffnetError
from effnet.runtime.config import ModelConfig
from effnet.runtime.predictor import Predictor

# The sum of float rounding over a few hundred layers stays well below this.
TOLERANCE = 1e-3
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

    A file of 32 bits computes the same: EffnetError where a probability differs by more than 1e-3. Fewer bits round,
    and what that costs only accuracy on images like the data can say (`effnet.exporting.acceptance`); here they must
    give probabilities, or BudgetError is raised. BundleError where the eager network itself gives none.
    """
    if not np.isfinite(eager).all():
        raise BundleError(
            f"a network must give numbers; the weights of {predictor.folder} give none on "
            f"{_not_finite(eager)} of {len(eager)} images: train it anew, with a lower learning rate"
        )
    exported = predictor.probabilities(images)
    difference = float(np.abs(eager - exported).max())
    agreement = float((eager.argmax(1) == exported.argmax(1)).mean())
    name, precision = predictor.format.name, predictor.format.precision
    if precision != "fp32":
        if not np.isfinite(exported).all():
            raise BudgetError(
                f"{name} must give numbers; it gives none on {_not_finite(exported)} of {len(images)} images: the "
                f"network's numbers do not fit {precision}. Take a format of more bits"
            )
    elif not difference <= TOLERANCE:
        raise EffnetError(
            f"the exported file must give eager's probabilities within {TOLERANCE}; it differs by {difference:.2g} "
            f"on {len(images)} images. This is a bug in effnet: please report it with the bundle's config.json"
        )
    return ExportCheck(images=len(images), max_difference=difference, agreement=agreement)


def _not_finite(rows: np.ndarray) -> int:
    return int((~np.isfinite(rows)).any(1).sum())
