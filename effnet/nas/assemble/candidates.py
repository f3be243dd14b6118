"""Candidates: the best and different choices of alternatives whose whole networks meet the budget."""

from collections.abc import Mapping
from dataclasses import dataclass

from effnet.arch.channels import block_name
from effnet.errors import BudgetError
from effnet.measurement.budget import Budget
from effnet.nas.assemble.alternatives import Choice, assembled_spec
from effnet.nas.assemble.choose import best_choices
from effnet.nas.assemble.figures import FiguresOf, Linear

# The sums are corrected by the figures of whole networks at most this often; enough is used of the tightest limit.
_CORRECTIONS, _ENOUGH = 6, 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A choice, the sum of its scores, and the figures of its whole network: as summed up, and as verified."""

    choice: Choice
    score: float
    summed: Mapping[str, float]
    figures: Mapping[str, float]


def candidates(found: Linear, budget: Budget, *, verify: FiguresOf, number: int, distance: int) -> list[Candidate]:
    """Return the best choices whose networks meet the budget, at most `number`, that differ in `distance` parts each.

    `verify` returns the figures of a whole network, measured or predicted. Sums of changes differ from them, since
    layers share caches and kernels, so the limits of the sums are corrected until the best choice meets the budget
    and uses it. Raises BudgetError if no network meets it.
    """
    limits = budget.limits()
    excess = dict.fromkeys(limits, 0.0)  # how much more a whole network takes than its sum
    best: Candidate | None = None
    for _ in range(_CORRECTIONS):
        tried = _choose(found, limits, excess, verify=verify, number=1, distance=1)
        if not tried:
            break
        fits = not budget.exceeded(tried[0].figures)
        if fits and (best is None or tried[0].score < best.score):
            best = tried[0]
        if fits and budget.share(tried[0].figures) >= _ENOUGH:
            break
        before, excess = excess, {name: tried[0].figures[name] - tried[0].summed[name] for name in limits}
        if excess == before:
            break
    if best is None:
        raise BudgetError(_refusal(found, budget))
    excess = {name: best.figures[name] - best.summed[name] for name in limits}
    others = _choose(found, limits, excess, verify=verify, number=number, distance=min(distance, len(found.options)))
    fitting = [each for each in others if not budget.exceeded(each.figures)]
    return fitting or [best]


def _choose(
    found: Linear,
    limits: Mapping[str, float],
    excess: Mapping[str, float],
    *,
    verify: FiguresOf,
    number: int,
    distance: int,
) -> list[Candidate]:
    room = {name: limit - found.base[name] - excess[name] for name, limit in limits.items()}
    chosen = best_choices(found.options, room=room, groups=_stages(found), number=number, distance=distance)
    rows = []
    for indices in chosen:
        choice = found.choice(indices)
        score = sum(row[index].score for row, index in zip(found.options, indices, strict=True))
        figures = verify(assembled_spec(found.spec, choice))
        rows.append(Candidate(choice=choice, score=score, summed=found.figures(indices), figures=figures))
    return rows


def _stages(found: Linear) -> list[list[int]]:
    """Return the numbers of the parts of each stage."""
    places = {shelf.part: number for number, shelf in enumerate(found.shelves)}
    stages = ([block_name(i, j) for j in range(len(row))] for i, row in enumerate(found.spec.stages))
    return [[places[part] for part in parts if part in places] for parts in stages]


def _refusal(found: Linear, budget: Budget) -> str:
    """Return why no network meets the budget, with the figures of the smallest sums."""
    least = {
        name: value + sum(min(option.changes[name] for option in row) for row in found.options)
        for name, value in found.base.items()
    }
    failed = "; ".join(budget.failures(least)) or "no choice meets all limits at once"
    return f"{found.spec.name} cannot be assembled within the budget: {failed}; allow more, or a lower resolution"
