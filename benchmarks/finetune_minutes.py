"""`python -m benchmarks.finetune_minutes --cache DIR`: what a fit from pretrained weights makes of its minutes.

CIFAR-10 at 96 px and fashion's articleType at 128 px, 100 labels a class, a real Lite0 backbone. Three sides have the
same minutes, draws of labels and test images: `effnet fit` as it is, the same with the whole network fine-tuned from
the start (kept.views=0), and a fine-tuning script of timm (benchmarks.timm_minutes). The figure is the smallest of the
gains over the second in the shortest of --minutes, in percentage points; the 95 % intervals are bootstraps over draws
and test images together. Each of --minutes has a number of draws in --n. A run is kept in --cache. It takes its minutes
of as many cores as the process may use, and half a minute more; with --draws two processes of one core each share them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.harness import ROOT, added, cached, finish, shared
from benchmarks.label_draws import SIDES, draw_labels, gain_of, most_macs
from effnet.data.datasets import read_dataset
from effnet.measurement.answers import right_answers

GOAL, OVER_TIMM, LABELS = 1.5, 3.0, 100
WEIGHTS = ("weights", "tf_efficientnet_lite0_headless.safetensors")
USUAL, WHOLE, TIMM = "usual", "whole", "timm"
Row = dict[str, Any]


def main() -> None:
    """Run what is missing, in turns, and compare."""
    args = _options()
    samples: dict[str, Any] = {}
    details: dict[str, Any] = {"labels_a_class": LABELS}
    with tempfile.TemporaryDirectory() as scratch:
        for minutes, number in zip(args.minutes, args.n, strict=True):
            for data in SIDES:
                found = _sides(data, minutes, args.draws or range(number), args.cache, Path(scratch))
                rights = {side: [np.array(run["right"], bool) for run in runs] for side, runs in found.items()}
                for side, runs in found.items():
                    samples[f"{data}_{side}_{minutes:g}m"] = [100 * float(right.mean()) for right in rights[side]]
                    samples[f"{data}_{side}_{minutes:g}m_seconds"] = [float(run["seconds"]) for run in runs]
                for side in (WHOLE, TIMM):
                    gain = gain_of(list(zip(rights[side], rights[USUAL], strict=True)))
                    details[f"{data}_over_{side}_{minutes:g}m"] = gain
    if args.draws:
        return
    if args.add:
        samples, details = added("finetune_minutes", samples, details, same=("labels_a_class",))
    lengths = sorted({float(name.rsplit("_", 1)[1].removesuffix("m")) for name in details if "_over_" in name})
    details["minutes"] = lengths
    details["draws"] = [len(samples[f"cifar_{USUAL}_{minutes:g}m"]) for minutes in lengths]
    gains = [details[f"{data}_over_{WHOLE}_{lengths[0]:g}m"]["gain"] for data in SIDES]
    finish(
        "finetune_minutes", args, figure=min(gains), goal=GOAL, unit="pp", better="higher", samples=samples,
        details=details, missed=_missed(details),
    )  # fmt: skip


def _sides(data: str, minutes: float, draws: Sequence[int], cache: Path, scratch: Path) -> dict[str, list[Row]]:
    """Return the runs of each side, which take turns."""
    found: dict[str, list[Row]] = {side: [] for side in (USUAL, WHOLE, TIMM)}
    for draw in draws:
        for side, runs in found.items():
            runs.append(run_of(data, side, draw, minutes, cache, scratch))
            accuracy = float(np.mean(runs[-1]["right"]))
            print(data, f"{minutes:g} minutes", side, draw, f"{accuracy:.2%}", runs[-1]["said"], flush=True)
    return found


def _missed(details: dict[str, Any]) -> list[str]:
    """Return the other goals that were missed, in words."""
    words = []
    for minutes in details["minutes"]:
        for data in SIDES:
            for side, least in ((WHOLE, 0.0), (TIMM, OVER_TIMM)):
                gain = details[f"{data}_over_{side}_{minutes:g}m"]["gain"]
                if gain < least:
                    words.append(f"{data}, {minutes:g} minutes: {gain:+.2f} over {side}, of at least {least:+g}")
    return words


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/finetune_minutes.json")
    parser.add_argument("--add", action="store_true", help="keep the lengths of the record that are not run now")
    parser.add_argument("--minutes", type=float, nargs="+", default=[4.0, 10.0], help="minutes of each run")
    parser.add_argument("--n", type=int, nargs="+", default=[5, 2], help="number of draws for each of --minutes")
    parser.add_argument("--draws", type=int, nargs="+", help="run these draws, and compare nothing")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="finished runs, and those under way")
    return parser.parse_args()


def run_of(data: str, side: str, draw: int, minutes: float, cache: Path, scratch: Path) -> Row:
    """Return the test answers of a side, from the cache if it is finished there."""
    name = f"{data}-{side}-{draw}-{minutes:g}m"

    def make() -> Row:
        folder = draw_labels(data, LABELS, draw, cache=cache, scratch=scratch)
        return (timm if side == TIMM else ours)(data, side, draw, minutes, folder, cache / name)

    return cached(cache / f"{name}.json", make)


def ours(data: str, side: str, draw: int, minutes: float, folder: Path, out: Path) -> Row:
    """Return the result of a fit; one that was interrupted is resumed."""
    result = effnet.fit(
        folder / "data.csv", weights=shared(*WEIGHTS), strategy="finetune", max_macs=most_macs(data), precision="fp32",
        minutes=minutes, seed=draw, settings={"kept.views": 0} if side == WHOLE else {}, out=out,
        resume=out.is_dir(), report_images=False,
    )  # fmt: skip
    right = right_answers(result.model, read_dataset(folder / "data.csv", seed=draw).test)
    training = result.report.training
    said = f"{training.later.epochs if training.later else 0} and {len(training.epochs)} epochs"
    shutil.rmtree(out)
    return {"right": right.astype(int).tolist(), "seconds": result.report.seconds, "said": said}


def timm(data: str, _side: str, draw: int, minutes: float, folder: Path, _out: Path) -> Row:
    """Return the result of timm's script."""
    words = [folder / "data.csv", shared(*WEIGHTS), SIDES[data], minutes, draw]
    command = [sys.executable, "-m", "benchmarks.timm_minutes", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"right": found["right"], "seconds": found["seconds"], "said": f"{found['epochs']} epochs"}


if __name__ == "__main__":
    main()
