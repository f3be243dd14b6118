"""The verb bench: measure all exports of a bundle side by side, each in its own runtime."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.formats import Format
from effnet.data.datasets import Split
from effnet.errors import BundleError, EffnetError, InputError, nearest
from effnet.measurement.answers import predict_split
from effnet.measurement.evaluate import evaluate
from effnet.measurement.in_image import outside_ms
from effnet.measurement.paired import paired, share_right
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.runtimes.digests import check_digests
from effnet.runtimes.installed import missing
from effnet.runtimes.ledger import read_ledger
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import FORMATS, deployed_format, runnable
from effnet.tasks.task import Task
from effnet.weights.labels import Chosen, choose_images

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """An export's accuracy: measured on the test split now, or recorded in exports.json at export time.

    `agreement` is the share of images with the same top class as model.onnx or, from exports.json, as the eager
    network. `drop` is the accuracy drop from model.onnx, as a share; None for fp32. Of objects and masks, accuracy is
    the figure of the task.
    """

    accuracy: float | None = None
    agreement: float | None = None
    images: int = 0
    drop: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One export at one thread count and batch size."""

    format: Format
    size_mb: float
    timing: Timing
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The measurements; `absent` formats could be exported here, `uninstalled` says how to install a runtime.

    `failed` says why a format could not be measured, `scored` which images the accuracy is from. `outside_ms` is the
    time of an image from the network's outputs to its objects or its mask, which the latencies do not contain; None
    without data, and for other tasks.
    """

    config: ModelConfig
    rows: tuple[Row, ...]
    absent: tuple[str, ...]
    uninstalled: dict[str, str]
    failed: dict[str, str]
    scored: str = ""
    outside_ms: float | None = None


def bench(
    folder: str | os.PathLike[str],
    *,
    runtimes: Sequence[str] = ("all",),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    data: str | os.PathLike[str] | None = None,
    rounds: int = 3,
    seconds: float = 0.3,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> Bench:
    """Measure the exports of the bundle `folder` in turns and score them on `data`, as `evaluate` does.

    `runtimes` are those of effnet.runtimes.registry, or "all". Raises InputError for an unknown runtime,
    MissingExtraError for a named one that is not installed, BundleError if nothing can be measured.
    """
    config = read_config(folder)
    deployed_format(config)  # a bundle that names an unknown one is damaged
    wanted = _wanted(runtimes)
    uninstalled = {name: str(error) for name in wanted if (error := missing(name))}
    here = [found for found in FORMATS.values() if found.runtime in wanted and found.runtime not in uninstalled]
    present = [found for found in here if (Path(folder) / found.file).exists()]
    absent = tuple(found.name for found in here if found not in present)
    if not present:
        raise BundleError(f"{folder} has no export for these runtimes: effnet export {folder} --to {absent[0]}")
    # Report errors in the data before the slow measurements, not after.
    chosen = None if data is None else choose_images(data, folder=folder, config=config)
    failed: dict[str, str] = {}
    paths = _whole(Path(folder), present, failed)
    timings = _timings(
        stopwatch or Stopwatch(), paths, failed, threads, batches, rounds=rounds, seconds=seconds, progress=progress
    )
    usable = [name for name in paths if name not in failed]
    qualities, outside = _kept(folder), None
    if chosen is not None and config.task_record.whole is None:
        qualities = _qualities(folder, usable, chosen, failed)
    elif chosen is not None:
        qualities = _figures(folder, usable, chosen, failed)
        outside = outside_ms(Predictor(folder, format=usable[0]), chosen.split) if usable else None
    rows = tuple(
        Row(
            format=FORMATS[name],
            size_mb=FORMATS[name].size_bytes(folder) / 1e6,
            timing=timing,
            quality=qualities.get(name, Quality()),
        )
        for name, timing in timings
    )
    return Bench(
        config=config,
        rows=rows,
        absent=absent,
        uninstalled=uninstalled,
        failed=failed,
        scored=chosen.sentence if chosen else "",
        outside_ms=outside,
    )


def _timings(
    stopwatch: Stopwatch,
    paths: dict[str, Path],
    failed: dict[str, str],
    threads: Sequence[int],
    batches: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    progress: Progress | None,
) -> list[tuple[str, Timing]]:
    """Return the timings of each format; the reasons of those that could not be measured go to `failed`."""
    steps, total = count(1), len(threads) * len(batches) * rounds * len(paths)
    found: list[tuple[str, Timing]] = []
    for number, batch in product(threads, batches):
        taken = stopwatch.in_turns(
            paths, threads=number, batch=batch, rounds=rounds, seconds=seconds,
            progress=lambda: progress(next(steps), total) if progress else None,
        )  # fmt: skip
        failed |= {name: str(result) for name, result in taken.items() if isinstance(result, BundleError)}
        found += [(name, result) for name, result in taken.items() if isinstance(result, Timing)]
    return found


def _whole(folder: Path, present: Sequence[Format], failed: dict[str, str]) -> dict[str, Path]:
    """Return the path of each format whose files match the digests in config.json; the others go to `failed`."""
    paths: dict[str, Path] = {}
    for found in present:
        try:
            check_digests(folder, found.name)
            paths[found.name] = folder / found.file
        except BundleError as error:
            failed[found.name] = str(error)
    return paths


def _wanted(runtimes: Sequence[str]) -> list[str]:
    known = list(runnable())
    if list(runtimes) == ["all"]:
        return known
    for name in runtimes:
        if name not in known:
            raise InputError(f"a runtime must be one of {', '.join(known)}, or all; got {name!r}{nearest(name, known)}")
        if error := missing(name):
            raise error
    if not runtimes:
        raise InputError(f"bench takes at least one runtime of {', '.join(known)}, or all; got none")
    return list(runtimes)


def _kept(folder: str | os.PathLike[str]) -> dict[str, Quality]:
    """Return each export's accuracy as recorded at export time."""
    return {
        name: Quality(
            accuracy=entry.accuracy, agreement=entry.agreement, images=entry.scored or entry.checked, drop=entry.drop
        )
        for name, entry in read_ledger(folder).items()
    }


