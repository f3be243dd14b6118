"""What the answers of one export show, in its own runtime, before it takes its place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet.exporting.acceptance import Acceptance
from effnet.exporting.images import Images, accuracy_of
from effnet.measure.paired import Paired
from effnet.runtime.formats import Format
from effnet.runtime.predictor import Predictor

if TYPE_CHECKING:
    from effnet.exporting.verify import ExportCheck, FeaturesCheck

Said = Callable[[str, int, int], None]
"""What is done, with how many images of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a file's answers show; of one that this machine cannot run, nothing."""

    check: "ExportCheck | FeaturesCheck | None" = None
    accuracy: float | None = None
    scored: int = 0
    judged: Paired | None = None


def prove(
    target: Format,
    predictor: Predictor,
    images: Images,
    eager: np.ndarray,
    judge: Acceptance | None,
    progress: Said | None,
) -> Proof:
    """Return what the file's answers show; raise BudgetError if fewer bits lose more than they may."""
    from effnet.exporting.verify import compare, compare_features

    if target.result == "features":  # of which none is right or wrong
        return Proof(check=compare_features(eager, predictor, images.check))
    name, judged, accuracy, scored = predictor.format.name, None, None, 0
    check = compare(eager, predictor, images.check)
    if judge is not None and predictor.format.precision != "fp32":
        judged = judge.judge(predictor, progress=_said(progress, f"judging {name}"))
    if images.scored is not None:
        accuracy, scored = accuracy_of(predictor, images.scored, progress=_said(progress, f"scoring {name}"))
    return Proof(check=check, accuracy=accuracy, scored=scored, judged=judged)


def _said(progress: Said | None, text: str) -> Callable[[int, int], None] | None:
    return progress and (lambda done, total: progress(text, done, total))
