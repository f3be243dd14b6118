"""`python -m benchmarks.assemble_gain`: accuracy of an assembled network over other networks of the same latency.

A real Lite0 backbone is fine-tuned on 2,000 CIFAR-10 images at 96 pixels, and then made to take half the latency in
ONNX Runtime with one thread: assembled from alternatives of its blocks (effnet.nas.assemble), pruned, with uniformly
narrower layers, or at a lower resolution. All four meet the same measured latency, and are recovered by the same
teacher with the same images for as many epochs. The figure is the gain in accuracy on 4,000 test images, in percentage
points, over the best of the other three, if its 95 % interval is above 0, else 0: a paired bootstrap over seeds and
images. Each seed draws other training images, and is saved in the folder `--cache` as soon as it is finished; the same
command continues.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.assemble_rivals import Rivals, Timer, make_teacher
from benchmarks.cifar import unpack
from benchmarks.harness import finish, shared
from effnet.compression.subject import Subject
from effnet.data.datasets import read_dataset
from effnet.measurement.budget import Budget
from effnet.nas.assemble.assemble import Settings, assemble
from effnet.planner.events import Said
from effnet.progress import EpochEnd
from effnet.system.files import read_json

GOAL, SHARE = 1.0, 0.5
_TEST_A_CLASS, _OF_CLASS, _VAL = 200, 1000, 50
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The size of the experiment; a saved seed of another size is not taken."""

    side: int
    train: int
    teacher_epochs: int
    epochs: int
    resolutions: tuple[int, ...]
    number: int
    finalists: int
    images: int


def main() -> None:
    """Run the missing seeds one after the other, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/assemble_gain.json")
    parser.add_argument("--n", type=int, default=5, help="number of seeds")
    parser.add_argument("--cache", type=Path, help="folder that keeps finished seeds and unfinished work")
    parser.add_argument("--side", type=int, default=96, help="resolution of the teacher, in pixels")
    parser.add_argument("--train", type=int, default=2000, help="number of training images")
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of recovery of every network")
    parser.add_argument("--resolutions", type=int, nargs="*", default=(80,), help="other resolutions to assemble at")
    parser.add_argument("--number", type=int, default=6, help="assembled networks that are scored whole")
    parser.add_argument("--finalists", type=int, default=3, help="assembled networks that are recovered a little")
    parser.add_argument("--images", type=int, default=512, help="images of calibration")
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = Options(
        side=args.side, train=args.train, teacher_epochs=args.teacher_epochs, epochs=args.epochs,
        resolutions=tuple(args.resolutions), number=args.number, finalists=args.finalists, images=args.images,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        rows = [seed_row(seed, asked, cache) for seed in range(args.n)]
    names = list(rows[0]["right"])
    right = {name: np.array([row["right"][name] for row in rows], dtype=bool) for name in names}
    rivals = [name for name in names if name != "assembled"]
    best = max(rivals, key=lambda name: right[name].mean())
    gain = float(100 * (right["assembled"].mean() - right[best].mean()))
    low, high = interval(right, rivals)
    print(f"gain over {best}: {gain:+.2f} pp, 95 % interval {low:+.2f} to {high:+.2f}")
    samples = {f"{name}_accuracy": (100 * values.mean(1)).tolist() for name, values in right.items()}
    samples |= {f"{name}_ms": [row["latency_ms"][name] for row in rows] for name in names}
    finish(
        "assemble_gain", args, figure=gain if low > 0 else 0.0, goal=GOAL, unit="pp", better="higher", samples=samples,
        details=asdict(asked) | {
            "gain": gain, "best_rival": best, "interval": [low, high], "images": right[best].shape[1],
            "teacher_accuracy": [row["teacher_accuracy"] for row in rows],
            "budget_ms": [row["budget_ms"] for row in rows], "networks": [row["networks"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
        },
    )  # fmt: skip


def interval(right: dict[str, np.ndarray], rivals: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of the gain over the best rival, in points; `right` are bool [seeds, images].

    Seeds and images are drawn with replacement, the same of every network; the best rival is that of each draw.
    """
    rng = np.random.default_rng(0)
    seeds, images = right["assembled"].shape
    gains = []
    for _ in range(_RESAMPLES):
        # The mean over drawn seeds and images, from how often each is drawn.
        weight = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds) / seeds
        count = np.bincount(rng.integers(images, size=images), minlength=images) / images
        mean = {name: float(weight @ values @ count) for name, values in right.items()}
        gains.append(100 * (mean["assembled"] - max(mean[name] for name in rivals)))
    low, high = np.percentile(gains, (2.5, 97.5))
    return float(low), float(high)


