"""`python -m benchmarks.prune_speed`: latency after pruning half of the multiply-accumulates.

A B0 (SiLU, squeeze-and-excitation) that deploy_speed trains on imagenette_mini (600 images of ten classes) is pruned
to 50 % of its multiply-accumulates and fine-tuned with the original as teacher. The figure is the pruned file's latency
over the original's in ONNX Runtime with one thread, the median over turns in which both are timed. It counts as 1 if
the accuracy drop on the 300 test images is more than 1 percentage point. `--network lite0` prunes one with an
ImageNet-pretrained backbone.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.deploy_speed import cases
from benchmarks.harness import finish, shared
from effnet.bundle.names import ONNX
from effnet.cli.console import TerminalListener
from effnet.jobs.prune.api import prune
from effnet.measurement.speed.stopwatch import Stopwatch

GOAL, MOST_POINTS = 0.65, 1.0
_STEPS, _EPOCHS = 2, 24


def main() -> None:
    """Train if needed, prune, and time both files in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/prune_speed.json")
    parser.add_argument("--n", type=int, default=9, help="number of turns")
    parser.add_argument("--network", choices=("b0", "lite0"), default="b0", help="network to prune")
    parser.add_argument("--cache", type=Path, help="folder that keeps the trained networks")
    args = parser.parse_args()
    data = shared("data", "imagenette_mini")
    with tempfile.TemporaryDirectory() as scratch, TerminalListener() as listener:
        original = (args.cache or Path(scratch)) / args.network
        if not (original / "report.json").is_file():
            shutil.rmtree(original, ignore_errors=True)
            next(case for case in cases(data) if case.name == args.network).train(original)
        found = prune(
            original, data, out=Path(scratch) / "pruned", macs=0.5, steps=_STEPS, epochs=_EPOCHS, listener=listener,
        )  # fmt: skip
        timed = Stopwatch().compare(original / ONNX, found.folder / ONNX, rounds=args.n, seconds=0.5)
    report = found.report
    lost = report["points_lost"]
    sides = report["before"], report["after"]
    print(f"accuracy {sides[0]['test_accuracy']:.2%} becomes {sides[1]['test_accuracy']:.2%}, drop {lost:+.2f} pp")
    print(f"multiply-accumulates {sides[0]['macs'] / 1e6:.1f}M become {sides[1]['macs'] / 1e6:.1f}M")
    finish(
        "prune_speed", args, figure=timed.ratio if lost <= MOST_POINTS else 1.0, goal=GOAL, unit="of the original",
        better="lower", samples={"original_ms": timed.first.rounds_ms, "pruned_ms": timed.second.rounds_ms},
        details={
            "network": args.network, "latency_ratio": timed.ratio, "points_lost": lost, "most_points": MOST_POINTS,
            "accuracy": [side["test_accuracy"] for side in sides], "macs": [side["macs"] for side in sides],
            "params": [side["params"] for side in sides], "steps": _STEPS, "epochs": _EPOCHS,
            "training_seconds": report["training_seconds"],
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
