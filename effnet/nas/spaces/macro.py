"""The macro space: networks trained from scratch, of stages that differ, each scaled to the budget."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from effnet.arch.cost import Precision
from effnet.arch.lineage import Lineage
from effnet.arch.scale import ALPHA, BETA
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import BudgetError, InputError
from effnet.measurement.budget import Budget
from effnet.nas.spaces.genomes import generator, sample
from effnet.nas.spaces.space import Decision, Genome
from effnet.nas.spaces.stages import ATTENTIONS, KINDS, Row, assemble, rows_of, uniform
from effnet.nas.spaces.width import DIVISORS, LEAST_SHARE, Predictor, figures_of, solve_width
from effnet.planner.refusal import enough
from effnet.planner.space import SPACE, paired_resolution, usable_resolutions, usable_strides

# The choices of a stage: those of MnasNet (arXiv 1807.11626, section 4.1) and of EfficientNetV2 (arXiv 2104.00298,
# section 3.3). All blocks of a stage are alike.
_KERNELS, _EXPANSIONS, _WIDTHS = (3, 5), (3, 4, 6), (0.75, 1.0, 1.25)
_STEM_WIDTHS, _HEAD_WIDTHS = (0.75, 1.0, 1.25), (0.25, 0.5, 1.0)
# Fused blocks are dear where channels are many: V2 has them in its first three stages.
_FUSED_STAGES = 3
# Repeats lie within these factors of those that compound scaling gives at the budget; so do the baselines' depths.
_DEPTHS = (0.6, 1.0, 1.5)
_MOST_RESOLUTIONS, _MOST_APART = 4, 1.8
# The largest scaled network uses at least this share of a budget.
_LEAST_USED = 0.3
# The least number of stages of a baseline. Random genomes of which none has a network show that a budget has none.
_LEAST_STAGES, _PROBES = 3, 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MacroSpace:
    """Networks like `base` whose stages may differ; each is as wide as the budget allows.

    `short_side` is that of the images, in pixels. `predictors` give the figures that are not analytic, by the names of
    the budget. With a `width`, as in the published search, networks have that factor on the base's widths, whatever
    they cost; if the space is `limited`, those above the budget are none. `baselines` are the genomes of uniformly
    scaled networks, that of compound scaling first.
    """

    base: ArchSpec
    decisions: tuple[Decision, ...]
    budget: Budget
    short_side: int
    baselines: tuple[Genome, ...] = ()
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    precision: Precision = "fp32"
    width: float | None = None
    limited: bool = False
    _networks: dict[Genome, ArchSpec | None] = field(default_factory=dict, repr=False)

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return the network of these choices, scaled to 95 to 100 % of the budget; None if none of them fits it."""
        if genome not in self._networks:
            found = self._find(self.choices(genome))
            if found is not None:
                found = dataclasses.replace(found, lineage=self._lineage(found, genome))
            self._networks[genome] = found
        return self._networks[genome]

    def choices(self, genome: Genome) -> dict[str, Any]:
        """Return the choice of each decision by its name."""
        return {d.name: d.choices[index] for d, index in zip(self.decisions, genome, strict=True)}

    def share(self, spec: ArchSpec) -> float:
        """Return the share of the budget that a network uses, above 1 if it exceeds a limit."""
        return self.budget.share(self.figures(spec))

    def figures(self, spec: ArchSpec) -> dict[str, float]:
        """Return the figures of a network that the budget limits."""
        return figures_of(spec, budget=self.budget, predictors=self.predictors, precision=self.precision)

    def without(self, genomes: Collection[Genome]) -> "MacroSpace":
        """Return the space in which these genomes have no network."""
        return dataclasses.replace(self, _networks=self._networks | dict.fromkeys(genomes)) if genomes else self

    def at(self, budget: Budget) -> "MacroSpace":
        """Return the same choices around another budget, to which networks are scaled."""
        return dataclasses.replace(self, budget=budget, width=None, limited=False, _networks={})

    def _find(self, choices: Mapping[str, Any]) -> ArchSpec | None:
        def build(width: float, divisor: int) -> ArchSpec | None:
            return assemble(self.base, choices, short_side=self.short_side, width=width, divisor=divisor)

        if self.width is not None:
            found = build(self.width, DIVISORS[0])
            return None if self.limited and found is not None and self.share(found) > 1 else found
        return solve_width(build, share=self.share)

    def _lineage(self, spec: ArchSpec, genome: Genome) -> Lineage:
        """Return the origin of a network: a uniform scaling of the base, or a search, with a digest of its layers."""
        stride = None if spec.total_stride == self.base.total_stride else spec.total_stride
        before = dataclasses.replace(self.base.lineage, resolution=spec.resolution, stride=stride)
        if genome in self.baselines:
            width = spec.feature_channels / self.base.feature_channels
            depth = round(len(spec.blocks) / len(self.base.blocks), 2)
            return dataclasses.replace(before, scaled=f"width {width:.3g} depth {depth:g}", width=width, depth=depth)
        text = repr((spec.stem, spec.stages, spec.head_channels))
        return dataclasses.replace(before, note=f"searched {hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}")


