"""The main job on data sets: does it meet the budget, how accurate is it, how long does it take?

`python -m benchmarks.main_job DATA --name NAME` measures one data set, digits by default; any folder or
manifest works. The figure is the lowest accuracy, over the seeds, of the exported file on its test split, or 0 if a
budget was missed.
"""

import argparse
import tempfile
from pathlib import Path

import effnet
from benchmarks.harness import finish
from effnet.errors import BudgetError
from effnet.report.model import Report, load_report
from effnet.report.plots.fit import save_candidates


def main() -> None:
    """Fit the data set with each seed and report the lowest accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--max-latency-ms", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--goal", type=float, default=0.985, help="least accuracy")
    parser.add_argument("--name", default="digits", help="name of the record: main_job_NAME")
    parser.add_argument("--image", type=Path, help="write the first fit's candidates as .svg or .png")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--n", type=int, default=3)
    args = parser.parse_args()
    samples: dict[str, list[float]] = {"test_accuracy": [], "honoured": [], "seconds": [], "latency_ms": []}
    networks = []
    for seed in range(args.n):
        with tempfile.TemporaryDirectory() as scratch:
            report = _fit(args, seed, Path(scratch))
            if args.image and seed == 0:
                save_candidates(report, args.image)
        samples["test_accuracy"].append(report.test.accuracy)
        samples["honoured"].append(float(report.honoured or False))
        samples["seconds"].append(report.seconds)
        samples["latency_ms"].append(report.measured.latency_ms)
        networks.append(report.network.name)
        print(
            f"seed {seed}: {networks[-1]}, accuracy {report.test.accuracy:.2%}, honoured {report.honoured}",
            flush=True,
        )
    details = {
        "data": Path(args.data).name,
        "max_latency_ms": args.max_latency_ms,
        "minutes": args.minutes,
        "networks": networks,
    }
    figure = min(samples["test_accuracy"]) if all(samples["honoured"]) else 0.0
    finish(
        f"main_job_{args.name}",
        args,
        figure=figure,
        goal=args.goal,
        unit="",
        better="higher",
        samples=samples,
        details=details,
    )


def _fit(args: argparse.Namespace, seed: int, out: Path) -> Report:
    try:
        return effnet.fit(
            args.data, max_latency_ms=args.max_latency_ms, minutes=args.minutes, seed=seed, out=out / "bundle"
        ).report
    except BudgetError:
        return load_report(out / "bundle")


if __name__ == "__main__":
    main()
