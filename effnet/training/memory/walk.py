"""Liveness analysis: walks the operations of a step forward and backward to find its peak memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from effnet.arch.layers import INPUT


class Op(NamedTuple):
    """One operation: the feature maps that it reads and writes, and those that it saves for the backward pass.

    `passes` are the inputs whose gradient is the incoming one, not a new tensor. `before` and `after` are temporary
    elements that the operation needs in the forward and in the backward pass.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    saves: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Elements kept between the forward and the backward pass, and the maximum alive at any moment."""

    kept: int
    most: int


@dataclass(slots=True, kw_only=True)
class Graph:
    """The operations of one image's step in execution order, and the elements of every feature map."""

    elements: dict[str, int]
    ops: list[Op] = field(default_factory=list)

    def size(self, names: Iterable[str]) -> int:
        """Return the sum of the elements of these feature maps."""
        return sum(self.elements[name] for name in names)

    def forward_peak(self) -> int:
        """Return the maximum of elements alive in a forward pass that saves nothing."""
        return self._forward(self.ops, set(), keep=False)

    def training_peak(self, *, recompute: bool) -> Peak:
        """Return the peak of a training step; with `recompute` stages keep only their input, and run twice."""
        parts = _parts(self.ops) if recompute else [(False, self.ops)]
        kept: set[str] = set()
        most = 0
        for staged, ops in parts:
            most = max(most, self._forward(ops, kept, keep=not staged))
            kept |= {ops[0].reads[0]} if staged else _saved(ops)
        between = kept
        for index in range(len(parts) - 1, -1, -1):
            staged, ops = parts[index]
            kept = set().union(*({part[0].reads[0]} if again else _saved(part) for again, part in parts[: index + 1]))
            if staged:
                gradient = self.elements[ops[-1].writes]
                most = max(most, gradient + self._forward(ops, kept, keep=True))
            most = max(most, self._backward(ops, kept - ({ops[0].reads[0]} if staged else _saved(ops))))
        return Peak(kept=self.size(between), most=most)

    def _forward(self, ops: list[Op], kept: set[str], *, keep: bool) -> int:
        """Return the maximum of elements alive in the forward pass of `ops`, including the feature maps `kept`."""
        last = _last_uses(ops)
        alive, most = set(ops[0].reads), 0
        for index, op in enumerate(ops):
            alive.add(op.writes)
            kept = kept | set(op.saves) if keep else kept
            most = max(most, self.size(alive | kept) + op.before)
            alive = {name for name in alive if last.get(name, len(ops)) > index}
        return most

    def _backward(self, ops: list[Op], kept: set[str]) -> int:
        """Return the maximum of elements alive from the last of `ops` to the first; other parts keep `kept`."""
        first: dict[str, int] = {}
        for index, op in enumerate(ops):
            for name in op.saves:
                first.setdefault(name, index)
        gradients, most = {ops[-1].writes: ops[-1].writes}, 0
        for index in range(len(ops) - 1, -1, -1):
            op = ops[index]
            if op.writes in _NO_GRADIENT:
                continue
            arrived = gradients.pop(op.writes)
            made = {x: arrived if x in op.passes else x for x in op.reads if x not in _NO_GRADIENT}
            saved = {name for name, at in first.items() if at <= index}
            alive = {arrived, *gradients.values(), *made.values()}
            most = max(most, self.size(kept | saved) + self.size(alive) + op.after)
            gradients |= made
        return most


# The image and its padded copy need no gradient.
PADDED = ".padded"
_NO_GRADIENT = (INPUT, f"stem.conv{PADDED}")


def _saved(ops: list[Op]) -> set[str]:
    return {name for op in ops for name in op.saves}


def _parts(ops: list[Op]) -> list[tuple[bool, list[Op]]]:
    """Return the operations in runs: those before the stages, each stage (True), and those after the stages."""
    parts: dict[str, list[Op]] = {}
    for op in ops:
        words = op.name.split(".")
        staged = words[0] == "stages"
        place = ".".join(words[:2]) if staged else ("end" if "stages.0" in parts else "start")
        parts.setdefault(place, []).append(op)
    return [(place.startswith("stages"), ops) for place, ops in parts.items()]


def _last_uses(ops: list[Op]) -> dict[str, int]:
    """Return the operation after which each feature map is freed: units and blocks hold their inputs to their end."""
    ends = {scope: index for index, op in enumerate(ops) for scope in _scopes(op.name)}
    within = {op.writes: _scopes(op.name) for op in ops}
    last: dict[str, int] = {}
    for index, op in enumerate(ops):
        for name in op.reads:
            held = [ends[scope] for scope in _scopes(op.name) if scope not in within.get(name, ())]
            last[name] = max(last.get(name, 0), index, *held)
    return last


def _scopes(name: str) -> tuple[str, ...]:
    """Return the unit and the block that contain a layer."""
    words = name.split(".")
    return (".".join(words[:-1]) or name, ".".join(words[:3]) if words[0] == "stages" else words[0])
