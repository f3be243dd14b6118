"""The report's sentences on imbalanced classes: the balanced accuracy, and the class prior of the probabilities."""

from collections.abc import Mapping
from typing import Any

from effnet.report.text import integer, percent

_HOW = {
    "adjust": "their logits were adjusted",
    "sample": "training sampled their images more often",
    "weight": "their images had a larger weight in the loss",
}


def balanced_sentence(report: Mapping[str, Any]) -> str:
    """Return a sentence on the balanced accuracy and the class of lowest recall; empty if the report has none."""
    test = report.get("test") or {}
    value, interval, lowest = (test.get(key) for key in ("balanced_accuracy", "balanced_bootstrap", "lowest"))
    if value is None:
        return ""
    sure = f" (95 % bootstrap interval: {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    text = f"The balanced accuracy, the mean recall of the classes, is {percent(value)}{sure}."
    if lowest:
        text += (
            f" {lowest.get('name')} has the lowest recall: {percent(lowest.get('recall'))} of "
            f"{integer(lowest.get('support'))} images."
        )
    return text


def prior_sentence(report: Mapping[str, Any]) -> str:
    """Return a sentence on the class prior of the probabilities if it differs from that of training; else empty."""
    balance = (report.get("training") or {}).get("balance") or {}
    how, strength = _HOW.get(balance.get("method")), balance.get("strength")
    if how is None or not isinstance(strength, int | float):
        return ""
    assumed = "a uniform class prior" if strength == 1 else f"class frequencies to the power of {1 - strength:g}"
    return f"Rare classes count as much as frequent ones: {how}. Probabilities assume {assumed}, not that of training."
