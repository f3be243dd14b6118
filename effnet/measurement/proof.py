"""Verify one export in its own runtime, before it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet.bundle.formats import Format
from effnet.measurement.acceptance import Acceptance, FigureDrop
from effnet.measurement.paired import Paired
from effnet.measurement.sample import Images, accuracy_of
from effnet.runtimes.predictor import Predictor

if TYPE_CHECKING:
    from effnet.measurement.verify import ExportCheck, FeaturesCheck

Said = Callable[[str, int, int], None]
"""Progress: the operation, the images done and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The measurements of one file; empty if this machine cannot run it."""

    check: "ExportCheck | FeaturesCheck | None" = None
    accuracy: float | None = None
    scored: int = 0
    judged: Paired | FigureDrop | None = None


def prove(
    target: Format,
    predictor: Predictor,
    images: Images,
    eager: np.ndarray,
    judge: Acceptance | None,
    progress: Said | None,
    *,
    maps: np.ndarray | None = None,
) -> Proof:
    """Return the file's measurements; raise BudgetError if a reduced-precision file loses too much accuracy.

    `eager` are the network's outputs of the images to check, `maps` its activation maps of the first of them, if the
    file has maps.
    """
    from effnet.measurement.verify import compare, compare_features, compare_maps

    if target.result == "features":  # embeddings have no accuracy
        return Proof(check=compare_features(eager, predictor, images.check))
    name, judged, accuracy, scored = predictor.format.name, None, None, 0
    check = compare(eager, predictor, images.check)
    if maps is not None:
        compare_maps(maps, predictor, images.check[: len(maps)])
    if judge is not None and predictor.format.precision != "fp32":
        judged = judge.judge(predictor, progress=_said(progress, f"checking the accuracy drop of {name}"))
    if images.scored is not None and predictor.config.task_record.right is not None:
        accuracy, scored = accuracy_of(predictor, images.scored, progress=_said(progress, f"scoring {name}"))
    return Proof(check=check, accuracy=accuracy, scored=scored, judged=judged)


def _said(progress: Said | None, text: str) -> Callable[[int, int], None] | None:
    return progress and (lambda done, total: progress(text, done, total))
