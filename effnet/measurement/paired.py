"""Paired comparison of two networks on the same images: accuracy drop, McNemar's test, and the limit on the drop."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.measurement.classification.recall import by_class
from effnet.measurement.intervals import Z

# The default limit on the accuracy drop of quantization, as a share of held-out images: 0.5 percentage points.
MAX_DROP = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The effect of a change on `images` images: `lost` became wrong, `gained` became right.

    With `classes`, the same three numbers for each class that has images, all classes count alike: the drop is then
    that of the balanced accuracy. If one of several outputs lost more than the others, they are the answers of `output`
    to the images that know it.
    """

    images: int
    lost: int
    gained: int
    classes: tuple[tuple[int, int, int], ...] = ()
    output: str = ""

    @property
    def title(self) -> str:
        """What drops."""
        return "accuracy"

    @property
    def drop(self) -> float:
        """The share of images lost minus the share gained; below 0 for an improvement."""
        return sum((lost - gained) / images for images, lost, gained in self._parts) / len(self._parts)

    @property
    def grain(self) -> float:
        """The drop that a single image causes: of the lost images, the one of the largest weight."""
        of_lost = [images for images, lost, _ in self._parts if lost] or [self.images]
        return 1 / (len(self._parts) * min(of_lost))

    @property
    def _parts(self) -> tuple[tuple[int, int, int], ...]:
        return self.classes or ((self.images, self.lost, self.gained),)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the drop, from the images whose correctness changed.

        Source: Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions": half an
        image is added to each of the four counts, so that it has a width even if none changed.
        """
        middles, variances = [], []
        lost: float
        gained: float
        for images, lost, gained in self._parts:
            total, lost, gained = images + 2, lost + 0.5, gained + 0.5
            middles.append((lost - gained) / total)
            variances.append((lost + gained - (lost - gained) ** 2 / total) / total**2)
        middle, spread = sum(middles) / len(middles), Z * math.sqrt(sum(variances)) / len(middles)
        return middle - spread, middle + spread

    @property
    def p_value(self) -> float:
        """The two-sided p-value of McNemar's exact test; under its null hypothesis losses and gains are as likely."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        tail = sum(math.comb(changed, count) for count in range(fewer + 1))
        return min(1.0, 2 * tail / 2**changed)

    def sentence(self) -> str:
        """Return the change in words, with its confidence interval and significance."""
        low, high = self.interval
        sure = "significant" if self.p_value < 0.05 else "not significant"
        balanced = "balanced " if self.classes else ""
        verb = "loses" if self.drop > 0 else "gains" if self.drop < 0 else f"keeps the {balanced}accuracy:"
        of_balanced = " of balanced accuracy" if self.classes else ""
        points = f" {abs(100 * self.drop):.2f} percentage points{of_balanced}:" if self.drop else ""
        answers = f"answers of {self.output}" if self.output else "images"
        return (
            f"{verb}{points} of {self.images} {answers} {self.lost} became wrong and {self.gained} right "
            f"(95 % interval of the loss {100 * low:+.2f} to {100 * high:+.2f}; {sure}, McNemar)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and the statistics derived from them as JSON-able data."""
        low, high = self.interval
        counts = {key: value for key, value in asdict(self).items() if key != "classes"}
        found = {"balanced": bool(self.classes), "drop": self.drop, "interval": [low, high], "p_value": self.p_value}
        return counts | found


def paired(
    before: np.ndarray,
    after: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    parts: Sequence[tuple[str, int]] = (),
) -> Paired:
    """Return the comparison of two results, bool [images] each: whether each image is right.

    With int64 `labels` [images] all classes count alike. Results of several outputs are int8 [images, columns] as
    `Task.right` returns them, and `parts` those of the task: the output that lost most is compared.
    """
    if before.ndim > 1:
        return max(_of_outputs(before, after, parts), key=lambda found: found.drop)
    lost, gained = before & ~after, ~before & after
    classes: tuple[tuple[int, int, int], ...] = ()
    if labels is not None:
        of_lost, of_gained = by_class(lost, labels), by_class(gained, labels)
        counts = zip(of_lost.images, of_lost.right, of_gained.right, strict=True)
        classes = tuple((int(n), int(a), int(b)) for n, a, b in counts if n)
    return Paired(images=len(before), lost=int(lost.sum()), gained=int(gained.sum()), classes=classes)


def _of_outputs(before: np.ndarray, after: np.ndarray, parts: Sequence[tuple[str, int]]) -> Iterator[Paired]:
    """Yield the comparison of each output, over the answers that are known."""
    first = 0
    for name, width in parts:
        one, other = (rows[:, first : first + width] for rows in (before, after))
        first += width
        known = one >= 0
        yield Paired(
            images=max(1, int(known.sum())),
            lost=int(((one == 1) & (other == 0)).sum()),
            gained=int(((one == 0) & (other == 1)).sum()),
            output=name,
        )


def share_right(right: np.ndarray) -> float:
    """Return the share of right answers: of bool [images], or the mean of those of int8 [images, columns]."""
    if right.ndim == 1:
        return float(right.mean())
    known = (right >= 0).sum(0)
    return float(((right == 1).sum(0)[known > 0] / known[known > 0]).mean()) if known.any() else float("nan")


def refusal(found: Paired, max_drop: float) -> str:
    """Return why a file is rejected: it loses more than the share `max_drop`; an empty string if it does not.

    This is the acceptance criterion of every precision below fp32, for fit, export and quantize alike. If the images
    are so few that the share is less than one of them, one may be lost: less cannot be distinguished from a tie that
    was rounded. With a share of 0 none may be lost.
    """
    asked, grain = max_drop, ""
    if 0 < max_drop < found.grain:
        grain = f"; with {found.images} images a single one is {100 * found.grain:.2f}, which is allowed"
        max_drop = found.grain
    if found.drop <= max_drop + 1e-9:
        return ""
    return f"{found.sentence()}, more than the allowed {100 * asked:g} percentage points{grain}"
