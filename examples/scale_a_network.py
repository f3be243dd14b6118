"""Compound scaling: the cost of B0 at several phi, and the largest network within a MAC budget. No torch needed.

python examples/scale_a_network.py --max-macs 100e6
"""

import argparse

from effnet import cost, get_spec, scale, solve_phi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-macs", type=float, default=100e6, help="maximum multiply-accumulates of one image")
    args = parser.parse_args()

    base = get_spec("b0")
    print(f"{'phi':>6} {'pixels':>6} {'params':>10} {'MACs':>13} {'peak memory':>12}")
    for phi in (-6, -4, -2, 0, 1, 2, solve_phi(base, max_macs=args.max_macs)):
        spec = scale(base, phi=phi)
        total = cost(spec)
        memory = f"{total.peak_memory_bytes / 1e6:.1f} MB"
        print(f"{phi:6.2f} {spec.resolution:6} {total.params:10,} {total.macs:13,} {memory:>12}")


if __name__ == "__main__":
    main()
