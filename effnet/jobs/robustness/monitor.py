"""The verb monitor: whether new images, and the answers to them, differ from those of the test split; no torch."""

import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from effnet.data.datasets import DataLike
from effnet.data.sources.folder import list_images
from effnet.errors import BundleError, DataError, InputError
from effnet.measurement.drift.compare import compare_figures, compare_samples
from effnet.measurement.drift.expected import expected_answers
from effnet.measurement.drift.record import DriftScore
from effnet.measurement.drift.sample import REFERENCE, Sample, read_sample, sample_of, save_sample, split_of
from effnet.measurement.robustness.formats import check_classifier
from effnet.runtimes.predictor import Predictor
from effnet.system.text import brief, printable
from effnet.weights.labels import choose_images

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# Fewer images than this say nothing about a distribution.
_LEAST = 5

Progress = Callable[[int, int], None]


def monitor(
    predictor: Predictor,
    folder: str | os.PathLike[str],
    *,
    reference: DataLike | None = None,
    save: str | os.PathLike[str] | None = None,
    since: str | None = None,
    progress: Progress | None = None,
    now: Callable[[], float] = time.time,
) -> DriftScore:
    """Compare a classifier's answers to all images below `folder` with those to the images that it was tested on.

    `reference` is the data that the bundle was fitted on, whose test split is taken, or other labelled data, or a file
    that `save` wrote; by default reference.npz of the bundle, or else the figures in its report.json, which allow only
    the indices of labels and confidence. `save` writes the answers to the reference to a file. With `since`, such as
    "7d", "12h" or "2026-11-30", only files changed after that time are read.

    Raises DataError if there are fewer than 5 readable images, InputError for another task than classification, a
    reference of another model, or a time that is none; BundleError if the bundle has nothing to compare with.
    """
    check_classifier(predictor)
    names = predictor.config.class_names
    paths = _images(folder, since, now())
    before, words = _reference(predictor, reference, progress)
    if save is not None:
        if before is None:
            raise InputError("save writes the answers to reference: give reference=DATA too")
        save_sample(before, Path(save), predictor=predictor)
    after = sample_of(predictor, split_of(paths), progress=progress)
    if len(after) < _LEAST:
        raise DataError(
            f"drift needs at least {_LEAST} readable images; {printable(os.fspath(folder))} has {len(after)}"
        )
    if before is not None:
        return compare_samples(before, after, names, reference=words)
    expected = expected_answers(predictor.folder, names)
    if expected is None:
        raise BundleError(
            f"drift needs images or figures to compare with; {predictor.folder} has no {REFERENCE} and no report.json: "
            "give --reference DATA, such as the data that it was fitted on"
        )
    count = round(sum(expected.labels.values()))
    words = f"the figures of the {count:,} test images in report.json (--reference DATA tests scores and images too)"
    return compare_figures(expected, after, names, reference=words)


def _reference(
    predictor: Predictor, reference: DataLike | None, progress: Progress | None
) -> tuple[Sample | None, str]:
    """Return the sample to compare with, and what it is; None if there are only figures."""
    own = predictor.folder / REFERENCE
    if reference is None and own.is_file():
        reference = own
    if reference is None:
        return None, ""
    if isinstance(reference, str | os.PathLike) and Path(reference).suffix == ".npz":
        sample = read_sample(reference, predictor=predictor)
        return sample, f"the {len(sample):,} images of {printable(os.fspath(reference))}"
    chosen = choose_images(reference, folder=predictor.folder, config=predictor.config)
    sample = sample_of(predictor, chosen.split, progress=progress)
    which = "the whole of" if chosen.part == "all" else f"the {chosen.part} split of"
    return sample, f"{which} the reference, {len(sample):,} images"


def _images(folder: str | os.PathLike[str], since: str | None, now: float) -> list[str]:
    name = printable(os.fspath(folder))
    if not os.path.isdir(folder):
        raise DataError(f"monitor takes a folder of images; {name} is not a folder")
    paths = list_images(os.fspath(folder)).paths
    if since is not None:
        after = moment_of(since, now=now)
        paths = tuple(path for path in paths if os.stat(path).st_mtime > after)
    if not paths:
        newer = f" changed since {since}" if since else ""
        raise DataError(f"there must be images{newer} in {name}; none were found")
    return list(paths)


def moment_of(since: str, *, now: float) -> float:
    """Return the time in seconds since 1970 of "7d", "12h", "30m", "2w", or of an ISO 8601 date; `now` is today's."""
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", since):
        return now - int(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"since must be a time ago, such as 7d, 12h or 30m, or a date such as 2026-11-30; got {brief(since)}"
        ) from error
