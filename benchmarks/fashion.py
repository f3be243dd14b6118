"""Draws of the product photographs with several labels, as manifests with a split."""

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import shared

OUTPUTS = ("gender", "articleType", "season", "year")
KINDS = {"gender": "label", "articleType": "label", "season": "label", "year": "number"}
LEAST = 60
"""The fewest images of a class that takes part, over all images."""


def rows() -> list[dict[str, str]]:
    """Return the rows of the images all of whose labels are known and frequent; paths are absolute."""
    folder = shared("data", "fashion")
    with open(folder / "fashion.csv", encoding="utf-8", newline="") as file:
        found = [row | {"path": os.path.join(folder, row["path"])} for row in csv.DictReader(file)]
    found = [row for row in found if all(row[name] for name in OUTPUTS)]
    for name in OUTPUTS[:3]:
        counts = Counter(row[name] for row in found)
        found = [row for row in found if counts[row[name]] >= LEAST]
    return found


def draw(seed: int, *, train: int, val: int, test: int) -> list[dict[str, str]]:
    """Return rows with a `split`; every class has images in train."""
    every = rows()
    order = np.random.default_rng(seed).permutation(len(every))
    parts = ["train"] * train + ["val"] * val + ["test"] * test
    chosen = [every[i] | {"split": part} for i, part in zip(order, parts, strict=False)]
    for name in OUTPUTS[:3]:
        known = {row[name] for row in chosen if row["split"] == "train"}
        chosen = [row for row in chosen if row[name] in known]
    return chosen


def write_manifest(chosen: list[dict[str, str]], path: Path, outputs: tuple[str, ...], *, hidden: Any = None) -> Path:
    """Write the manifest of a draw with these outputs; `hidden`, bool [rows, outputs], leaves cells empty."""
    columns = ["path", "split", *(f"{KINDS[name]}:{name}" for name in outputs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number, row in enumerate(chosen):
            cells = [row[name] for name in outputs]
            if hidden is not None and row["split"] == "train":
                cells = ["" if gone else cell for cell, gone in zip(cells, hidden[number], strict=True)]
            writer.writerow([row["path"], row["split"], *cells])
    return path
