"""`python -m benchmarks.unlabelled`: gain in test accuracy of `effnet fit --unlabelled` over the same fit without it.

CIFAR-10 at 96 px and fashion's articleType at 128 px (types of at least 60 images), from a real Lite0 backbone, with
20, 100 and 5 labelled images a class, of which fit holds out its validation images; all other training images are the
unlabelled ones, of the strangers' setting photos7's alone. Both sides have the same `--minutes`, the same draws of
labels and the same test images. The figure is the mean gain on CIFAR-10 with 20 labels a class, in percentage points.
With --strategy finetune both sides fine-tune the whole network: what the unlabelled images add to that. `students` are
the accuracies of the first students, kept or not, which decide nothing.
The 95 % intervals are bootstraps over draws and test images together.

A run is one fit: its test answers are kept in --cache, and found again there. It takes --minutes of as many cores as
the process may use, and a minute more; all settings and 5 draws are 80 runs, at 15 minutes 21 hours. Smaller ones:
--settings cifar:20 --minutes 6 --n 3 is 6 runs and 42 minutes.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.harness import added, cached, finish, shared
from benchmarks.label_draws import draw_labels, gain_of, most_macs
from effnet.data.datasets import Dataset, read_dataset
from effnet.measurement.answers import predict_split, right_answers
from effnet.measurement.classification.calibration import negative_log_likelihood

GOAL, HUNDRED, MOST_LOST = 2.0, 1.0, 0.5
SETTINGS = ("cifar:20", "cifar:100", "fashion:20", "fashion:100", "cifar:5", "fashion:5", "cifar:20:strangers")


def main() -> None:
    """Fit every setting and draw with and without unlabelled images, as far as --cache lacks them."""
    args = _options()
    samples: dict[str, Any] = {}
    details: dict[str, Any] = {"minutes": args.minutes, "epochs": args.epochs, "strategy": args.strategy}
    details["method"] = args.method
    with tempfile.TemporaryDirectory() as scratch:
        for setting in args.settings.split(","):
            pairs, students, kept = [], [], 0
            for draw in args.draws or range(args.n):
                sides = [_kept(setting, draw, learns, args, Path(scratch)) for learns in (False, True)]
                pairs.append(tuple(np.array(side["right"], bool) for side in sides))
                students.append(round(100 * float(np.mean(sides[1].get("student_right", sides[0]["right"]))), 2))
                kept += "it is kept" in sides[1]["said"]
                for name, side in zip(("without", "with"), sides, strict=True):
                    samples.setdefault(f"{setting}_{name}", []).append(100 * float(np.mean(side["right"])))
                accuracies = " ".join(f"{right.mean():.2%}" for right in pairs[-1])
                print(setting, draw, accuracies, f"student {students[-1]}%", sides[1]["said"], flush=True)
            if args.draws:
                continue
            details[setting] = gain_of(pairs) | {"students": students, "kept": kept}
            print(f"{setting}: {details[setting]['gain']:+.2f} pp, 95 % {details[setting]['interval']}", flush=True)
    if args.draws:
        return
    if args.add:
        samples, details = added("unlabelled", samples, details, same=("minutes", "epochs", "strategy"))
    figure = details.get("cifar:20", details[args.settings.split(",")[0]])["gain"]
    finish(
        "unlabelled", args, figure=figure, goal=GOAL, unit="pp", better="higher", samples=samples, details=details,
        missed=_missed(details),
    )  # fmt: skip


def _missed(details: dict[str, Any]) -> list[str]:
    """Return the other goals that were missed, in words."""
    found = {setting: each for setting, each in details.items() if ":" in setting}
    words = []
    for setting, least in (("cifar:20", None), ("cifar:100", HUNDRED)):
        if setting not in found:
            continue
        gain, low = found[setting]["gain"], found[setting]["interval"][0]
        if least is not None and gain < least:
            words.append(f"{setting}: a gain of {gain:+.2f}, of at least {least:+g}")
        if low <= 0:
            words.append(f"{setting}: a lower bound of {low:+.2f}, above 0")
    words += [
        f"{setting}: a change of {each['gain']:+.2f}, of at least {-MOST_LOST:+g}"
        for setting, each in found.items()
        if each["gain"] < -MOST_LOST
    ]
    return words


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/unlabelled.json")
    parser.add_argument("--add", action="store_true", help="keep the settings of the record that are not run now")
    parser.add_argument("--n", type=int, default=5, help="number of label draws")
    parser.add_argument("--draws", type=int, nargs="+", help="run these draws, and compare nothing")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="finished runs, and those under way")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each fit")
    parser.add_argument("--epochs", type=int, help="instead of --minutes: those of teacher and student each")
    parser.add_argument("--strategy", default="auto", help="fit.strategy of both sides")
    parser.add_argument("--method", default="auto", help="fit.unlabelled_method")
    parser.add_argument("--most", type=int, help="unlabelled images at most; by default all")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="DATA:LABELS[:strangers], with commas between")
    return parser.parse_args()


def _kept(setting: str, draw: int, learns: bool, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the test answers of a fit, from the cache if it is finished there."""
    length = f"{args.minutes:g}m" if args.epochs is None else f"{args.epochs}e"
    kind = f"{setting.replace(':', '-')}-{length}-{args.strategy}-{args.most or 'all'}"
    name = f"{kind}-{draw}-{f'with-{args.method}' if learns else 'without'}"
    make = partial(_run, setting, draw, learns, args, scratch, args.cache / name)
    return cached(args.cache / f"{name}.json", make)


