"""Draws of a few labels a class, with the same test images for both sides of a comparison, and the gain of one side.

CIFAR-10 at 96 px and fashion's articleType at 128 px (types of at least 60 images), for a Lite0.
"""

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cifar import unpack
from benchmarks.fashion import LEAST, rows
from benchmarks.harness import shared

SIDES = {"cifar": 96, "fashion": 128}
FASHION_TEST, RESAMPLES = 1500, 2000
# The MACs of Lite0 at 224 px and the room above them for its new classifier.
MACS, ROOM = 385e6, 1.08


def most_macs(data: str) -> float:
    """Return the budget that a Lite0 keeps at the side of a data set."""
    return ROOM * MACS * (SIDES[data] / 224) ** 2


def draw_labels(data: str, labels: int, draw: int, *, cache: Path, scratch: Path) -> Path:
    """Return a folder with data.csv, of `labels` images a class for training and validation, and the others' folder."""
    folder = cache / f"data-{data}-{labels}-{draw}"
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        (_cifar if data == "cifar" else _fashion)(folder, labels, draw, scratch)
        (folder / "done").touch()
    return folder


def _cifar(folder: Path, labels: int, draw: int, scratch: Path) -> None:
    """Write data.csv with `labels` images a class for training and all test images; the others are unlabelled."""
    root = scratch / "cifar10"
    if not root.is_dir():
        unpack(shared("data", "cifar10_12k.tar.gz"), root, lambda part, number: part)
    every = sorted(root.glob("*/*/*.jpg"))
    found = [(path, path.parent.name, path.parent.parent.name) for path in every]
    train = [(path, label) for path, label, part in found if part == "train"]
    _write(folder, train, [(path, label) for path, label, part in found if part == "test"], labels, draw)


def _fashion(folder: Path, labels: int, draw: int, scratch: Path) -> None:
    """Write the same of the frequent types of articles, with a draw of test images."""
    every = [(Path(row["path"]), row["articleType"]) for row in rows()]
    counts = Counter(label for _, label in every)
    every = [pair for pair in every if counts[pair[1]] >= LEAST]
    order = np.random.default_rng(draw).permutation(len(every))
    test, train = order[:FASHION_TEST], order[FASHION_TEST:]
    _write(folder, [every[i] for i in train], [every[i] for i in test], labels, draw)


def _write(folder: Path, train: list[tuple[Path, str]], test: list[tuple[Path, str]], labels: int, draw: int) -> None:
    rng, taken, known = np.random.default_rng([draw, labels]), Counter[str](), []
    (folder / "images").mkdir(parents=True)
    (folder / "unlabelled").mkdir()
    for index in rng.permutation(len(train)):
        path, label = train[index]
        taken[label] += 1
        name = f"{index:05d}{path.suffix}"
        if taken[label] <= labels:
            shutil.copy(path, folder / "images" / name)
            known.append((f"images/{name}", label, "val" if taken[label] <= _held_out(labels) else "train"))
        else:
            shutil.copy(path, folder / "unlabelled" / name)
    for number, (path, label) in enumerate(test):
        shutil.copy(path, folder / "images" / f"test{number:05d}{path.suffix}")
        known.append((f"images/test{number:05d}{path.suffix}", label, "test"))
    with open(folder / "data.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *known])


def _held_out(labels: int) -> int:
    """Return the validation images of each class: 15 % of the labelled ones, as fit splits them, at least one."""
    return max(1, round(0.15 * labels))


def gain_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Return the mean gain in percentage points and its 95 % interval, over draws and test images."""
    gains = [100 * (after.astype(float) - before) for before, after in pairs]
    rng, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        some = [gains[i] for i in rng.integers(len(gains), size=len(gains))]
        means.append(np.mean([gain[rng.integers(len(gain), size=len(gain))].mean() for gain in some]))
    low, high = np.quantile(means, (0.025, 0.975))
    each = [round(float(gain.mean()), 2) for gain in gains]
    return {"gain": float(np.mean(each)), "interval": [round(float(low), 2), round(float(high), 2)], "draws": each}
