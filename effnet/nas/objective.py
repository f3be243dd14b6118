"""The objective of a search: one number for each trained network, from its accuracy and its cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from effnet.errors import InputError
from effnet.measurement.budget import LABELS, Budget, say
from effnet.nas.history import Trained
from effnet.system.bounds import is_number
from effnet.system.text import percent

Form = Literal["accuracy", "product", "absolute"]

PUBLISHED_WEIGHT = -0.07
"""MnasNet's exponent: on a phone twice the latency brought 5 % more accuracy on ImageNet (arXiv 1807.11626)."""
# Cross-entropy decides between networks that are equally accurate, whatever it is.
_TIE, _MOST_NLL = 1e-6, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The score of a trained network, higher is better.

    "accuracy" is the validation accuracy. "product" is ACC x (c / target)^w, with `alpha` as w up to the target and
    `beta` above it: equal for the soft form, 0 and -1 for the hard one. "absolute" is ACC + beta |c / target - 1|. c is
    the `figure` of this name of the budget, which is a hard limit with any form. Sources: MnasNet, arXiv 1807.11626,
    eq. 2 and figure 3; TuNAS, google-research/tunas, search_space_utils.py.

    The target of the soft form is only a factor: it cannot change which network wins; the exponent alone decides.
    With `strict_paper`, networks above the budget are trained, as in the published search, and left to the reward.
    """

    form: Form = "accuracy"
    figure: str = "macs"
    target: float = 1.0
    alpha: float = PUBLISHED_WEIGHT
    beta: float = PUBLISHED_WEIGHT
    strict_paper: bool = False

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise InputError(f"objective must be one of {', '.join(get_args(Form))}; got {self.form!r}")
        if self.figure not in LABELS:
            raise InputError(f"the objective's cost must be one of {', '.join(LABELS)}; got {self.figure!r}")
        if not (is_number(self.target) and self.target > 0):
            raise InputError(f"the objective's target must be above 0; got {self.target!r}")
        if not (is_number(self.alpha) and is_number(self.beta) and max(self.alpha, self.beta) <= 0):
            raise InputError(f"the objective's exponents must be at most 0; got {self.alpha!r} and {self.beta!r}")
        if self.strict_paper and self.form == "accuracy":
            raise InputError("accuracy needs a hard limit. Leave out strict_paper, or take the objective product.")

    def score(self, accuracy: float, *, figures: Mapping[str, float], nll: float | None = None) -> float:
        """Return the score of a validation accuracy, a share, of a network with these figures.

        `nll` is the mean validation cross-entropy; it decides between equal accuracies.
        """
        score = accuracy
        if self.form != "accuracy":
            ratio = figures[self.figure] / self.target
            if self.form == "product":
                score = accuracy * math.pow(ratio, self.alpha if ratio <= 1 else self.beta)
            else:
                score = accuracy + self.beta * abs(ratio - 1)
        return score if nll is None else score - _TIE * min(max(nll, 0.0), _MOST_NLL)

    def admits(self, figures: Mapping[str, float], *, budget: Budget) -> bool:
        """Return whether a network with these figures may be trained: above the budget only in the published search."""
        return self.strict_paper or not budget.exceeded(figures)


def calibrated_weight(below: float, above: float) -> float:
    """Return the exponent w at which the product neither grows nor falls around the target.

    `below` and `above` are the accuracies of the best networks known of at most 1/sqrt(2) and sqrt(2) times the
    target's cost, such as scaled ones; each is better a mean of two seeds. With the gain up to the target alone the
    search would settle near half of it. The exponent is 0 if the larger network is not better. Raises InputError for
    accuracies that are not above 0 and at most 1.
    """
    if not (0 < below <= 1 and 0 < above <= 1):
        raise InputError(f"accuracies must lie above 0 and be at most 1; got {below!r} and {above!r}")
    return min(0.0, -math.log2(above / below))


def published_search_cost(history: Sequence[Trained], *, budget: Budget) -> str:
    """Return what training networks above the budget has cost a search; empty if none was trained."""
    over = [trained for trained in history if budget.exceeded(trained.figures or {})]
    if not over:
        return ""
    share = sum(trained.share for trained in over) / sum(trained.share for trained in history)
    limits = ", ".join(f"{LABELS[name]} {say(name, value)}" for name, value in budget.limits().items())
    return (
        f"The published reward trained {len(over)} of {len(history)} networks above the budget ({limits}), "
        f"{percent(share)} of the training time: none of them can be taken"
    )
