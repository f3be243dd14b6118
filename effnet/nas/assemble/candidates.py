"""Candidates: the best and different choices of alternatives whose whole networks meet the budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

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
    layers share caches and kernels: the limits of the sums are corrected by the median ratio of all networks verified
    so far, since a single measurement is noisy, until a choice meets the budget and uses it. Raises BudgetError if no
    network meets it.
    """
    limits = budget.limits()
    tried: list[Candidate] = []
    for _ in range(_CORRECTIONS):
        found_now = _choose(found, limits, tried, verify=verify, number=1, distance=1)
        if not found_now or found_now[0] in tried:
            break
        tried += found_now
        if not budget.exceeded(tried[-1].figures) and budget.share(tried[-1].figures) >= _ENOUGH:
            break
    parts = len(found.options)
    tried += _choose(found, limits, tried, verify=verify, number=number, distance=min(distance, parts))
    fitting = [each for each in tried if not budget.exceeded(each.figures)]
    if not fitting:
        raise BudgetError(_refusal(found, budget))
    fitting.sort(key=lambda each: each.score)
    apart: list[Candidate] = []
    for each in fitting:
        if all(_distance(each.choice, other.choice) >= min(distance, parts) for other in apart):
            apart.append(each)
    return apart[:number]


def _distance(one: Choice, other: Choice) -> int:
    """Return the number of parts in which two choices differ."""
    return sum(one.get(part) != other.get(part) for part in one.keys() | other.keys())


def _choose(
    found: Linear,
    limits: Mapping[str, float],
    tried: Sequence[Candidate],
    *,
    verify: FiguresOf,
    number: int,
    distance: int,
) -> list[Candidate]:
    """Return the best choices by their sums, corrected by the ratio of figures to sums of those that were `tried`."""
    room = {}
    for name, limit in limits.items():
        ratios = [each.figures[name] / each.summed[name] for each in tried if each.summed[name] > 0]
        room[name] = limit / (median(ratios) if ratios else 1.0) - found.base[name]
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
