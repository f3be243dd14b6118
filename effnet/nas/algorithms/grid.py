"""The grid search of compound scaling, on exact cost: depth, width and resolution of twice the base's MACs."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.arch.cost import cost
from effnet.arch.scale import ALPHA, BETA, GAMMA, scale
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import InputError
from effnet.nas.history import Trained
from effnet.nas.spaces.genomes import Batch
from effnet.nas.spaces.space import Genome, Space
from effnet.nas.spaces.width import Predictor, solve_width

FACTOR, TOLERANCE = 2.0, 0.03
"""Every network of a grid has this many times the base's MACs, within this share (arXiv 1905.11946v5, section 3.3)."""
_LEAST_SHARE = (1 - TOLERANCE) / (1 + TOLERANCE)
# Default mode: repeats are rounded up, so that nearer depths would be the same networks.
_ALPHAS = (1.0, 1.1, 1.3, 1.5, 1.7, 2.0)
_GAMMAS = (1.0, 1.07, 1.15, 1.23, 1.32, 1.42)
_STEP, _MOST = 0.05, 2.0
# The fewest scored networks to which a quadratic of depth and resolution is fitted: it has six coefficients.
_LEAST_FITTED = 10
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint:
    """One network of the grid: phi = 1 with these coefficients; `ratio` is its cost over the base's.

    `published` marks the network of the published coefficients, at the phi that has this cost.
    """

    alpha: float
    beta: float
    gamma: float
    ratio: float
    spec: ArchSpec
    published: bool = False

    @property
    def product(self) -> float:
        """The nominal ratio of costs, alpha beta^2 gamma^2."""
        return self.alpha * self.beta**2 * self.gamma**2


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAnswer:
    """The coefficients that a scored grid suggests, and its best network against the published one.

    `gain` is the difference of their mean accuracies and `noise` the half width of its 95 % interval, None if neither
    was trained with two seeds or the published one not at all. `fitted` tells whether `alpha` and `gamma` are the best
    of a quadratic fitted to all networks; otherwise they are those of the best network.
    """

    alpha: float
    beta: float
    gamma: float
    fitted: bool
    best: GridPoint
    gain: float | None
    noise: float | None

    @property
    def beats_published(self) -> bool:
        """Whether the best network is more accurate than the published one, beyond the noise of the seeds."""
        return self.gain is not None and self.noise is not None and self.gain > self.noise


def macs_of(spec: ArchSpec) -> float:
    """Return the exact multiply-accumulates of a network."""
    return float(cost(spec).macs)


def scaled_point(
    base: ArchSpec | str, *, alpha: float, beta: float, gamma: float, measure: Predictor = macs_of
) -> GridPoint:
    """Return the base scaled by these coefficients at phi = 1, whatever its cost by `measure`.

    >>> point = scaled_point("b0", alpha=1.2, beta=1.1, gamma=1.15)
    >>> round(point.product, 2), round(point.ratio, 3)
    (1.92, 2.573)
    """
    base = as_spec(base)
    spec = scale(base, phi=1.0, alpha=alpha, beta=beta, gamma=gamma)
    return GridPoint(alpha=alpha, beta=beta, gamma=gamma, ratio=measure(spec) / measure(base), spec=spec)


def published_point(base: ArchSpec | str, *, measure: Predictor = macs_of) -> GridPoint:
    """Return the network of the published coefficients at the phi that has the grid's cost.

    Where rounding skips that cost, its width is solved: depth and resolution are those of the largest phi below.
    """
    base = as_spec(base)
    share, phis = _share(base, measure), dict[float, float]()

    def build(width: float, divisor: int) -> ArchSpec:
        phi = round(math.log(width) / math.log(BETA), 4)
        spec = scale(base, phi=phi)
        phis[phi] = share(spec)
        return spec

    solve_width(build, share=share, least=_LEAST_SHARE)
    phi = max(phi for phi, found in phis.items() if found <= 1)
    point = scaled_point(base, alpha=ALPHA**phi, beta=BETA**phi, gamma=GAMMA**phi, measure=measure)
    if not _is_equal(point):
        point = _solved(base, point.alpha, point.gamma, measure) or point
    return dataclasses.replace(point, published=True)


def equal_cost_grid(base: ArchSpec | str, *, measure: Predictor = macs_of) -> list[GridPoint]:
    """Return networks over depth and resolution with the width that gives each the grid's cost, without duplicates.

    Cost is what `measure` returns, such as a predicted latency. The published coefficients come first, at the phi that
    has this cost; no coefficient of the others is below 1.
    """
    base = as_spec(base)
    solved = (_solved(base, alpha, gamma, measure) for alpha, gamma in itertools.product(_ALPHAS, _GAMMAS))
    others = [point for point in solved if point is not None and point.beta >= 1]
    return _distinct([published_point(base, measure=measure), *others])


def literal_grid(base: ArchSpec | str, *, step: float = _STEP) -> list[GridPoint]:
    """Return every network whose coefficients are multiples of `step` from 1 on and whose exact MACs are the grid's.

    Of coefficients that give the same network only the first are listed. Raises InputError for a step that is not
    between 0.01 and 1.
    """
    if not 0.01 <= step <= 1:
        raise InputError(f"the step of a grid must lie between 0.01 and 1; got {step!r}")
    base = as_spec(base)
    values = [round(1 + index * step, 6) for index in range(int((_MOST - 1) / step + 1e-9) + 1)]
    found: list[GridPoint] = []
    for alpha, gamma in itertools.product(values, values):
        found += filter(_is_equal, _wider(base, alpha, gamma, values))
    return _distinct(found)


