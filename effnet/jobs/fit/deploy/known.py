"""The score that says "unknown" of a finished network: chosen on its own features, and put into its files."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.arch.cost import cost
from effnet.bundle.config import read_config, write_config
from effnet.bundle.names import ONNX
from effnet.data.datasets import Dataset, Split
from effnet.data.inspection.leaks import names_of
from effnet.errors import InputError
from effnet.jobs.audit.api import group_numbers
from effnet.jobs.fit.deploy.export import Deployed
from effnet.jobs.fit.job import Job
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import AUTO, choose_threshold, say_threshold
from effnet.measurement.known.choice import Estimate, KnownChoice, choose_method, why_chosen
from effnet.measurement.known.scores import fit_score
from effnet.planner.events import Counted
from effnet.planner.timetable import not_enough
from effnet.runtimes.onnxruntime.known import rewrite_with_score
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import RUNTIMES
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.known import ARRAYS, TITLES, KnownScore, Method, score_macs
from effnet.training.transfer.features import extract, make_extractor
from effnet.training.transfer.leave_one_out import LEAST_CLASSES, leave_one_out

# The most training images of a class whose features are computed.
_A_CLASS = 100
# Estimates of a hundred images of each of ten classes take this long on one core, about.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A deployed network with its score; `before` are its files without it, by their path."""

    deployed: Deployed
    choice: KnownChoice | None
    before: Mapping[Path, bytes]


def choose_known(bundle: Path, deployed: Deployed, dataset: Dataset, *, job: Job, mirror: bool) -> Scored:
    """Choose the score of the deployed network and put it into its files in `bundle`, if one is requested.

    Its parameters are of the features of the final weights. Those that would exceed the budget of size or MACs are left
    out. `mirror` is what the features of the head were computed with: they need not be computed again. Raises
    InputError for a requested score that cannot be.
    """
    asked, config = job.abstain.score, deployed.config
    if asked == "probability" or config.task_record.output.name != PROBABILITIES.name or config.specs:
        return Scored(deployed=deployed, choice=None, before={})
    why = _impossible(dataset, deployed, job)
    if why:
        job.say(why)
        return Scored(deployed=deployed, choice=_none(why, config.threshold), before={})
    job.say("Choosing the score that says unknown", heading=True)
    features, labels, groups = _features(deployed, dataset, job, mirror=mirror)
    left = leave_one_out(features, labels, groups=groups, seed=job.seed, progress=_progress(job))
    able = [name for name in TITLES if name in ARRAYS and (name != "sum" or left.scales)]
    scores = {name: fit_score(name, features, labels, scales=left.scales, seed=job.seed) for name in able}
    refused = _over_budget(scores, bundle, deployed, job)
    estimates = tuple(dataclasses.replace(each, left_out=refused.get(each.method, "")) for each in left.estimates)
    method: Method = choose_method(estimates, refused=refused)
    if asked != AUTO:
        method = next(name for name in TITLES if name == asked)
        if method not in (*able, "probability"):
            raise InputError(
                f"unknown_score sum needs at least {LEAST_CLASSES} classes of two training images: choose another"
            )
        if method in refused:
            raise InputError(f"unknown_score must meet the budget; with {method}, {refused[method]}: choose another")
    sentence = why_chosen(method, estimates, asked=asked != AUTO)
    job.say(sentence)
    if method == "probability":
        return Scored(deployed=deployed, choice=_none(sentence, config.threshold, estimates), before={})
    return _put(bundle, deployed, dataset, scores[method], estimates, sentence, job=job)


def without_score(found: Scored, bundle: Path, why: str) -> Scored:
    """Return the deployed network without its score, whose files get back what they were: `why` says why."""
    assert found.choice is not None
    for path, content in found.before.items():
        path.write_bytes(content)
    config = dataclasses.replace(found.deployed.config, known=None)
    write_config(config, bundle)
    estimates = tuple(
        dataclasses.replace(each, left_out=why if each.method == found.choice.method else each.left_out)
        for each in found.choice.estimates
    )
    deployed = dataclasses.replace(found.deployed, config=config)
    sentence = f"The largest probability decides: {why}."
    return Scored(deployed=deployed, choice=_none(sentence, config.threshold, estimates), before={})


def _none(sentence: str, threshold: float | None, estimates: tuple[Estimate, ...] = ()) -> KnownChoice:
    return KnownChoice(method="probability", estimates=estimates, sentence=sentence, threshold=threshold)


def _impossible(dataset: Dataset, deployed: Deployed, job: Job) -> str:
    """Return why no score can be chosen; empty if one can."""
    if deployed.config.preprocess.clip is not None:
        return "The largest probability decides which clips are unknown: scores are of single images."
    # A class of one image cannot be held out.
    able = int((np.bincount(dataset.train.labels, minlength=len(dataset.class_names)) > 1).sum())
    if job.abstain.score == AUTO and able < LEAST_CLASSES:
        return (
            f"The largest probability decides which images are unknown: a choice needs at least {LEAST_CLASSES} "
            f"classes of two training images, and there are {able}."
        )
    if job.deadline.limited:
        images = min(len(dataset.train), _A_CLASS * len(dataset.class_names))
        needs = job.pace.answer(images, cost(deployed.config.arch).macs) + _SECONDS
        left = job.deadline.left() - job.pace.finishing(dataset, cost(deployed.config.arch).macs)
        if left < needs:
            late = not_enough("The score that says unknown was not chosen", needs=needs, left=left)
            return f"{late}; the largest probability decides."
    return ""