def macro_space(
    base: ArchSpec | str,
    *,
    num_classes: int,
    channels: int,
    short_side: int,
    budget: Budget,
    predictors: Mapping[str, Predictor] | None = None,
    precision: Precision = "fp32",
    scaled: bool = True,
    limited: bool = False,
) -> MacroSpace:
    """Return the space of networks like `base` for images of this shorter side, in pixels, around a budget.

    Repeats and resolutions lie around those that compound scaling of `base` has at the budget. Analytic size and memory
    are those in `precision`; a limit of latency needs a predictor. With `scaled` off networks are not scaled to the
    budget, as in the published search: what they cost varies around it, or below it if `limited`. Raises BudgetError if
    the smallest network exceeds the budget, InputError if there is no limit or if even the widest network uses too
    little of it, and SpecError for a base that is not made of MBConv blocks.
    """
    if not budget.asked():
        raise InputError("a search needs a device budget; got none. Limit latency, MACs, parameters, size or memory.")
    base = dataclasses.replace(as_spec(base), num_classes=num_classes, in_channels=channels, padding="symmetric")
    space = MacroSpace(
        base=base,
        decisions=(),
        budget=budget,
        short_side=short_side,
        predictors=predictors or {},
        precision=precision,
    )
    phi, resolution = _center(space)
    _refuse_huge(space, phi, resolution)
    resolutions = _near(_resolutions(space, phi), resolution)
    decisions = tuple(_decisions(space, ALPHA**phi, resolutions))
    uniforms = _uniforms(base, ALPHA**phi, sorted(resolutions, key=lambda r: abs(math.log(r / resolution))), phi)
    space = dataclasses.replace(space, decisions=decisions, _networks={})
    genomes = dict.fromkeys(genome for choices in uniforms if (genome := _genome(space, choices)) is not None)
    baselines = tuple(genome for genome in genomes if space.network(genome) is not None)
    space = dataclasses.replace(space, baselines=baselines, _networks={})
    _check_budget(space)
    return space if scaled else dataclasses.replace(space, width=BETA**phi, limited=limited, _networks={})


def _resolutions(space: MacroSpace, phi: float) -> list[int]:
    """Return the resolutions that suit the images and leave a last feature map of at least 2 pixels."""
    whole, side = space.base.total_stride, space.short_side
    usable = usable_resolutions(side, phi=phi)
    return [r for r in usable if usable_strides(r, whole=whole, short_side=side)]


def _center(space: MacroSpace) -> tuple[float, int]:
    """Return the largest phi, and its resolution, at which compound scaling of the base meets the budget."""
    for phi in SPACE.phis:
        paired = min(space.short_side, paired_resolution(phi))
        resolution = min(_resolutions(space, phi), key=lambda r: abs(math.log(r / paired)))
        choices = uniform(space.base, resolution=resolution, depth=ALPHA**phi)
        spec = assemble(space.base, choices, short_side=space.short_side, width=BETA**phi)
        if spec is not None and space.share(spec) <= 1:
            break
    return phi, resolution


def _refuse_huge(space: MacroSpace, phi: float, resolution: int) -> None:
    """Raise InputError for a budget far above the largest network: wider ones would only take all memory."""
    if phi < max(SPACE.phis):
        return
    choices = uniform(space.base, resolution=resolution, depth=ALPHA**phi)
    largest = assemble(space.base, choices, short_side=space.short_side, width=BETA**phi)
    if largest is not None and (used := space.share(largest)) < _LEAST_USED:
        raise InputError(
            f"a budget must not be far above the largest network of a search, {largest.title}, which uses {used:.2%} "
            f"of {space.budget.in_words()}: lower the budget, or use effnet fit"
        )


def _near(resolutions: list[int], center: int) -> list[int]:
    """Return the resolutions nearest to the center, in order."""
    apart = {r: abs(math.log(r / center)) for r in resolutions}
    near = [r for r in sorted(resolutions, key=apart.__getitem__) if apart[r] <= math.log(_MOST_APART)]
    return sorted(near[:_MOST_RESOLUTIONS])