def _wider(base: ArchSpec, alpha: float, gamma: float, betas: Sequence[float]) -> Iterator[GridPoint]:
    """Yield networks of growing width as far as their cost is not above the grid's."""
    for beta in betas:
        point = scaled_point(base, alpha=alpha, beta=beta, gamma=gamma)
        if point.ratio > FACTOR * (1 + TOLERANCE):
            return
        yield point


def _share(base: ArchSpec, measure: Predictor) -> Predictor:
    """Return the function that gives a network's cost as a share of the most that the grid allows."""
    most = FACTOR * (1 + TOLERANCE) * measure(base)
    return lambda spec: measure(spec) / most


def _solved(base: ArchSpec, alpha: float, gamma: float, measure: Predictor) -> GridPoint | None:
    """Return the network of this depth and resolution whose width gives it the grid's cost; None if none does."""
    betas: dict[ArchSpec, float] = {}

    def build(beta: float, divisor: int) -> ArchSpec:
        spec = scale(base, phi=1.0, alpha=alpha, beta=beta, gamma=gamma)
        betas[spec] = beta
        return spec

    spec = solve_width(build, share=_share(base, measure), least=_LEAST_SHARE)
    if spec is None:
        return None
    beta = _short(base, spec, alpha, betas[spec], gamma)
    return scaled_point(base, alpha=alpha, beta=beta, gamma=gamma, measure=measure)


def _short(base: ArchSpec, spec: ArchSpec, alpha: float, beta: float, gamma: float) -> float:
    """Return beta with as few decimals as give the same network."""
    rounded = (round(beta, digits) for digits in (2, 3, 4))
    return next((b for b in rounded if scale(base, phi=1.0, alpha=alpha, beta=b, gamma=gamma) == spec), beta)


def _is_equal(point: GridPoint) -> bool:
    return abs(point.ratio / FACTOR - 1) <= TOLERANCE


def _distinct(points: Sequence[GridPoint]) -> list[GridPoint]:
    """Return the first point of every network."""
    found: dict[ArchSpec, GridPoint] = {}
    for point in points:
        found.setdefault(point.spec, point)
    return list(found.values())


def answer(
    base: ArchSpec | str,
    points: Sequence[GridPoint],
    *,
    scores: Mapping[int, Sequence[float]],
    measure: Predictor = macs_of,
) -> GridAnswer:
    """Return the coefficients that a trained grid suggests.

    `scores` has the accuracies of a network's seeds by the index of its point; networks without any may be left out.
    Raises InputError without any score.
    """
    means = {index: float(np.mean(values)) for index, values in scores.items() if len(values)}
    if not means:
        raise InputError("a grid must have the accuracy of at least one network; got none")
    # The largest mean of those with the most seeds: a single lucky training must not win.
    most = max(len(scores[index]) for index in means)
    best = max((i for i in means if len(scores[i]) == most), key=means.__getitem__)
    gain, noise = _against_published(points, scores, best)
    point, peak = points[best], _peak([points[i] for i in means], np.array(list(means.values())))
    if peak is not None and (smooth := _solved(as_spec(base), *peak, measure)) is not None:
        point = smooth
    return GridAnswer(
        alpha=point.alpha,
        beta=point.beta,
        gamma=point.gamma,
        fitted=point is not points[best],
        best=points[best],
        gain=gain,
        noise=noise,
    )


def _against_published(
    points: Sequence[GridPoint], scores: Mapping[int, Sequence[float]], best: int
) -> tuple[float | None, float | None]:
    """Return the gain of the best over the published network, and the half width of its interval."""
    from scipy.stats import t

    published = next((i for i, point in enumerate(points) if point.published and len(scores.get(i, ()))), None)
    if published is None:
        return None, None
    gain = float(np.mean(scores[best]) - np.mean(scores[published]))
    free = sum(len(values) - 1 for values in scores.values() if len(values))
    if not free:
        return gain, None
    pooled = sum(float(np.var(values)) * len(values) for values in scores.values() if len(values)) / free
    error = math.sqrt(pooled * (1 / len(scores[best]) + 1 / len(scores[published])))
    return gain, error * float(t.ppf((1 + _CONFIDENCE) / 2, free))


def _peak(points: Sequence[GridPoint], means: np.ndarray) -> tuple[float, float] | None:
    """Return alpha and gamma at the maximum of a quadratic of their logarithms, within the grid; None with few points.

    None, too, if the quadratic has no maximum inside.
    """
    if len(points) < _LEAST_FITTED:
        return None
    x, y = np.log([[point.alpha, point.gamma] for point in points]).T
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    _, a, b, c, d, e = np.linalg.lstsq(terms, means, rcond=None)[0]
    if not (c < 0 and 4 * c * e > d * d):
        return None
    peak = np.linalg.solve([[2 * c, d], [d, 2 * e]], [-a, -b])
    if not (x.min() <= peak[0] <= x.max() and y.min() <= peak[1] <= y.max()):
        return None
    return round(math.exp(peak[0]), 2), round(math.exp(peak[1]), 2)


def propose_grid(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
    """Return the uniformly scaled networks of the space that were not trained before, nearest to the center first."""
    batch = Batch(history, space)
    for genome in space.baselines:
        if len(batch.chosen) < number:
            batch.takes(genome)
    return batch.chosen
