"""`python -m benchmarks.finetune_minutes --cache DIR`: what a fit from pretrained weights makes of its minutes.

CIFAR-10 at 96 px and fashion's articleType at 128 px, 100 labels a class, a real Lite0 backbone. Three sides have the
same minutes, draws of labels and test images: `effnet fit` as it is, the same with the whole network fine-tuned from
the start (kept.views=0), and a fine-tuning script of timm (benchmarks.timm_minutes). The figure is the smaller of the
gains over the second, in percentage points; the 95 % intervals are bootstraps over draws and test images together.
A run is kept in --cache. It takes --minutes of as many cores as the process may use, and half a minute more; with
--draws two processes of one core each share the draws.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.harness import ROOT, cached, finish, options, shared
from benchmarks.label_draws import SIDES, draw_labels, gain_of, most_macs
from effnet.data.datasets import read_dataset
from effnet.measurement.answers import right_answers

GOAL, OVER_TIMM, LABELS = 1.5, 3.0, 100
WEIGHTS = ("weights", "tf_efficientnet_lite0_headless.safetensors")
USUAL, WHOLE, TIMM = "usual", "whole", "timm"


def main() -> None:
    """Run what is missing, in turns, and compare."""
    args = options(__doc__ or "", n=5, cache="finished runs, and those under way", minutes=4.0, draws=True)
    samples: dict[str, list[float]] = {}
    details: dict[str, Any] = {"minutes": args.minutes, "labels_a_class": LABELS}
    with tempfile.TemporaryDirectory() as scratch:
        for data in SIDES:
            found: dict[str, list[np.ndarray]] = {side: [] for side in (USUAL, WHOLE, TIMM)}
            for draw in args.draws or range(args.n):
                for side, rows in found.items():
                    run = run_of(data, side, draw, args, Path(scratch))
                    rows.append(np.array(run["right"], bool))
                    samples.setdefault(f"{data}_{side}", []).append(100 * float(rows[-1].mean()))
                    samples.setdefault(f"{data}_{side}_seconds", []).append(float(run["seconds"]))
                    print(data, side, draw, f"{rows[-1].mean():.2%}", run["said"], flush=True)
            for side in (WHOLE, TIMM):
                details[f"{data}_over_{side}"] = gain_of(list(zip(found[side], found[USUAL], strict=True)))
    if args.draws:
        return
    gains = {data: details[f"{data}_over_{WHOLE}"]["gain"] for data in SIDES}
    over = {data: details[f"{data}_over_{TIMM}"]["gain"] for data in SIDES}
    finish(
        "finetune_minutes", args, figure=min(gains.values()), goal=GOAL, unit="pp", better="higher", samples=samples,
        details=details,
        missed=[f"{data}: {gain:+.2f} over timm, of at least {OVER_TIMM:+g}" for data, gain in over.items()
                if gain < OVER_TIMM],
    )  # fmt: skip


def run_of(data: str, side: str, draw: int, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the test answers of a side, from the cache if it is finished there."""
    name = f"{data}-{side}-{draw}-{args.minutes:g}m"

    def make() -> dict[str, Any]:
        folder = draw_labels(data, LABELS, draw, cache=args.cache, scratch=scratch)
        return (timm if side == TIMM else ours)(data, side, draw, args, folder, args.cache / name)

    return cached(args.cache / f"{name}.json", make)


def ours(data: str, side: str, draw: int, args: argparse.Namespace, folder: Path, out: Path) -> dict[str, Any]:
    """Return the result of a fit; one that was interrupted is resumed."""
    result = effnet.fit(
        folder / "data.csv", weights=shared(*WEIGHTS), strategy="finetune", max_macs=most_macs(data), precision="fp32",
        minutes=args.minutes, seed=draw, settings={"kept.views": 0} if side == WHOLE else {}, out=out,
        resume=out.is_dir(), report_images=False,
    )  # fmt: skip
    right = right_answers(result.model, read_dataset(folder / "data.csv", seed=draw).test)
    training = result.report.training
    said = f"{training.later.epochs if training.later else 0} and {len(training.epochs)} epochs"
    shutil.rmtree(out)
    return {"right": right.astype(int).tolist(), "seconds": result.report.seconds, "said": said}


def timm(data: str, _side: str, draw: int, args: argparse.Namespace, folder: Path, _out: Path) -> dict[str, Any]:
    """Return the result of timm's script."""
    words = [folder / "data.csv", shared(*WEIGHTS), SIDES[data], args.minutes, draw]
    command = [sys.executable, "-m", "benchmarks.timm_minutes", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"right": found["right"], "seconds": found["seconds"], "said": f"{found['epochs']} epochs"}


if __name__ == "__main__":
    main()
