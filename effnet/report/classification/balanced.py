"""The report's sentences on imbalanced classes: the balanced accuracy, and the class prior of the probabilities."""

from effnet.measurement.classification.score import ClassificationScore
from effnet.report.text import integer, percent
from effnet.training.recipe.schema import Balance

_HOW = {
    "adjust": "their logits were adjusted",
    "sample": "training sampled their images more often",
    "weight": "their images had a larger weight in the loss",
}


def balanced_sentence(test: ClassificationScore) -> str:
    """Return a sentence on the balanced accuracy and, if it is much lower, the class of lowest recall."""
    low, high = test.balanced_bootstrap
    text = (
        f"The balanced accuracy, the mean recall of the classes, is {percent(test.balanced_accuracy)} "
        f"(95 % bootstrap interval: {percent(low)} to {percent(high)})."
    )
    if lowest := test.lowest:
        text += f" {lowest.name} has the lowest recall: {percent(lowest.recall)} of {integer(lowest.support)} images."
    return text


def prior_sentence(balance: Balance) -> str:
    """Return a sentence on the class prior of the probabilities if it differs from that of training; else empty."""
    how, strength = _HOW.get(balance.method), balance.strength
    if how is None:
        return ""
    assumed = "a uniform class prior" if strength == 1 else f"class frequencies to the power of {1 - strength:g}"
    return f"Rare classes count as much as frequent ones: {how}. Probabilities assume {assumed}, not that of training."