def _qualities(
    folder: str | os.PathLike[str], names: Sequence[str], chosen: Chosen, failed: dict[str, str]
) -> dict[str, Quality]:
    """Return each export's accuracy on the images; one that cannot predict is added to `failed`."""
    split, task = chosen.split, read_config(folder).task_record
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        try:
            found[name] = predict_split(Predictor(folder, format=name), split)
        except EffnetError as error:
            failed[name] = str(error)
    reference = found.get("onnx")
    return {
        name: _quality(rows, indices, split, reference, task, whole=FORMATS[name].precision == "fp32")
        for name, (rows, indices) in found.items()
    }


def _figures(
    folder: str | os.PathLike[str], names: Sequence[str], chosen: Chosen, failed: dict[str, str]
) -> dict[str, Quality]:
    """Return the figure of each export of a detector or a segmenter; one that cannot answer is added to `failed`."""
    figure, found = read_config(folder).task_record.figure, dict[str, Quality]()
    for name in names:
        try:
            score = evaluate(Predictor(folder, format=name), chosen.split)
        except EffnetError as error:
            failed[name] = str(error)
            continue
        own = None if math.isnan(score.figure) else float(score.figure)
        before = found["onnx"].accuracy if "onnx" in found else None
        drop = None
        if own is not None and before is not None and FORMATS[name].precision != "fp32":
            drop = figure.better(before) - figure.better(own)
        found[name] = Quality(accuracy=own, images=score.images, drop=drop)
    return found


def _quality(
    rows: np.ndarray,
    indices: np.ndarray,
    split: Split,
    reference: tuple[np.ndarray, np.ndarray] | None,
    task: Task,
    *,
    whole: bool,
) -> Quality:
    truth, expected = split.labels[indices], None if reference is None else reference[0]
    agreement = accuracy = drop = None
    if expected is not None and task.output.activation == "softmax":
        agreement = float((rows.argmax(1) == expected.argmax(1)).mean())
    if task.right is not None:
        right = task.right(rows, truth)
        accuracy = share_right(right)
        drop = None if expected is None or whole else paired(task.right(expected, truth), right, parts=task.parts).drop
    return Quality(accuracy=accuracy, agreement=agreement, drop=drop, images=len(indices))
