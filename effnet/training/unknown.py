"""How many pictures of none of the classes a model rejects."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.data.decode import IMAGE_SUFFIXES, printable
from effnet.errors import DataError, MissingExtraError
from effnet.measure.machine import usable_cores
from effnet.runtime.pipeline import run_pictures
from effnet.runtime.predictor import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """What a model does with pictures of none of its classes; `unreadable` files are not among `images`.

    `rejected` is the share answered with "unknown", None without a threshold. `auroc` is the probability that the
    model is surer of a picture of its classes than of such a one: 1 tells all apart, 0.5 none.
    """

    images: int
    unreadable: int
    rejected: float | None
    auroc: float


def unknown_pictures(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of all pictures below `folder`; raises DataError where it is none or holds none."""
    name = printable(os.fspath(folder))
    if not os.path.isdir(folder):
        raise DataError(f"unknown pictures must be in a folder; {name} is none")
    found = sorted(str(p) for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise DataError(f"there must be pictures of none of the classes in {name}; none were found")
    return found


def measure_unknown(predictor: Predictor, folder: str | os.PathLike[str], *, known: np.ndarray) -> Unknown:
    """Runs all pictures below `folder`, which show none of the classes, through the bundle's ONNX file.

    `known` holds the largest probability of each picture [pictures] that does show one. Raises DataError where
    there is no picture that can be read.
    """
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    paths = unknown_pictures(folder)
    _ = predictor.engine
    rows, _ = run_pictures(
        range(len(paths)),
        prepare=lambda index: predictor.prepare(paths[index]),
        compute=lambda images: predictor.probabilities(images).max(1),
        workers=usable_cores(),
    )
    if not rows:
        raise DataError(f"there must be pictures that can be read in {printable(os.fspath(folder))}; none can")
    strange = np.array(rows, np.float64)
    of_a_class = np.repeat((1, 0), (len(known), len(strange)))
    threshold = predictor.config.threshold
    return Unknown(
        images=len(strange),
        unreadable=len(paths) - len(strange),
        rejected=None if threshold is None else float((strange < threshold).mean()),
        auroc=float(roc_auc_score(of_a_class, np.concatenate([np.asarray(known, np.float64), strange]))),
    )