def seed_row(seed: int, asked: Options, cache: Path) -> dict[str, Any]:
    """Return the result of one seed, from `cache` if it is finished there."""
    path = cache / f"seed-{seed}.json"
    try:
        found = read_json(path)
        if found["options"] == json.loads(json.dumps(asdict(asked))):
            return found
    except (OSError, ValueError, KeyError):
        pass
    row = run(seed, asked, cache / f"seed-{seed}", timed=cache / "timed") | {"options": asdict(asked)}
    path.write_text(json.dumps(row), encoding="utf-8")
    return row


def run(seed: int, asked: Options, folder: Path, *, timed: Path) -> dict[str, Any]:
    """Make, recover and score the four networks of one seed; all seeds share the measurements in `timed`."""
    images = folder / "images"
    if not images.is_dir():
        unpack(shared("data", "cifar10_12k.tar.gz"), images, placing(seed, asked.train))
    dataset = read_dataset(images, channels=3)
    weights = str(shared("weights", "tf_efficientnet_lite0_headless.safetensors"))
    teacher = make_teacher(
        weights, dataset, side=asked.side, epochs=asked.teacher_epochs, seed=seed, folder=folder, listener=tell
    )
    timer = Timer(teacher.config.arch, timed)
    limit = SHARE * timer.measure(teacher.config.arch)["latency_ms"]
    rivals = Rivals(
        teacher=teacher, dataset=dataset, timer=timer, limit_ms=limit, epochs=asked.epochs, seed=seed, folder=folder,
        listener=tell,
    )  # fmt: skip
    made: dict[str, Callable[[], Subject]] = {
        "assembled": lambda: assembled(asked, rivals),
        "smaller images": rivals.smaller_images,
        "pruned": rivals.pruned,
        "narrower": rivals.narrower,
    }
    right, latency, networks, seconds = {}, {}, {}, {}
    for name, make in made.items():
        subject, took = rivals.timed(name, make)
        answers = rivals.right_answers(name, subject)
        right[name] = answers.astype(int).tolist()
        latency[name] = timer.measure(subject.config.arch)["latency_ms"]
        networks[name], seconds[name] = subject.config.arch.name, took
        print(
            f"seed {seed}, {name}: {answers.mean():.2%}, {latency[name]:.3f} of {limit:.3f} ms, {took:.0f} s",
            flush=True,
        )
    accuracy = float(rivals.right_answers("teacher", teacher).mean())
    print(f"seed {seed}, teacher: {accuracy:.2%}, {2 * limit:.3f} ms", flush=True)
    return {
        "right": right, "latency_ms": latency, "budget_ms": limit, "teacher_accuracy": accuracy, "networks": networks,
        "seconds": seconds,
    }  # fmt: skip


def assembled(asked: Options, rivals: Rivals) -> Subject:
    """Return the assembled network."""
    settings = Settings(number=asked.number, finalists=asked.finalists, images=asked.images)
    found = assemble(
        rivals.teacher, rivals.dataset, budget=Budget(latency_ms=rivals.limit_ms), predict=rivals.timer.predict,
        measure=rivals.timer.measure, epochs=asked.epochs, resolutions=asked.resolutions, seed=rivals.seed,
        settings=settings, folder=rivals.folder / "assemble", listener=tell,
    )  # fmt: skip
    for part in found.rounds[-1].winner.scores.parts:
        print(f"  {part}")
    return found.subject


def placing(seed: int, train: int) -> Callable[[str, int], str]:
    """Return the split of each image by its number within its class; a seed draws other training images.

    The test split holds all test images, and the last ones of each class of the training images.
    """
    free = _OF_CLASS - _TEST_A_CLASS
    drawn = 1 + np.random.default_rng(seed).permutation(free)
    places = dict.fromkeys(drawn[: train // 10].tolist(), "train")
    places |= dict.fromkeys(drawn[train // 10 :][:_VAL].tolist(), "val")
    places |= dict.fromkeys(range(free + 1, _OF_CLASS + 1), "test")
    return lambda part, number: "test" if part == "test" else places.get(number, "")


def tell(event: object) -> None:
    """Print sentences, and the end of each epoch."""
    if isinstance(event, Said):
        print(f"  {event.text}", flush=True)
    elif isinstance(event, EpochEnd):
        print(f"    {event.words}, {event.images_per_second:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
