"""`python -m benchmarks.prune_speed`: the latency that is left with half of the multiply-accumulates pruned.

A Lite0 is fine-tuned on imagenette_mini (600 training pictures of ten classes) from a real backbone, pruned to 50 % of
its multiply-accumulates in steps, and recovered with the original as teacher. The figure is the pruned file's latency
over the original's in ONNX Runtime with one thread, the median over turns in which both are timed. It counts as 1 where
more than 1 point of accuracy is lost on the 300 test pictures.
"""

import os
import tempfile
from pathlib import Path

import effnet
from benchmarks.harness import finish, options, shared
from effnet.cli.console import TerminalListener
from effnet.compressing.latency import compare_latency
from effnet.compressing.prune_job import Options, prune_bundle
from effnet.data.fetching import cache_folder
from effnet.runtime.config import ONNX

GOAL, MOST_POINTS = 0.65, 1.0
_STEPS, _EPOCHS, _FIT_EPOCHS = 3, 24, 4
# Lite0 at 128 pixels, so that the whole benchmark takes minutes on two cores.
_MAX_MACS = 200e6


def main() -> None:
    """Fits, prunes, and times both files in turn."""
    args = options(__doc__ or "", n=9)
    with tempfile.TemporaryDirectory() as scratch, TerminalListener() as listener:
        original = fitted(listener)
        found = prune_bundle(
            original, shared("data", "imagenette_mini"), out=Path(scratch) / "pruned",
            options=Options(share=0.5, steps=_STEPS, epochs=_EPOCHS), listener=listener,
        )  # fmt: skip
        timed = compare_latency(original / ONNX, found.folder / ONNX, turns=args.n, seconds=0.5)
    report = found.report
    lost = report["points_lost"]
    sides = report["before"], report["after"]
    print(f"accuracy {sides[0]['test_accuracy']:.2%} becomes {sides[1]['test_accuracy']:.2%}, {lost:+.2f} points lost")
    print(f"multiply-accumulates {sides[0]['macs'] / 1e6:.1f}M become {sides[1]['macs'] / 1e6:.1f}M")
    finish(
        "prune_speed", args, figure=timed.ratio if lost <= MOST_POINTS else 1.0, goal=GOAL, unit="of the original",
        better="lower", samples={"original_ms": timed.first_ms, "pruned_ms": timed.second_ms},
        details={
            "latency_ratio": timed.ratio, "points_lost": lost, "most_points": MOST_POINTS,
            "accuracy": [side["test_accuracy"] for side in sides], "macs": [side["macs"] for side in sides],
            "params": [side["params"] for side in sides], "steps": _STEPS, "epochs": _EPOCHS,
            "training_seconds": report["training_seconds"],
        },
    )  # fmt: skip


def fitted(listener: TerminalListener) -> Path:
    """Returns the bundle that is pruned: from the cache, or fitted now and kept there for the next run."""
    folder = cache_folder() / "benchmarks" / f"prune_speed-{effnet.__version__}-{_FIT_EPOCHS}-{_MAX_MACS:.0f}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            weights = shared("weights", "tf_efficientnet_lite0_headless.safetensors")
            out = Path(scratch) / "bundle"
            effnet.fit(
                shared("data", "imagenette_mini"), weights=weights, strategy="finetune", epochs=_FIT_EPOCHS,
                max_macs=_MAX_MACS, out=out, listener=listener,
            )  # fmt: skip
            os.replace(out, folder)
    return folder


if __name__ == "__main__":
    main()
