"""The accuracy of guessing, and whether a model is better."""

from dataclasses import dataclass

import numpy as np

from effnet.system.text import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class MostFrequent:
    """The most frequent class and its share of the images: the accuracy of always answering with it."""

    name: str
    share: float


def most_frequent(labels: np.ndarray, class_names: tuple[str, ...]) -> MostFrequent:
    """Return the most frequent class of int64 labels; there must be at least one label."""
    counts = np.bincount(labels, minlength=len(class_names))
    return MostFrequent(name=class_names[int(counts.argmax())], share=float(counts.max() / len(labels)))


def chance_sentence(
    accuracy: float,
    confidence: tuple[float, float],
    usual: MostFrequent,
    *,
    labels: np.ndarray,
    balanced: tuple[float, tuple[float, float]] | None = None,
) -> str:
    """Return a warning if the accuracy, with this 95 % interval, may be that of guessing; otherwise an empty string.

    Guessing means always answering the most frequent class, the best constant answer. Images of a single class cannot
    tell.

    A model that balances its classes is compared otherwise: `balanced`, its balanced accuracy and interval, is compared
    with that of any guess, one over the number of classes in the labels.
    """
    classes = len(np.unique(labels))
    if classes < 2:
        return ""
    if balanced is not None:
        return _balanced_sentence(*balanced, guess=1 / classes)
    if confidence[0] > usual.share:
        return ""
    always = f"always answering {usual.name!r} ({percent(usual.share, 1)} of the test images)"
    if accuracy <= usual.share:
        return f"The model is no better than {always}: check the labels and the layout."
    return (
        f"The model is not shown to be better than {always}: its accuracy lies between {percent(confidence[0], 1)} and "
        f"{percent(confidence[1], 1)} (95 % confidence). Check the labels and the layout, or test on more images."
    )


def _balanced_sentence(accuracy: float, interval: tuple[float, float], *, guess: float) -> str:
    if interval[0] > guess:
        return ""
    return (
        f"The model is not shown to be better than a guess, whose balanced accuracy is {percent(guess, 1)}: its own is "
        f"{percent(accuracy, 1)} (95 % bootstrap interval {percent(interval[0], 1)} to {percent(interval[1], 1)}). "
        "Check the labels and the layout, or test on more images."
    )