def _decisions(space: MacroSpace, depth: float, resolutions: list[int]) -> Iterator[Decision]:
    whole = space.base.total_stride
    yield Decision(name="resolution", choices=tuple(resolutions), ordered=True)
    strides = [usable_strides(r, whole=whole, short_side=space.short_side) for r in resolutions]
    strides = [[min(whole, stride) for stride in found] for found in strides]
    if any(len(set(found)) > 1 for found in strides):
        yield Decision(name="last map", choices=(4, 2), ordered=True)
    if any(min(found) < whole for found in strides):
        yield Decision(name="strides", choices=("late", "early"))
    yield Decision(name="stem width", choices=_STEM_WIDTHS, ordered=True)
    if space.base.head_channels:
        yield Decision(name="head width", choices=_HEAD_WIDTHS, ordered=True)
    for n, row in enumerate(rows_of(space.base), 1):
        yield from _stage_decisions(n, row, depth)


def _stage_decisions(n: int, row: Row, depth: float) -> Iterator[Decision]:
    least, most = (math.ceil(round(factor * depth * row.repeats, 6)) for factor in (_DEPTHS[0], _DEPTHS[-1]))
    if least == 1:
        least, most = 0, max(2, most)

    def decision(what: str, choices: tuple[Any, ...], *, ordered: bool = True) -> Decision:
        return Decision(name=f"stage {n} {what}", choices=choices, ordered=ordered, group=what)

    if n <= _FUSED_STAGES:
        yield decision("kind", KINDS, ordered=False)
    yield decision("kernel", tuple(sorted({row.kernel, *_KERNELS})))
    yield decision("expansion", tuple(sorted({row.expand, *_EXPANSIONS})))
    yield decision("attention", tuple(ATTENTIONS), ordered=False)
    yield decision("repeats", tuple(range(least, most + 1)))
    yield decision("width", _WIDTHS)


def _uniforms(base: ArchSpec, depth: float, resolutions: list[int], phi: float) -> Iterator[dict[str, Any]]:
    """Yield the choices of uniformly scaled networks, those nearest to compound scaling first; tiny ones also cut."""
    stages = len(base.stages)
    kept = range(stages, _LEAST_STAGES - 1, -1) if phi == SPACE.phis[-1] else (stages,)
    for num_stages, resolution, factor in itertools.product(kept, resolutions, sorted(_DEPTHS, key=lambda f: f != 1)):
        yield uniform(base, resolution=resolution, depth=factor * depth, num_stages=num_stages)


def _genome(space: MacroSpace, choices: Mapping[str, Any]) -> Genome | None:
    """Return the genome of some choices, the base's elsewhere; None if one of them is not in the space."""
    full = _defaults(space.base) | dict(choices)
    if any(full[d.name] not in d.choices for d in space.decisions):
        return None
    return tuple(d.choices.index(full[d.name]) for d in space.decisions)


def _defaults(base: ArchSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"last map": 4, "strides": "late", "stem width": 1.0, "head width": 1.0}
    for n, row in enumerate(rows_of(base), 1):
        one = {"kind": row.kind, "kernel": row.kernel, "expansion": row.expand, "attention": row.attention}
        found |= {f"stage {n} {what}": value for what, value in (one | {"width": 1.0}).items()}
    return found


def _check_budget(space: MacroSpace) -> None:
    """Raise an error if the space has no network: the budget is below the smallest, or no network comes near it."""
    rng = generator(0, 0, 0)
    if space.baselines:
        return
    if any(space.network(sample(space.decisions, rng=rng)) for _ in range(_PROBES)):
        return
    smallest = _smallest(space)
    if space.share(smallest) > 1:
        raise BudgetError(
            f"no network of this search has {space.budget.in_words()}: the smallest is {smallest.title}, which needs "
            f"{enough(space.budget, space.figures(smallest))}; a search needs several times that, for a choice"
        )
    raise InputError(
        f"no network of this search uses {LEAST_SHARE:.0%} to 100% of {space.budget.in_words()} on images of "
        f"{space.short_side} pixels; the smallest is {smallest.title} with {space.share(smallest):.3g} of it. "
        "Set a budget several times as large."
    )


def _smallest(space: MacroSpace) -> ArchSpec:
    """Return the narrowest network of the cheapest choices."""
    stages = range(1, len(space.base.stages) + 1)
    cheapest = {d.name: min(d.choices) for d in space.decisions if d.ordered}
    cheapest |= {f"stage {n} attention": "none" for n in stages} | {"strides": "early"}
    found = []
    for kept in stages:
        repeats = {name: max(cheapest[name], int(n <= kept)) for n in stages if (name := f"stage {n} repeats")}
        spec = assemble(space.base, cheapest | repeats, short_side=space.short_side, width=1e-6, divisor=DIVISORS[-1])
        found += [spec] if spec is not None else []
    return min(found, key=space.share)
