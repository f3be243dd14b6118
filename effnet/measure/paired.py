"""Two networks on the same images: how many changed sides, whether that is chance, and whether it is too many."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_Z = 1.959964
# The share of held-out images that fewer bits may cost where nobody says otherwise: half a point of accuracy.
MAX_DROP = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What a change did to `images` pictures: `lost` went from right to wrong, `gained` from wrong to right."""

    images: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """The share of pictures lost, less the share gained; below 0 where the change is for the better."""
        return (self.lost - self.gained) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the drop, from the pictures that changed sides alone.

        Source: Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions": half a
        picture is added to each of the four counts, so that it has a width where none changed.
        """
        total, lost, gained = self.images + 2, self.lost + 0.5, self.gained + 0.5
        middle = (lost - gained) / total
        spread = _Z * math.sqrt(lost + gained - (lost - gained) ** 2 / total) / total
        return middle - spread, middle + spread

    @property
    def p_value(self) -> float:
        """The chance of so uneven a change if losing and gaining were alike: McNemar's exact test, two-sided."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        tail = sum(math.comb(changed, count) for count in range(fewer + 1))
        return min(1.0, 2 * tail / 2**changed)

    def sentence(self) -> str:
        """Returns the change in words, with how sure it is."""
        low, high = self.interval
        sure = "more than chance" if self.p_value < 0.05 else "within chance"
        verb = "loses" if self.drop > 0 else "gains" if self.drop < 0 else "keeps the accuracy:"
        points = f" {abs(100 * self.drop):.2f} points:" if self.drop else ""
        return (
            f"{verb}{points} of {self.images} pictures {self.lost} went from right to wrong and {self.gained} back "
            f"(95 % {100 * low:+.2f} to {100 * high:+.2f} points lost, {sure})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts, and what follows from them, as JSON-able data."""
        low, high = self.interval
        return asdict(self) | {"drop": self.drop, "interval": [low, high], "p_value": self.p_value}


def paired(before: np.ndarray, after: np.ndarray) -> Paired:
    """Returns what changed between two answers, bool [pictures]: whether each picture is right."""
    return Paired(images=len(before), lost=int((before & ~after).sum()), gained=int((~before & after).sum()))


def refusal(found: Paired, max_drop: float) -> str:
    """Return why a file must not be shipped: it loses more than the share `max_drop`; an empty text where it keeps it.

    This is the one judgement of every precision below 32 bits, for fit, export and quantize alike. Of images so few
    that the share is less than one of them, one may be lost: less cannot be told from rounding a tie. With a share of
    0 none may.
    """
    asked, grain = max_drop, ""
    if 0 < found.images * max_drop < 1:
        grain = f"; with {found.images} images one alone is {100 / found.images:.2f} points, and may be lost"
        max_drop = 1 / found.images
    if found.drop <= max_drop + 1e-9:
        return ""
    return f"{found.sentence()}, over the {100 * asked:g} points that may be lost{grain}"