def _run(setting: str, draw: int, learns: bool, args: argparse.Namespace, scratch: Path, out: Path) -> dict[str, Any]:
    """Return the test answers of a fit; one that was interrupted is resumed."""
    data, labels, *rest = setting.split(":")
    folder = draw_labels(data, int(labels), draw, cache=args.cache, scratch=scratch)
    others = shared("data", "photos7") if rest else folder / "unlabelled"
    if args.most:
        others = _some(others, args.most, draw, args.cache / f"others-{data}-{labels}-{draw}-{args.most}")
    report = effnet.fit(
        folder / "data.csv",
        weights=shared("weights", "tf_efficientnet_lite0_headless.safetensors"),
        max_macs=most_macs(data),
        strategy=args.strategy,
        seed=draw,
        **({"unlabelled": others, "unlabelled_method": args.method} if learns else {}),
        out=out,
        resume=out.is_dir(),
        **({"minutes": args.minutes} if args.epochs is None else {"epochs": args.epochs}),
    ).report
    dataset = read_dataset(folder / "data.csv", seed=draw)
    right = right_answers(effnet.load(out), dataset.test)
    said = "" if report.training.unlabelled is None else "; ".join(report.training.unlabelled.sentences[1:])
    found = {"right": right.astype(int).tolist(), "said": said, "seconds": report.seconds, "name": report.network.name}
    found |= _judged(out, dataset)
    shutil.rmtree(out)
    return found


def _judged(out: Path, dataset: Dataset) -> dict[str, Any]:
    """Return what the student of the first round, kept or not, does on the test images: it decides nothing."""
    bundle = out / "run" / "attempt-1" / "student-1" / "bundle"
    if not bundle.is_dir():
        return {}
    student = effnet.load(bundle)
    rows, indices = predict_split(student, dataset.val)
    return {
        "student_right": right_answers(student, dataset.test).astype(int).tolist(),
        "student_val_loss": negative_log_likelihood(rows, dataset.val.labels[indices]),
    }


def _some(folder: Path, most: int, seed: int, out: Path) -> Path:
    """Return a folder of at most `most` images of another, drawn with the seed."""
    if not out.is_dir():
        every = sorted(path for path in folder.rglob("*") if path.is_file())
        out.mkdir(parents=True)
        for index in np.random.default_rng(seed).permutation(len(every))[:most]:
            shutil.copy(every[index], out / f"{index:05d}{every[index].suffix}")
    return out


if __name__ == "__main__":
    main()
