"""The limited figures of networks: predicted, linear about one network, and measured whole."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effnet.arch.codec import spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.errors import InputError
from effnet.measurement.budget import LABELS, Budget
from effnet.nas.assemble.alternatives import Alternative, Choice, assembled_spec
from effnet.nas.assemble.choose import Option
from effnet.nas.assemble.library import Shelf
from effnet.system.files import read_json

# A change that seems to bring nothing still costs this score, in nats: without need, parts stay as they are.
_LEAST = 1e-5

FiguresOf = Callable[[ArchSpec], Mapping[str, float]]
"""Maps a network to its figures by their names in a budget, such as latency_ms."""


def limited(budget: Budget, figures_of: FiguresOf) -> FiguresOf:
    """Return a function that adds the counts of a network to its figures, and leaves out those without a limit.

    The size is that of the fp32 weights, unless `figures_of` gives another. Raises InputError if a limited figure is
    missing.
    """

    def of(spec: ArchSpec) -> Mapping[str, float]:
        total = cost(spec)
        counted = {"macs": total.macs, "params": total.params, "size_mb": total.weight_bytes() / 1e6}
        found = counted | dict(figures_of(spec))
        if missing := [LABELS[name] for name in budget.limits() if name not in found]:
            raise InputError(f"a limited figure must be predicted; {missing[0]} is not: leave out its limit")
        return {name: float(found[name]) for name in budget.limits()}

    return of


class Kept:
    """Figures of networks that are measured once and kept in a file, so that a resumed search has the same ones."""

    def __init__(self, figures_of: FiguresOf, path: Path) -> None:
        self._figures_of, self._path = figures_of, path
        try:
            self._known: dict[str, dict[str, float]] = read_json(path)
        except (OSError, ValueError):
            self._known = {}

    def __call__(self, spec: ArchSpec) -> Mapping[str, float]:
        """Return the figures of a network."""
        data = {key: value for key, value in spec_to_dict(spec).items() if key not in ("name", "lineage")}
        key = hashlib.blake2b(json.dumps(data).encode(), digest_size=16).hexdigest()
        if key not in self._known:
            self._known[key] = dict(self._figures_of(spec))
            write_text(self._path, json.dumps(self._known) + "\n")
        return self._known[key]


def step_towards(budget: Budget, figures: Mapping[str, float], *, rounds: int) -> Budget:
    """Return the budget of the next of `rounds` equal cuts of a network with these figures."""
    limits = budget.limits()
    cuts = {name: max(1.0, figures[name] / limit) ** (1 - 1 / rounds) for name, limit in limits.items()}
    return dataclasses.replace(budget, margin=False, **{name: limits[name] * cut for name, cut in cuts.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Figures about one network: its own, and the change that each alternative makes alone."""

    spec: ArchSpec
    shelves: Sequence[Shelf]
    base: Mapping[str, float]
    options: Sequence[Sequence[Option]]

    def choice(self, indices: Sequence[int]) -> Choice:
        """Return a choice of one option for every part as the alternatives of the changed parts."""
        rows = zip(self.shelves, indices, strict=True)
        return {shelf.part: shelf.alternatives[index] for shelf, index in rows if index}

    def figures(self, indices: Sequence[int]) -> dict[str, float]:
        """Return the sums of the network's figures and the changes of a choice."""
        rows = [row[index] for row, index in zip(self.options, indices, strict=True)]
        return {name: value + sum(row.changes[name] for row in rows) for name, value in self.base.items()}


def linear(spec: ArchSpec, shelves: Sequence[Shelf], figures_of: FiguresOf) -> Linear:
    """Return the figures linear about `spec`, from its own and those of each network with one alternative."""
    base = figures_of(spec)

    def option(part: str, found: Alternative, score: float) -> Option:
        after = figures_of(assembled_spec(spec, {part: found}))
        changes = {name: after[name] - base[name] for name in base}
        return Option(score=max(0.0, score) + _LEAST, changes=changes, dropped=found.dropped)

    unchanged = Option(score=0.0, changes=dict.fromkeys(base, 0.0))
    options = [
        [
            unchanged,
            *(option(shelf.part, *each) for each in list(zip(shelf.alternatives, shelf.scores, strict=True))[1:]),
        ]
        for shelf in shelves
    ]
    return Linear(spec=spec, shelves=shelves, base=base, options=options)
