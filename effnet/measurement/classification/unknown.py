"""Rejection of images of none of the classes: the share rejected, and the AUROC."""

import os
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from effnet.data.sources.folder import list_images
from effnet.errors import DataError
from effnet.runtimes.pipeline import run_images
from effnet.runtimes.predictor import Predictor
from effnet.system.machine import usable_cores
from effnet.system.records import OPTIONAL
from effnet.system.text import percent, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The rejection of images of none of the classes; `unreadable` files are not among `images`.

    `rejected` is the share answered with "unknown", None without a threshold. `auroc` is the probability that the
    model is more confident on an image of its classes than on an unknown one: 1 is perfect separation, 0.5 is none. A
    score that decides is what is compared; `probability_auroc` then is that of the largest probability, else None.
    """

    images: int
    unreadable: int
    rejected: float | None
    auroc: float
    probability_auroc: float | None = field(default=None, metadata=OPTIONAL)


def unknown_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all images below `folder`; raise DataError if it is not a folder or has no images."""
    name = printable(os.fspath(folder))
    if not os.path.isdir(folder):
        raise DataError(f"unknown images must be in a folder; {name} is not a folder")
    found = list_images(os.fspath(folder))
    if not found.paths:
        left_out = f"; {found.skipped[0].path}: {found.skipped[0].reason}" if found.skipped else ""
        raise DataError(f"there must be images of none of the classes in {name}; none were found{left_out}")
    return list(found.paths)


def measure_unknown(predictor: Predictor, folder: str | os.PathLike[str], *, known: np.ndarray) -> Unknown:
    """Run all images below `folder`, which show none of the classes, through the bundle's file.

    `known` holds the probabilities of each image that does show one, [images, classes], and as one more column the
    score, if the predictor returns it. Raises DataError if there is no readable image.
    """
    strange, unreadable = strange_rows(predictor, folder)
    config = predictor.config
    if not predictor.scored:
        return unknown_of(strange, known.max(1), threshold=config.threshold, unreadable=unreadable)
    assert config.known is not None
    probable = unknown_of(strange[:, :-1], known[:, :-1].max(1), threshold=None, unreadable=unreadable)
    found = unknown_of(strange[:, -1:], known[:, -1], threshold=config.known.threshold, unreadable=unreadable)
    return replace(found, probability_auroc=probable.auroc)


def strange_rows(predictor: Predictor, folder: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Return the outputs [images, columns] of all images below `folder`, and the number of unreadable ones.

    A score that the predictor returns is one more column. Raises DataError if there is no readable image.
    """
    paths = unknown_images(folder)
    _ = predictor.engine
    rows, _ = run_images(
        range(len(paths)),
        prepare=lambda index: predictor.prepare(paths[index]),
        compute=partial(predictor.outputs, scored=True),
        workers=usable_cores(),
    )
    if not rows:
        raise DataError(f"there must be readable images in {printable(os.fspath(folder))}; there are none")
    return np.stack(rows), len(paths) - len(rows)


def unknown_of(rows: np.ndarray, known: np.ndarray, *, threshold: float | None, unreadable: int) -> Unknown:
    """Return the rejection of images with these probabilities [images, classes] at a threshold.

    `known` holds the largest probability of each image of the classes [images].
    """
    strange = rows.max(1).astype(np.float64)
    return Unknown(
        images=len(strange),
        unreadable=unreadable,
        rejected=None if threshold is None else float((strange < threshold).mean()),
        auroc=area_under_roc(np.asarray(known, np.float64), strange),
    )


def area_under_roc(known: np.ndarray, strange: np.ndarray) -> float:
    """Return the share of all pairs whose known image has the higher confidence; a tie counts half.

    Source: Mann and Whitney, Ann. Math. Stat. 18 (1947), 50-60; Hanley and McNeil, Radiology 143 (1982), 29-36.
    """
    ordered = np.sort(strange)
    below, not_above = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(strange)))


def unknown_sentence(found: Unknown) -> str:
    """Return the rejection in words."""
    rejected = "" if found.rejected is None else f"{percent(found.rejected)} rejected, "
    unreadable = f" ({found.unreadable} more could not be read)" if found.unreadable else ""
    plain = found.probability_auroc
    beside = "" if plain is None else f" ({plain:.3f} by the largest probability)"
    return f"unknown images: {rejected}AUROC {found.auroc:.3f}{beside} on {found.images}{unreadable}"
