"""Time of `effnet --help` against an empty Python program: `python -m benchmarks.cold_help`."""

import statistics
import sys

from benchmarks.harness import finish, options, seconds_of


def main() -> None:
    """Run both sides alternately, each in fresh processes."""
    args = options(__doc__, n=15)
    samples: dict[str, list[float]] = {"effnet --help": [], "python -c pass": []}
    for _ in range(args.n):
        samples["effnet --help"].append(seconds_of([sys.executable, "-m", "effnet", "--help"]))
        samples["python -c pass"].append(seconds_of([sys.executable, "-c", "pass"]))
    figure = statistics.median(samples["effnet --help"])
    finish("cold_help", args, figure=figure, goal=0.3, unit="s", better="lower", samples=samples)


if __name__ == "__main__":
    main()
