"""Noisy Student: students of a fit's own pseudo-labels for unlabelled images, each judged once on validation images.

Source: Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification" (arXiv 1911.04252).
With few labels, FreeMatch instead: one student without a teacher, judged alike.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.inspection.unlabelled import Unlabelled
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.prune import learning_minutes, use_for
from effnet.jobs.fit.resume import Attempt, write_recipe
from effnet.jobs.fit.transfer.finetune import Learned
from effnet.jobs.fit.unlabelled.freematch import STEPS, Reached, chosen_method, images_alone, learn_freely
from effnet.jobs.fit.unlabelled.kept import Kept, Learns, read_kept, student_folder, write_kept
from effnet.jobs.fit.unlabelled.student import Epochs, learn, least_seconds, plan_epochs
from effnet.jobs.fit.unlabelled.verdict import judge
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import (
    Abstain,
    Calibration,
    apply_temperature,
    calibrate,
)
from effnet.nn.network import Network
from effnet.planner.events import Counted
from effnet.planner.space import Candidate
from effnet.planner.timetable import not_enough
from effnet.report.unlabelled import RoundFacts, UnlabelledFacts
from effnet.runtimes.predictor import Predictor
from effnet.system.text import percent
from effnet.training.unlabelled.pseudo import LEAST_ANSWERS, SECOND_PRECISION, choose_threshold, pseudo_labels

Saved = tuple[ModelConfig, Mapping[str, np.ndarray], Calibration | None]
Save = Callable[[Path, Learned], Saved]
"""Writes a trained network as a calibrated bundle into a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the rounds of a fit share."""

    attempt: Attempt
    candidate: Candidate
    dataset: Dataset
    folder: Path
    job: Job
    save: Save

    @property
    def images(self) -> Unlabelled:
        """The unlabelled images."""
        assert self.job.unlabelled is not None
        return self.job.unlabelled

    @property
    def teacher(self) -> str:
        """The bundle that the recipe names as a teacher, empty for none."""
        return str(self.job.asked.value("loss.teacher") or "")


def learn_from_unlabelled(bundle: Path, learned: Learned, saved: Saved, fit: Fit) -> tuple[Learned, Saved]:
    """Return the network after the rounds, and its bundle's content, written into `bundle`: the last kept student.

    `bundle` holds the network that was `learned` from the labelled images alone, which stays if no student is kept.
    """
    job, images = fit.job, fit.images
    rounds: list[RoundFacts] = []
    method, chosen = chosen_method(job, fit.dataset)
    job.say(chosen)
    for number in range(1, job.config.unlabelled_rounds + 1):  # type: ignore[union-attr]
        job.say(f"Learning from unlabelled images, round {number}", heading=True)
        facts, student = _round(number, bundle, learned, fit, method)
        rounds.append(facts)
        for sentence in facts.sentences:
            job.say(sentence)
        if student is None:
            break
        learned, saved = student, fit.save(bundle, student)
    record = UnlabelledFacts(
        folder=images.folder, found=images.found, images=len(images.paths), copies=dict(images.copies),
        notes=(*images.sentences, chosen), teacher=fit.teacher, rounds=tuple(rounds), method=method,
    )  # fmt: skip
    return dataclasses.replace(learned, unlabelled=record), saved


def _round(number: int, bundle: Path, learned: Learned, fit: Fit, method: Learns) -> tuple[RoundFacts, Learned | None]:
    """Return the facts of a round, and its student if it is kept."""
    folder = student_folder(fit.folder, number)
    kept = read_kept(folder, fit.images)
    if kept is None:
        free = method == "freematch"
        found = _every_image(number, learned, fit) if free else _pseudo_labelled(number, bundle, learned, fit)
        if isinstance(found, str):
            return _none(found), None
        write_kept(found, folder, fit.images)
        kept = found
    student, reached = _student(kept, learned, fit, folder=folder, seconds=_seconds(number, learned, fit))
    fit.save(folder / "bundle", student)
    result, stays = judge(bundle, folder / "bundle", fit.dataset, trusted=kept.method == "noisy_student")
    verdict = "it is kept" if stays else "it is discarded, and the network stays as it was"
    if stays and result.drop >= 0:
        verdict = f"the images do not speak against it, and {verdict}"
    facts = _facts(kept, reached, len(fit.dataset.class_names))
    facts = dataclasses.replace(
        facts, compared=result.to_dict(), kept=stays, sentence=f"The student {result.sentence()}: {verdict}"
    )
    if stays and student.recipe is not None:
        write_recipe(student.recipe, fit.job.out)
    return facts, student if stays else None


def _student(
    kept: Kept, learned: Learned, fit: Fit, *, folder: Path, seconds: float | None
) -> tuple[Learned, Reached | None]:
    """Return the student of what is `kept`, and the thresholds of FreeMatch."""
    shared: Any = {
        "attempt": fit.attempt, "dataset": fit.dataset, "folder": folder, "root": fit.folder, "seconds": seconds,
        "job": fit.job,
    }  # fmt: skip
    if kept.method == "freematch":
        return learn_freely(kept, learned, **shared)
    return learn(kept, learned, **shared), None


def _facts(kept: Kept, reached: Reached | None, num_classes: int) -> RoundFacts:
    """Return the facts of a trained student that is not judged yet."""
    shared: Any = {"used": len(kept.pseudo.classes), "epochs": kept.epochs, "labelled_epochs": kept.labelled_epochs}
    shared |= {"compared": None, "kept": False, "sentence": ""}
    if reached is not None:
        return RoundFacts(
            threshold=reached.level, precision=None, answers=0, passed=sum(reached.passed), classes=reached.passed,
            thresholds=reached.classes, seen=reached.seen, **shared,
        )  # fmt: skip
    assert kept.threshold is not None
    return RoundFacts(
        threshold=kept.threshold.value, precision=kept.threshold.precision, answers=kept.threshold.answers,
        passed=kept.passed, classes=tuple(map(int, kept.pseudo.counts(num_classes))), **shared,
    )  # fmt: skip


def _none(sentence: str) -> RoundFacts:
    return RoundFacts(
        threshold=None, precision=None, answers=0, passed=0, used=0, classes=(), epochs=0, labelled_epochs=0,
        compared=None, kept=False, sentence=f"{sentence}: the unlabelled images are not used",
    )  # fmt: skip


def _pseudo_labelled(number: int, bundle: Path, learned: Learned, fit: Fit) -> Kept | str:
    """Return the pseudo-labels to learn, and for how long; a sentence if there are none."""
    job, dataset = fit.job, fit.dataset
    if len(dataset.val) < LEAST_ANSWERS:
        return (
            f"The precision of pseudo-labels must be measured on at least {LEAST_ANSWERS} validation images; there are "
            f"{len(dataset.val)}"
        )
    teacher = Predictor(fit.teacher if fit.teacher and number == 1 else bundle)
    rows, indices = predict_split(teacher, dataset.val)
    labels = dataset.val.labels[indices]
    temperature = 1.0
    if fit.teacher and number == 1:
        temperature = calibrate(rows, labels, Abstain()).temperature
        rows = apply_temperature(rows, temperature)
        if teacher.config.split_seed != job.seed:
            job.say(f"The teacher {fit.teacher} may have learnt the validation images: its precision may be too high")
    threshold = choose_threshold(rows, labels) or choose_threshold(rows, labels, least=SECOND_PRECISION)
    if threshold is None:
        return (
            f"With no confidence are {percent(SECOND_PRECISION, 0)} of {LEAST_ANSWERS} or more answers to the "
            f"{len(labels)} validation images right"
        )
    images = fit.images.split
    answers, places = predict_split(
        teacher, images, progress=lambda d, n: job.listener(Counted(label="pseudo-labels", done=d, total=n))
    )
    pseudo = pseudo_labels(apply_temperature(answers, temperature), places, threshold.value)
    if not len(pseudo.classes):
        return f"No unlabelled image has a confidence of at least {threshold.value:.3f}"
    plan = _planned(number, learned, fit, images=len(pseudo.classes))
    if isinstance(plan, str):
        return plan
    rng = np.random.default_rng([job.seed, number])
    used = np.sort(rng.permutation(len(pseudo.classes))[: plan.pseudo])
    return Kept(
        threshold=threshold, passed=len(pseudo.classes), pseudo=pseudo.some(used), epochs=plan.epochs,
        labelled_epochs=plan.labelled_epochs,
    )  # fmt: skip


def _every_image(number: int, learned: Learned, fit: Fit) -> Kept | str:
    """Return the images that FreeMatch learns, as many as there is time for; a sentence if there is none."""
    count = len(fit.images.paths)
    plan = _planned(number, learned, fit, images=count, steps=STEPS)
    if isinstance(plan, str):
        return plan
    used = np.sort(np.random.default_rng([fit.job.seed, number]).permutation(count)[: plan.pseudo])
    return Kept(
        threshold=None, passed=0, pseudo=images_alone(used), epochs=plan.epochs, labelled_epochs=0, method="freematch"
    )


def _planned(number: int, learned: Learned, fit: Fit, *, images: int, steps: float = 1.0) -> Epochs | str:
    """Return for how long a student of this number of images is trained; a sentence if there is no time."""
    job = fit.job
    assert isinstance(learned.training.model, Network)
    spec, left = learned.training.model.spec, _seconds(number, learned, fit)
    shared: Any = {"labelled": len(fit.dataset.train), "pseudo": images, "read": job.pace.read, "steps": steps}
    epochs = job.config.epochs or job.asked.value("train.epochs")
    plan = plan_epochs(spec, seconds=left, epochs=epochs, **shared)
    if plan is None:
        return not_enough("A student was not trained", needs=least_seconds(spec, **shared), left=left or 0.0)
    return plan


def _seconds(number: int, learned: Learned, fit: Fit) -> float | None:
    """Return the time for this round; None if the number of epochs is given.

    What the training of `learned` left of its time, or took of the students', counts.
    """
    job = fit.job
    rounds = job.config.unlabelled_rounds - number + 1  # type: ignore[union-attr]
    if job.deadline.limited:
        use = use_for(fit.candidate, fit.dataset, job)
        return (use.learning + use.unlabelled) / rounds
    minutes = learning_minutes(fit.candidate, job)
    if minutes is None:
        return None
    return max(0.0, 60 * minutes + job.time_for_students - learned.training.seconds) / rounds
