"""The result of several outputs on held-out images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from effnet.data.several.outputs import OutputSpec, placed
from effnet.measurement.several.figures import mean_score, output_scores
from effnet.system.text import percent
from effnet.tasks.several import file_outputs
from effnet.tasks.task import activated
from effnet.training.losses import Batch
from effnet.training.recipe.schema import Recipe
from effnet.training.several.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsValidated:
    """The validation result: the mean loss, the mean score of the outputs, and the score of each by its name."""

    loss: float
    mean_score: float
    scores: Mapping[str, float]

    @property
    def figures(self) -> Mapping[str, float]:
        """The mean score, as in metrics.jsonl."""
        return {"val_mean_score": self.mean_score}

    @property
    def words(self) -> str:
        """The scores in words."""
        each = ", ".join(f"{name} {percent(value)}" for name, value in self.scores.items())
        return f"mean score {percent(self.mean_score)} ({each})"

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better network: the mean score, then minus the loss."""
        return self.mean_score, -self.loss

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return no images."""
        return {}


def validated(values: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec]) -> OutputsValidated:
    """Return the result of the last layer's values [images, columns] on their targets."""
    places = tuple(placed(specs))
    known = tuple(float((~np.isnan(targets[:, place.targets]).any(1)).mean()) for place in places)
    objective = Objective(places=places, weights=(1.0,) * len(places), known=known)
    batch = Batch(images=torch.empty(0), labels=torch.from_numpy(targets))
    rows = activated(values, file_outputs(specs))
    return OutputsValidated(
        loss=float(objective(torch.from_numpy(values), batch)),
        mean_score=mean_score(rows, targets, specs),
        scores=output_scores(rows, targets, specs),
    )
