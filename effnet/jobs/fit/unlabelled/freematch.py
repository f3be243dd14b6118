"""FreeMatch in a fit: when it is chosen, the images that it learns, and its training."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.jobs.fit.config import UnlabelledMethod
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.transfer.finetune import Learned, train_in
from effnet.jobs.fit.transfer.head import of_head, read_head
from effnet.jobs.fit.unlabelled.kept import PARTS, Kept, Learns
from effnet.jobs.fit.unlabelled.student import limit_of, recipe_of, started
from effnet.nn.network import Network
from effnet.training.unlabelled.freematch import (
    FreeMatchLoss,
    freematch_recipe,
    unsuited,
    weak_recipe,
    with_thresholds_,
    without_thresholds_,
)
from effnet.training.unlabelled.pseudo import PseudoLabels
from effnet.training.unlabelled.student import student_set

# From more labelled images a class on, the answers of a teacher are worth more than thresholds that adapt.
FEW = 5
# A pass without gradients beside a training step, in steps.
STEPS = 4 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The thresholds that training ended with, of all classes and of each, averaged as the weights are.

    In the last epoch `passed` [classes] of the `seen` weak views passed them.
    """

    level: float
    classes: tuple[float, ...]
    passed: tuple[int, ...]
    seen: int


def why_not(job: Job) -> str:
    """Return a clause on why FreeMatch cannot do what is requested; empty if it can."""
    if job.config.unlabelled_rounds != 1:  # type: ignore[union-attr]
        return "it has no second round"
    if job.asked.value("loss.teacher"):
        return "it learns from no teacher"
    names = [name for name, value in sorted(job.asked.settings.items()) if unsuited(name, value)]
    if names:
        return f"it cannot have this {', '.join(names)}"
    return f"it trains in one process, not in {job.ranks.size}" if job.ranks.size > 1 else ""


def check_method(job: Job) -> None:
    """Raise InputError if FreeMatch is requested with options that it does not have."""
    if cast(UnlabelledMethod, job.config.unlabelled_method) == "freematch" and (reason := why_not(job)):  # type: ignore[union-attr]
        raise InputError(f"fit.unlabelled_method=freematch is not possible: {reason}; leave one of the two out")


def chosen_method(job: Job, dataset: Dataset) -> tuple[Learns, str]:
    """Return the method, and a sentence on it."""
    asked, count = cast(UnlabelledMethod, job.config.unlabelled_method), dataset.images_a_class  # type: ignore[union-attr]
    a_class = f"{count:.3g} labelled training images a class"
    if asked == "noisy_student" or (asked == "auto" and count > FEW):
        return "noisy_student", f"The unlabelled images are learnt by Noisy Student, with {a_class}"
    if reason := why_not(job):
        return "noisy_student", f"The unlabelled images are learnt by Noisy Student, not by FreeMatch: {reason}"
    return "freematch", f"The unlabelled images are learnt by FreeMatch, with {a_class}"


def images_alone(indices: np.ndarray) -> PseudoLabels:
    """Return pseudo-labels that say nothing, of confidence 0."""
    count = len(indices)
    return PseudoLabels(
        indices=indices.astype(np.int64), classes=np.zeros(count, np.int64), confidences=np.zeros(count, np.float32)
    )


def learn_freely(
    kept: Kept,
    before: Learned,
    *,
    attempt: Attempt,
    dataset: Dataset,
    folder: Path,
    root: Path,
    seconds: float | None,
    job: Job,
) -> tuple[Learned, Reached]:
    """Return the network that FreeMatch trains in `folder`, or resumes there, and the thresholds.

    It starts as that of `before` did, from the pretrained weights with the head in `root`, or from scratch. `seconds`
    limit its training.
    """
    assert isinstance(before.training.model, Network)
    head = read_head(root)
    spec, classes = of_head(before.training.model.spec, head), len(dataset.class_names)
    state: Any = head and head[0]
    recipe = recipe_of(kept, attempt, dataset, spec, state, job, noisy=freematch_recipe)
    images = student_set(
        dataset, job.unlabelled.split.sources, kept.pseudo,  # type: ignore[union-attr]
        smoothing=recipe.loss.label_smoothing, seed=job.seed,
    )  # fmt: skip
    network = started(spec, recipe, state, root)
    with_thresholds_(network, recipe, images=len(images.train), classes=classes)
    rows = images.train.labels
    labels = rows[rows.sum(1) > 0].argmax(1)
    loss = FreeMatchLoss(recipe=recipe, preprocess=attempt.preprocess, labels=labels, num_classes=classes)
    trained = train_in(
        folder / PARTS[0], network, images, weak_recipe(recipe), attempt=attempt, job=job,
        seconds=limit_of(folder, seconds), make_loss=loss,
    )  # fmt: skip
    found = without_thresholds_(trained.model)
    reached = Reached(
        level=float(found.level), classes=tuple(found.of_classes.tolist()), passed=tuple(found.passed.tolist()),
        seen=int(found.seen),
    )  # fmt: skip
    student = dataclasses.replace(
        before,
        method="scratch" if head is None else "finetune",
        training=dataclasses.replace(trained, seconds=before.training.seconds + trained.seconds),
        recipe=recipe,
        validation=None,
        later=None,
    )
    return student, reached
