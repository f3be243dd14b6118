"""Two networks on the same images: how many changed sides, whether that is chance, and whether it is too many."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.measure.recall import by_class

_Z = 1.959964
# The share of held-out images that fewer bits may cost where nobody says otherwise: half a point of accuracy.
MAX_DROP = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What a change did to `images` images: `lost` went from right to wrong, `gained` from wrong to right.

    With `classes`, the same three numbers of each class that has images, all classes count alike: then the drop is
    that of the balanced accuracy.
    """

    images: int
    lost: int
    gained: int
    classes: tuple[tuple[int, int, int], ...] = ()

    @property
    def drop(self) -> float:
        """The share of images lost, less the share gained; below 0 where the change is for the better."""
        return sum((lost - gained) / images for images, lost, gained in self._parts) / len(self._parts)

    @property
    def grain(self) -> float:
        """What one image alone is of the drop: of those that were lost, the one that weighs most."""
        of_lost = [images for images, lost, _ in self._parts if lost] or [self.images]
        return 1 / (len(self._parts) * min(of_lost))

    @property
    def _parts(self) -> tuple[tuple[int, int, int], ...]:
        return self.classes or ((self.images, self.lost, self.gained),)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the drop, from the images that changed sides alone.

        Source: Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions": half an
        image is added to each of the four counts, so that it has a width where none changed.
        """
        middles, variances = [], []
        for images, lost, gained in self._parts:
            total, lost, gained = images + 2, lost + 0.5, gained + 0.5
            middles.append((lost - gained) / total)
            variances.append((lost + gained - (lost - gained) ** 2 / total) / total**2)
        middle, spread = sum(middles) / len(middles), _Z * math.sqrt(sum(variances)) / len(middles)
        return middle - spread, middle + spread

    @property
    def p_value(self) -> float:
        """The chance of so uneven a change if losing and gaining were alike: McNemar's exact test, two-sided."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        tail = sum(math.comb(changed, count) for count in range(fewer + 1))
        return min(1.0, 2 * tail / 2**changed)

    def sentence(self) -> str:
        """Return the change in words, with how sure it is."""
        low, high = self.interval
        sure = "more than chance" if self.p_value < 0.05 else "within chance"
        balanced = "balanced " if self.classes else ""
        verb = "loses" if self.drop > 0 else "gains" if self.drop < 0 else f"keeps the {balanced}accuracy:"
        of_balanced = " of balanced accuracy" if self.classes else ""
        points = f" {abs(100 * self.drop):.2f} points{of_balanced}:" if self.drop else ""
        return (
            f"{verb}{points} of {self.images} images {self.lost} went from right to wrong and {self.gained} back "
            f"(95 % {100 * low:+.2f} to {100 * high:+.2f} points lost, {sure})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and what follows from them, as JSON-able data."""
        low, high = self.interval
        counts = {key: value for key, value in asdict(self).items() if key != "classes"}
        found = {"balanced": bool(self.classes), "drop": self.drop, "interval": [low, high], "p_value": self.p_value}
        return counts | found


def paired(before: np.ndarray, after: np.ndarray, *, labels: np.ndarray | None = None) -> Paired:
    """Return what changed between two answers, bool [images]: whether each image is right.

    With int64 `labels` [images] all classes count alike.
    """
    lost, gained = before & ~after, ~before & after
    classes: tuple[tuple[int, int, int], ...] = ()
    if labels is not None:
        counts = by_class(lost, labels).images, by_class(lost, labels).right, by_class(gained, labels).right
        classes = tuple((int(n), int(a), int(b)) for n, a, b in zip(*counts, strict=True) if n)
    return Paired(images=len(before), lost=int(lost.sum()), gained=int(gained.sum()), classes=classes)


def refusal(found: Paired, max_drop: float) -> str:
    """Return why a file must not be shipped: it loses more than the share `max_drop`; an empty text where it keeps it.

    This is the one judgement of every precision below 32 bits, for fit, export and quantize alike. Of images so few
    that the share is less than one of them, one may be lost: less cannot be told from rounding a tie. With a share of
    0 none may.
    """
    asked, grain = max_drop, ""
    if 0 < max_drop < found.grain:
        grain = f"; with {found.images} images one alone is {100 * found.grain:.2f} points, and may be lost"
        max_drop = found.grain
    if found.drop <= max_drop + 1e-9:
        return ""
    return f"{found.sentence()}, over the {100 * asked:g} points that may be lost{grain}"
