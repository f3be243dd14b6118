"""What wrong answers cost on labelled images, if they do not all cost the same; no torch."""

from dataclasses import dataclass

import numpy as np

from effnet.tasks.costs import Costs, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScore:
    """The mean cost of an image's answers: `mean` is the model's.

    `without` is the cost if it decided as if all wrong answers cost the same, `constant` that of the cheapest answer
    that is the same for every image.
    """

    mean: float
    without: float
    constant: float

    def sentence(self) -> str:
        """Return the costs in words."""
        return (
            f"a mean cost of {self.mean:.4g} an image; without the costs in the decision it would be "
            f"{self.without:.4g}, with the cheapest constant answer {self.constant:.4g}"
        )


def class_costs(probabilities: np.ndarray, labels: np.ndarray, costs: Costs | None) -> CostScore | None:
    """Return the cost of the answers to images with these labels; None without costs."""
    if not costs:
        return None
    number = probabilities.shape[1]
    means = [float(costs.of(np.full(len(labels), answer), labels).mean()) for answer in range(number)]
    return CostScore(
        mean=float(costs.of(decide(probabilities, costs), labels).mean()),
        without=float(costs.of(decide(probabilities), labels).mean()),
        constant=min(means),
    )


def tag_costs(
    present: np.ndarray, targets: np.ndarray, costs: Costs | None, *, without: np.ndarray
) -> CostScore | None:
    """Return the cost of tags, bool [images, tags], against targets; `without` are those without costs."""
    if not costs:
        return None

    def mean(decided: np.ndarray) -> np.ndarray:
        missed, false = ~decided & (targets > 0), decided & (targets == 0)
        each: np.ndarray = (missed * np.array(costs.miss) + false * np.array(costs.false)).sum(0) / len(targets)
        return each

    none, every = mean(np.zeros_like(present)), mean(np.ones_like(present))
    return CostScore(
        mean=float(mean(present).sum()),
        without=float(mean(without).sum()),
        constant=float(np.minimum(none, every).sum()),
    )
