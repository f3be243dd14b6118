"""The message of an infeasible budget: the nearest network, and the limits that suffice for it."""

from collections.abc import Mapping, Sequence

from effnet.measurement.budget import LABELS, MARGINS, Budget, say, say_enough
from effnet.planner.space import Candidate


def refusal(
    candidates: Sequence[Candidate], budget: Budget, nearest: Candidate, figures: Mapping[str, float | None]
) -> str:
    """Return the sentence that names the budget that no candidate meets, and the nearest one that can be met.

    That is the budget that the `nearest` candidate meets with its `figures`; all of its limits belong together.
    """
    asked = budget.asked()
    over = budget.with_margin().exceeded(figures)
    has = {name: _range(name, nearest.figures[name] or value, value) for name, value in over.items()}
    limits = " and ".join(_limit(name, limit) for name, limit in asked.items())
    one = len(asked) == 1
    takes = " and ".join(value if one else f"{LABELS[key]} {value}" for key, value in has.items())
    which = f"the {'least' if one else 'nearest'} is {nearest.title} with {takes}"
    return f"{_name(candidates)} has {limits}: {which}, so ask for {enough(budget, figures)}"


def enough(budget: Budget, figures: Mapping[str, float | None]) -> str:
    """Return the limits that suffice, with their margins, in place of those that `figures` exceed."""
    over = budget.with_margin().exceeded(figures)
    least = {name: f"{say_enough(name, value)} or more" for name, value in over.items()}
    if len(budget.asked()) == 1:
        return " ".join(least.values())
    return " and ".join(f"{LABELS[name]} {value}" for name, value in least.items())


def _limit(name: str, limit: float) -> str:
    margin = f" with a margin of {MARGINS[name]:.0%}" if MARGINS[name] else ""
    return f"{LABELS[name]} of at most {say(name, limit)}{margin}"


def _range(name: str, least: float, most: float) -> str:
    """Return the range of several measurements, as one number if they are equal."""
    first, last = say(name, least), say(name, most)
    return first if first == last else f"{first.partition(' ')[0]} to {last}"


def _name(table: Sequence[Candidate]) -> str:
    """Return the subject of the sentence: all candidates, none of which fits."""
    sources = sorted({candidate.weights for candidate in table})
    if sources == [""]:
        return "no network that effnet knows for these images"
    return f"no resolution of {sources[0]}" if len(sources) == 1 else "no pretrained network, at any resolution,"
