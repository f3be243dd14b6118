"""Costs of wrong answers: of missing a class or tag, and of answering with it falsely.

They change decisions, never probabilities: the answer is the one of the least expected cost.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effnet.data.several.outputs import OutputSpec
from effnet.errors import InputError, nearest
from effnet.system.text import brief

_ENTRY = re.compile(r"(miss|false):(.+)=([^=]*)", re.DOTALL)
# A comma within a name does not end an entry.
_BETWEEN = re.compile(r",(?=(?:miss|false):)")
_MOST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of missing each class or tag, and of a false answer with it; both are 1 unless given.

    Answering class j for an image of class k costs `miss[k]` x `false[j]`. A tag that is missed costs its `miss`, one
    that is present falsely its `false`.
    """

    miss: tuple[float, ...]
    false: tuple[float, ...]

    def __bool__(self) -> bool:
        return any(cost != 1 for cost in (*self.miss, *self.false))

    def expected(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the expected cost of answering with each class, float64 [..., classes]."""
        each = np.asarray(probabilities, np.float64) * self.miss
        found: np.ndarray = (each.sum(-1, keepdims=True) - each) * self.false
        return found

    def of(self, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the cost of each answer, a class number, float64 [images]."""
        cost = np.array(self.miss)[labels] * np.array(self.false)[answers]
        return np.where(answers == labels, 0.0, cost)


def decide(probabilities: np.ndarray, costs: Costs | None = None) -> np.ndarray:
    """Return the class that answers each row [images, classes]: the most probable, or that of least expected cost."""
    found: np.ndarray = costs.expected(probabilities).argmin(-1) if costs else probabilities.argmax(-1)
    return found


def costs_of(spec: OutputSpec) -> Costs | None:
    """Return the costs of an output, None if all wrong answers cost the same."""
    ones = (1.0,) * len(spec.classes)
    return Costs(miss=spec.miss or ones, false=spec.false or ones) if spec.miss or spec.false else None


def check_cost(text: str) -> str:
    """Return the text of an option such as "miss:dog=5,false:cat=2"; raise InputError unless it is one."""
    _entries(text)
    return text


def read_costs(text: str, class_names: Sequence[str]) -> Costs | None:
    """Return the costs of classes, as in "miss:dog=5,false:cat=2"; None if the text is empty.

    A name may have `:` and `=`; a comma ends an entry only before `miss:` or `false:`. Raises InputError.
    """
    given = {name: ("", number) for number, name in enumerate(class_names)}
    return _read(text, {"": len(class_names)}, given).get("")


def with_costs(specs: Sequence[OutputSpec], text: str) -> tuple[OutputSpec, ...]:
    """Return outputs with the costs of a text; a name is that of a column, or of a class or tag of one output alone.

    Raises InputError for others, and for a number.
    """
    columns = {name: (spec.name, i) for spec in specs if spec.classes for i, name in enumerate(spec.columns)}
    plain: dict[str, list[tuple[str, int]]] = {}
    for spec in specs:
        for number, name in enumerate(spec.classes):
            plain.setdefault(name, []).append((spec.name, number))
    known = {name: places[0] for name, places in plain.items() if len(places) == 1} | columns
    shared = {
        name: [spec.columns[spec.classes.index(name)] for spec in specs if name in spec.classes] for name in plain
    }
    found = _read(text, {spec.name: len(spec.classes) for spec in specs}, known, shared=shared)
    return tuple(
        replace(spec, miss=costs.miss, false=costs.false) if (costs := found.get(spec.name)) else spec for spec in specs
    )


def _read(
    text: str,
    widths: Mapping[str, int],
    known: Mapping[str, tuple[str, int]],
    *,
    shared: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Costs]:
    """Return the costs of each output that has any; `known` holds the output and number of each name."""
    found: dict[str, dict[str, list[float]]] = {}
    given: set[tuple[str, str]] = set()
    for kind, name, cost in _entries(text):
        if name not in known:
            others = (shared or {}).get(name, ())
            hint = f"; say which: {' or '.join(others)}" if others else nearest(name, known)
            raise InputError(f"cost must name a class or tag of the data; got {brief(name)}{hint}")
        if (kind, name) in given:
            raise InputError(f"cost must name {kind}:{name} once; got it twice")
        given.add((kind, name))
        output, number = known[name]
        ones = {which: [1.0] * widths[output] for which in ("miss", "false")}
        found.setdefault(output, ones)[kind][number] = cost
    return {name: Costs(miss=tuple(both["miss"]), false=tuple(both["false"])) for name, both in found.items()}


def _entries(text: str) -> list[tuple[str, str, float]]:
    """Return the kind, name and cost of each entry of a text."""
    if not isinstance(text, str):
        raise InputError(f"cost must be a text such as miss:dog=5; got {brief(text)}")
    entries = []
    for word in _BETWEEN.split(text) if text else []:
        match = _ENTRY.fullmatch(word)
        try:
            cost = float(match[3]) if match else math.nan
        except ValueError:
            cost = math.nan
        if match is None or not 0 < cost <= _MOST:
            raise InputError(
                f"cost must be miss:NAME=COST or false:NAME=COST, or several with commas, such as miss:dog=5, with "
                f"costs above 0 and at most {_MOST:g}; got {brief(word)}"
            )
        entries.append((match[1], match[2].strip(), cost))
    return entries
