"""The choice of one alternative for every part: integer programming under the limits, and solutions that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from effnet.errors import InputError, MissingExtraError


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One alternative of a part: its `score`, lower is better, and the change of each limited figure that it brings.

    A `dropped` option leaves nothing of its part.
    """

    score: float
    changes: Mapping[str, float] = field(default_factory=dict)
    dropped: bool = False


def best_choices(
    options: Sequence[Sequence[Option]],
    *,
    room: Mapping[str, float],
    groups: Sequence[Sequence[int]] = (),
    number: int = 1,
    distance: int = 1,
) -> list[tuple[int, ...]]:
    """Return at most `number` choices of one option for every part, as indices, the lowest sum of scores first.

    The sum of the changes of each figure is at most its `room`. Each choice differs from every earlier one in at least
    `distance` parts, and is the best that does. `groups` are the parts that may not all be dropped. Fewer are returned,
    or none, if no more exist.

    Source: the integer programme of LANA (Molchanov et al. 2022, section 3.3), solved by HiGHS.
    """
    if not 1 <= distance <= max(1, len(options)):
        raise InputError(f"choices must differ in 1 to {len(options)} parts; got {distance}")
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    flat = [(part, option) for part, row in enumerate(options) for option in row]
    parts = np.array([part for part, _ in flat])
    rows = [(parts == part, 1.0, 1.0) for part in range(len(options))]
    for name, limit in room.items():
        rows.append((np.array([option.changes.get(name, 0.0) for _, option in flat]), -np.inf, limit))
    dropped = np.array([option.dropped for _, option in flat])
    rows += [(dropped & np.isin(parts, group), -np.inf, len(group) - 1.0) for group in groups]
    found: list[tuple[int, ...]] = []
    starts = np.cumsum([0, *map(len, options)])[:-1]
    while len(found) < number:
        matrix, low, high = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        solved = milp(
            np.array([option.score for _, option in flat]),
            integrality=np.ones(len(flat)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": 0.0},
        )
        if solved.x is None:
            break
        taken = solved.x > 0.5
        found.append(tuple(int(flag.argmax()) for flag in np.split(taken, starts[1:])))
        rows.append((taken, -np.inf, float(len(options) - distance)))
    return found
