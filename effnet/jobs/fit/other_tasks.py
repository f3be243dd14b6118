"""What a fit cannot do for the task of its data."""

import dataclasses

from effnet.arch.decoders.record import Detector, Segmenter
from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.jobs.fit.deploy.costs import costed
from effnet.jobs.fit.job import Job
from effnet.measurement.classification.calibration import Abstain
from effnet.tasks.registry import find_task

_PRECISIONS = ("auto", "fp32", "fp16", "int8")


def _check_network(network: ArchSpec, dataset: Dataset) -> None:
    """Raise InputError if the network to train answers another task than that of the data; a backbone answers none."""
    kind = {"detection": Detector, "segmentation": Segmenter}.get(dataset.task)
    if kind is None and network.decoder is not None:
        raise InputError(
            f"the network must be a classifier, as these data have classes alone; {network.name} has a decoder: name "
            "one of `effnet models list --task classification`"
        )
    if kind is not None and network.decoder is not None and not isinstance(network.decoder, kind):
        raise InputError(
            f"the network must answer the task of these data, {dataset.task}; {network.name} does not: name one that "
            "does, or a backbone such as b0, which gets a decoder"
        )


def check_answers(job: Job, dataset: Dataset) -> None:
    """Raise InputError for options of a fit that the task of its data does not have."""
    costed(dataset, job.config.cost)
    if job.network is not None:
        _check_network(job.network, dataset)
    answers = find_task(dataset.task)
    wrong: list[str] = []
    if answers.whole is not None:
        wrong += _lacked_in_images(job)
    elif not answers.pretrained:
        if job.network is None and job.config.weights != "none" and job.strategy != "scratch":
            wrong.append("weights must be none: only classifiers are fitted on the features of pretrained weights")
        if job.asked.value("loss.teacher"):
            wrong.append("loss.teacher must be empty: only classifiers learn from a teacher")
    if not answers.calibrated and answers.whole is None:
        precisions = job.target.precisions(job.budget)
        if precisions != ("fp32",):
            wrong.append("precision must be fp32: a lower precision is judged by the accuracy of classifiers")
        if job.abstain != Abstain():
            wrong.append("coverage, max_error and unknown_* must be left out: only classifiers abstain")
        if job.config.trials:
            wrong.append("trials must be 0: they compare the accuracy of classifiers")
    if answers.whole is not None and job.abstain != Abstain():
        wrong.append("coverage, max_error and unknown_* must be left out: only classifiers abstain")
    balances = answers.balanced_figure is not None or answers.bind is not None  # several outputs check the method
    if not balances and job.asked.value("balance.method") not in (None, "none"):
        wrong.append("balance must be none: only classes are balanced")
    if wrong:
        raise InputError(f"the task of these data is {answers.title}; {'; '.join(wrong)}")


def _lacked_in_images(job: Job) -> list[str]:
    """Return what is wrong with the options of a detector or a segmenter."""
    wrong = []
    if job.strategy == "head":
        wrong.append("strategy must be auto, finetune or scratch: there is no linear probe of boxes or masks")
    if job.config.resize != "auto":
        wrong.append("fit.resize must be auto: images are shown whole, at the top left of the input, or in windows")
    if job.target.precision not in _PRECISIONS:
        wrong.append(f"precision must be one of {', '.join(_PRECISIONS)}; got {job.target.precision}")
    if getattr(job.config, "search", "off") != "off":
        wrong.append("fit.search must be off: it compares the accuracy of classifiers; use --set fit.trials=8")
    if job.asked.value("masks.scale") and job.budget.latency_ms is not None:
        wrong.append("masks.scale must be 0 with a latency budget: in windows the network runs several times an image")
    if job.target.profile:
        wrong.append("device must be left out: profiles predict classifiers")
    return wrong


def without_unasked_trials(job: Job, dataset: Dataset) -> Job:
    """Return the job without the trials that a long fit has, if the task of its data is not one of classes alone.

    Tasks without probabilities have none; detectors and segmenters have the requested ones.
    """
    answers = find_task(dataset.task)
    if job.config.trials is not None or (answers.calibrated and answers.whole is None):
        return job
    return dataclasses.replace(job, config=dataclasses.replace(job.config, trials=0))
