"""Scale a network to a budget: the width factor at which it uses nearly all of it, and never more."""

import math
from collections.abc import Callable, Mapping

from effnet.arch.cost import Precision, cost
from effnet.arch.spec import MAX_CHANNELS, ArchSpec
from effnet.errors import SpecError
from effnet.measurement.budget import Budget

LEAST_SHARE = 0.95
"""The least share of the budget that a network of a search uses, so that cost decides between none of them."""
DIVISORS = (8, 4, 2)
"""Widths are multiples of 8, which processors compute fastest; in small networks that step may be too coarse."""
# Two width factors nearer than this ratio give the same network, or neighbours with nothing between them.
_NEAREST = 1.002
_LEAST_FACTOR = 1 / 64
_TINY = 1e-9  # a predictor may return 0

Predictor = Callable[[ArchSpec], float]
"""Returns one figure of a network without a measurement, such as its latency in ms."""
Build = Callable[[float, int], ArchSpec | None]
"""Returns the network of a width factor, its widths multiples of a divisor, or None for every factor.

A larger factor never narrows it.
"""


def figures_of(
    spec: ArchSpec, *, budget: Budget, predictors: Mapping[str, Predictor] | None = None, precision: Precision = "fp32"
) -> dict[str, float]:
    """Return the figures of `spec` that the budget limits: predicted if there is a predictor, else analytic.

    Analytic size is that of the weights, analytic memory that of weights and activations, both in 10^6 bytes.
    Raises SpecError for a limited latency without a predictor.
    """
    found = cost(spec)
    weights_mb = found.weight_bytes(precision) / 1e6
    analytic = {
        "macs": float(found.macs),
        "params": float(found.params),
        "size_mb": weights_mb,
        "memory_mb": weights_mb + found.peak_memory_bytes / 1e6,
    }
    predictors = predictors or {}
    figures = {}
    for name in budget.asked():
        if name in predictors:
            figures[name] = predictors[name](spec)
        elif name in analytic:
            figures[name] = analytic[name]
        else:
            raise SpecError(f"a search with a limit of {name} needs a predictor of it; got none")
    return figures


def solve_width(build: Build, *, share: Callable[[ArchSpec], float], least: float = LEAST_SHARE) -> ArchSpec | None:
    """Return a network of `build` whose `share` of the budget lies between `least` and 1; None if it has none.

    `share` must not fall as a network becomes wider. Widths are multiples of 8 if such a network exists, else of 4 or
    2.
    """
    for divisor in DIVISORS:
        found = _solve(build, divisor, share, least)
        if found is not None:
            return found
    return None


def _solve(build: Build, divisor: int, share: Callable[[ArchSpec], float], least: float) -> ArchSpec | None:
    """Bracket the budget and close in: cost grows about as a power of the width, so the steps follow such a power."""
    low, high = 0.0, math.inf  # the widest factor known to be below, the narrowest known to be above
    low_share = high_share = 0.0
    factor, power = 1.0, 2.0
    while True:
        spec = build(factor, divisor)
        if spec is None:
            return None
        found = max(share(spec), _TINY)
        if least <= found <= 1:
            return spec
        if found < least:
            low, low_share = factor, found
        else:
            high, high_share = factor, found
        if low and high < math.inf:
            if high / low < _NEAREST:
                return None
            power = max(0.2, math.log(high_share / low_share) / math.log(high / low))
            # Between a quarter and three quarters of the bracket, so that it shrinks whatever the steps of rounding.
            position = math.log((least + 1) / 2 / low_share) / power / math.log(high / low)
            factor = low * (high / low) ** min(0.75, max(0.25, position))
        elif factor < _LEAST_FACTOR or factor > 0.99 * (most := _most_factor(spec, factor)):
            return None
        else:
            # Past the target, so that the budget is bracketed soon.
            step = ((least + 1) / 2 / found) ** (1.2 / power)
            factor = min(most, factor * min(step, 8.0))


def _most_factor(spec: ArchSpec, factor: float) -> float:
    """Return the factor at which the widest layer of `spec`, which has `factor`, is nearly as wide as a spec allows."""
    widest = max(spec.head_channels, *(block.mid_channels for block in spec.blocks))
    return factor * 0.9 * MAX_CHANNELS / widest