def _features(
    deployed: Deployed, dataset: Dataset, job: Job, *, mirror: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the final network's features of at most _A_CLASS training images a class, their labels and groups."""
    config, rng = deployed.config, np.random.default_rng(job.seed)
    labels = dataset.train.labels
    kept = [rng.permutation(np.flatnonzero(labels == label))[:_A_CLASS] for label in np.unique(labels)]
    part = _part(dataset.train, np.sort(np.concatenate(kept)))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "backbone.onnx"
        extractor = make_extractor(config.arch, deployed.state, config.preprocess, path, mirror=mirror)
        found = extract(extractor, part, progress=_progress(job))
    names = [name or str(number) for number, name in enumerate(names_of(part))]
    groups = group_numbers([names[index] for index in found.indices], dataset.groups)
    return found.values, part.labels[found.indices], groups


def _part(split: Split, places: np.ndarray) -> Split:
    return Split(sources=[split.sources[int(place)] for place in places], labels=split.labels[places])


def _progress(job: Job):  # type: ignore[no-untyped-def]
    return lambda done, total: job.listener(Counted(label="choosing a score", done=done, total=total))


def _over_budget(scores: Mapping[Method, KnownScore], bundle: Path, deployed: Deployed, job: Job) -> dict[Method, str]:
    """Return the scores that the deployed file cannot have within the budget of size and MACs, and why."""
    if not RUNTIMES[deployed.format.runtime].scored:
        return {}
    config, found = deployed.config, dict[Method, str]()
    size, macs = deployed.format.size_bytes(bundle), cost(config.arch).macs
    for method, score in scores.items():
        figures = {
            "size_mb": (size + _size_of(score)) / 1e6,
            "macs": macs + score_macs(score, classes=config.arch.num_classes, channels=config.arch.feature_channels),
        }
        if failures := job.budget.failures(figures):
            found[method] = "; ".join(failures)
    return found


def _size_of(score: KnownScore) -> int:
    """Return the bytes of a score's arrays in a file."""
    return sum(
        array.size * (2 if np.array_equal(array.astype(np.float16), array) else 4) for array in score.arrays.values()
    )


def _put(
    bundle: Path,
    deployed: Deployed,
    dataset: Dataset,
    score: KnownScore,
    estimates: tuple[Estimate, ...],
    sentence: str,
    *,
    job: Job,
) -> Scored:
    """Put a score into the files of a bundle that can have it, with a threshold from the validation images."""
    holds = RUNTIMES[deployed.format.runtime].scored
    paths = list(dict.fromkeys([bundle / ONNX, *([deployed.path] if holds else [])]))
    before = {path: path.read_bytes() for path in paths}
    config = dataclasses.replace(deployed.config, known=score)
    for path in paths:
        rewrite_with_score(path, config)
    write_config(config, bundle)
    threshold, said = _threshold(bundle, deployed if holds else None, dataset, job)
    config = dataclasses.replace(config, known=dataclasses.replace(score, threshold=threshold))
    for path in paths:
        path.write_bytes(before[path])
        rewrite_with_score(path, config)  # the metadata have the threshold
    write_config(config, bundle)
    fallback = "" if holds else _fallback(deployed)
    if fallback:
        job.say(fallback)
    choice = KnownChoice(
        method=score.method,
        estimates=estimates,
        sentence=f"{sentence} {said}".strip(),
        threshold=threshold,
        size_bytes=paths[-1].stat().st_size - len(before[paths[-1]]) if holds else 0,
        macs=score_macs(score, classes=config.arch.num_classes, channels=config.arch.feature_channels) if holds else 0,
        fallback=fallback,
    )
    return Scored(deployed=dataclasses.replace(deployed, config=config), choice=choice, before=before)


def _fallback(deployed: Deployed) -> str:
    able = " and ".join(found.title for found in RUNTIMES.values() if found.scored)
    least = deployed.config.threshold
    decides = "it always answers" if least is None else f"the largest probability decides, with its threshold {least:g}"
    return (
        f"Files of {RUNTIMES[deployed.format.runtime].title} cannot return the score, those of {able} can: {decides}."
    )


def _threshold(bundle: Path, deployed: Deployed | None, dataset: Dataset, job: Job) -> tuple[float | None, str]:
    """Return the threshold of the score by the rule of the largest probability's, and a sentence on it."""
    aim = job.abstain.aim
    if not len(dataset.val):
        return None, ""
    name = "onnx" if deployed is None else deployed.format.name
    rows, indices = predict_split(Predictor(bundle, threads=job.config.threads, format=name), dataset.val, scored=True)
    costs = read_config(bundle).costs
    scores = rows[:, -1].astype(np.float64)
    found = choose_threshold(rows[:, :-1], dataset.val.labels[indices], costs=costs, scores=scores, **aim)
    return found, say_threshold(found, len(indices), **aim)
