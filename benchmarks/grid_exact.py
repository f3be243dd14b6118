"""`python -m benchmarks.grid_exact`: do all networks of the grid of compound scaling have equal cost?

The grid that finds B0's alpha, beta and gamma is written in both modes, as `effnet models scale b0 --grid` lists them.
The figure is the largest deviation of a network's exact multiply-accumulates from twice B0's, counted from its layers,
in percent. For comparison the details have the networks of the nominal grid: multiples of 0.05 whose
alpha beta^2 gamma^2 lies within 0.1 of 2.
"""

import itertools

from benchmarks.harness import finish, options
from effnet.arch.catalog import get_spec
from effnet.arch.cost import layer_costs
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.nas.algorithms.grid import FACTOR, TOLERANCE, equal_cost_grid, literal_grid, scaled_point


def main() -> None:
    """Count the MACs of every network of the grids."""
    args = options(__doc__.splitlines()[0], n=1)
    base = get_spec("b0")
    found = {
        "equal cost": [ratio(base, point.spec) for point in equal_cost_grid(base)],
        "literal": [ratio(base, point.spec) for point in literal_grid(base)],
    }
    nominal = nominal_ratios(base)
    print(f"nominal grid: {len(nominal)} networks of {min(nominal):.2f} to {max(nominal):.2f} times B0's MACs")
    for name, ratios in found.items():
        print(f"{name}: {len(ratios)} networks of {min(ratios):.3f} to {max(ratios):.3f} times B0's MACs")
    published = scaled_point(base, alpha=1.2, beta=1.1, gamma=1.15)
    worst = max(abs(value / FACTOR - 1) for ratios in found.values() for value in ratios)
    finish(
        "grid_exact", args, figure=100 * worst, goal=100 * TOLERANCE, unit="% from equal cost", better="lower",
        samples={name: [round(value, 4) for value in ratios] for name, ratios in found.items()},
        details={"nominal": [round(value, 4) for value in nominal], "published at phi 1": round(published.ratio, 4)},
    )  # fmt: skip


def ratio(base: ArchSpec, spec: ArchSpec) -> float:
    """Return the MACs of a network over the base's."""
    return sum(layer.macs for layer in layer_costs(spec)) / sum(layer.macs for layer in layer_costs(base))


def nominal_ratios(base: ArchSpec) -> list[float]:
    """Return the exact ratios of the coefficients that are nominally of twice the cost."""
    values = [1 + 0.05 * index for index in range(22)]
    return [
        ratio(base, scale(base, phi=1.0, alpha=a, beta=b, gamma=g))
        for a, b, g in itertools.product(values, values, values)
        if abs(a * b**2 * g**2 - FACTOR) <= 0.1 + 1e-9
    ]


if __name__ == "__main__":
    main()
