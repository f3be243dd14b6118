"""`python -m benchmarks.few_labels`: what to train with few labels a class, in test accuracy over a plain head.

CIFAR-10 at 96 px and fashion's articleType at 128 px (types of at least 60 images), from a real Lite0 backbone, with
10, 20 and 50 labelled images a class, of which 15 % are held out. The same draws of labels and test images for a head
on the last feature map, a head on all later stages (`all`), and fine-tuning within --minutes (`finetune`). The figure
is the least mean gain of fine-tuning, in percentage points, of all settings whose images a class `fit` fine-tunes with.
The 95 % intervals are bootstraps over draws and test images together.

A run is one fit: its test answers are kept in --cache, and found again there.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.harness import cached, finish, shared
from benchmarks.label_draws import draw_labels, gain_of, most_macs
from effnet.data.datasets import read_dataset
from effnet.jobs.fit.transfer.finetune import ENOUGH_A_CLASS
from effnet.measurement.answers import right_answers

GOAL = 0.0
SETTINGS = ("cifar:10", "cifar:20", "cifar:50", "fashion:10", "fashion:20", "fashion:50")
SIDES: dict[str, dict[str, Any]] = {
    "head": {"strategy": "head", "head_features": "last"},
    "all": {"strategy": "head", "head_features": "all"},
    "finetune": {"strategy": "finetune", "head_features": "last"},
}


def main() -> None:
    """Fit every setting and draw on each side, as far as --cache lacks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/few_labels.json")
    parser.add_argument("--n", type=int, default=3, help="number of label draws")
    parser.add_argument("--minutes", type=float, default=3.0, help="of fine-tuning")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="finished runs, and those under way")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="DATA:LABELS, with commas between")
    args = parser.parse_args()
    samples: dict[str, list[float]] = {}
    details: dict[str, Any] = {"minutes": args.minutes, "enough_a_class": ENOUGH_A_CLASS}
    gains: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for setting in args.settings.split(","):
            runs = {side: [] for side in SIDES}  # type: dict[str, list[dict[str, Any]]]
            for draw in range(args.n):
                for side, found in runs.items():
                    done = args.cache / f"{setting.replace(':', '-')}-{args.minutes:g}m-{draw}-{side}.json"
                    make = partial(_run, setting, draw, side, args, Path(scratch), done.with_suffix(""))
                    found.append(cached(done, make))
                    right = 100 * float(np.mean(found[-1]["right"]))
                    samples.setdefault(f"{setting}_{side}", []).append(right)
                    print(setting, draw, side, f"{right:.2f} %", found[-1]["head"], flush=True)
            before = [np.array(run["right"], bool) for run in runs["head"]]
            for side in ("all", "finetune"):
                pairs = [(one, np.array(run["right"], bool)) for one, run in zip(before, runs[side], strict=True)]
                details[f"{setting} {side}"] = found = gain_of(pairs)
                print(f"{setting} {side}: {found['gain']:+.2f} pp, 95 % {found['interval']}", flush=True)
            if runs["head"][0]["images_a_class"] >= ENOUGH_A_CLASS:
                gains.append(details[f"{setting} finetune"]["gain"])
    finish(
        "few_labels", args, figure=min(gains, default=float("nan")), goal=GOAL, unit="pp", better="higher",
        samples=samples, details=details,
    )  # fmt: skip


def _run(setting: str, draw: int, side: str, args: argparse.Namespace, scratch: Path, out: Path) -> dict[str, Any]:
    """Return the test answers of a fit; one that was interrupted is resumed."""
    data, labels = setting.split(":")
    folder = draw_labels(data, int(labels), draw, cache=args.cache, scratch=scratch)
    report = effnet.fit(
        folder / "data.csv",
        weights=shared("weights", "tf_efficientnet_lite0_headless.safetensors"),
        max_macs=most_macs(data),
        precision="fp32",
        seed=draw,
        out=out,
        resume=out.is_dir(),
        **({"minutes": args.minutes} if side == "finetune" else {}),
        **SIDES[side],
    ).report
    dataset = read_dataset(folder / "data.csv", seed=draw)
    head = report.training.head
    found = {
        "right": right_answers(effnet.load(out), dataset.test).astype(int).tolist(),
        "images_a_class": dataset.images_a_class,
        "head": f"head {100 * head.val_figure:.1f} % on validation, method {report.training.method}" if head else "",
        "seconds": report.seconds,
    }
    shutil.rmtree(out)
    return found


if __name__ == "__main__":
    main()
