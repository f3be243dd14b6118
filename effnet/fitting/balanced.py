"""What a report says of classes of unequal size: the balanced accuracy, and what its probabilities assume."""

from collections.abc import Mapping
from typing import Any

from effnet.fitting.wording import integer, percent

_HOW = {
    "adjust": "their logits were adjusted",
    "sample": "training showed images of rare ones more often",
    "weight": "images of rare ones weighed more in training",
}


def balanced_sentence(report: Mapping[str, Any]) -> str:
    """Return the balanced accuracy and the class of the lowest recall; empty for a report that has none."""
    test = report.get("test") or {}
    value, interval, lowest = (test.get(key) for key in ("balanced_accuracy", "balanced_bootstrap", "lowest"))
    if value is None:
        return ""
    sure = f" (95 % bootstrap interval: {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    text = f"The balanced accuracy, the mean recall of the classes, is {percent(value)}{sure}."
    if lowest:
        text += (
            f" The lowest recall is that of {lowest.get('name')}: {percent(lowest.get('recall'))} of "
            f"{integer(lowest.get('support'))} images."
        )
    return text


def prior_sentence(report: Mapping[str, Any]) -> str:
    """Return what class frequencies the probabilities assume, where those of training were taken out; else empty."""
    balance = (report.get("training") or {}).get("balance") or {}
    how, strength = _HOW.get(balance.get("method")), balance.get("strength")
    if how is None or not isinstance(strength, int | float):
        return ""
    assumed = "all classes alike" if strength == 1 else f"class frequencies to the power of {1 - strength:g}"
    return f"Rare classes count as much as frequent ones: {how}. Probabilities assume {assumed}, not those of training."
