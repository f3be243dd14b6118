"""Finalists: assembled networks with their scores, before and after a recovery by distillation."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from effnet.bundle.config import read_config, write_text
from effnet.bundle.names import CONFIG
from effnet.bundle.weights import load_state, save_bundle
from effnet.compression.norm_statistics import rebased, sample_batches
from effnet.compression.recovery import network_of, recover, recovery_recipe
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.errors import DataError
from effnet.nas.assemble.score import logits_of
from effnet.planner.events import Listener
from effnet.system.files import read_json
from effnet.system.records import from_data, to_data
from effnet.training.device import to_input
from effnet.training.input.batches import eval_batches

_BEFORE, _AFTER, _SCORE = "before", "after", "score.json"
# The learning rate for each nat of divergence, and its bounds: a network that answers almost as its teacher forgets at
# a rate that others need. At 0.1 nats, 1e-3 takes 9 points of accuracy in an epoch (Lite0, CIFAR-10), 1e-4 adds one.
_RATE_A_NAT, _RATES = 1e-3, (1e-4, 1e-3)
_TEMPERATURE = 2.0
# With fewer images, batch statistics would only add noise to those computed once before training.
_ENOUGH_FOR_STATISTICS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of an assembled network.

    `parts` are its changes in words, `summed` the sum of the scores of each alone; `divergence` is that of the whole
    network, not yet trained, from the teacher, in nats. `figures` are verified, `predicted` summed up. `val_loss` and
    `val_accuracy` are those after a short recovery, None before it.
    """

    resolution: int
    parts: tuple[str, ...]
    summed: float
    divergence: float
    predicted: Mapping[str, float]
    figures: Mapping[str, float]
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finalist:
    """An assembled network and its scores."""

    subject: Subject
    scores: Scores


def keep_subject(subject: Subject, folder: Path) -> None:
    """Keep a network in `folder`; it counts as finished once it is complete."""
    save_bundle(folder, subject.config, subject.state)


def kept_subject(folder: Path) -> Subject | None:
    """Return the network that an interrupted search has kept in `folder`; None if there is none."""
    if not (folder / CONFIG).is_file():
        return None
    return Subject(config=read_config(folder), state=load_state(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The recovery of assembled networks: short trainings with the same teacher, a bundle, and the same images."""

    teacher: Path
    dataset: Dataset
    seed: int
    listener: Listener

    def recovered(self, subject: Subject, *, divergence: float, epochs: int, folder: Path) -> Subject:
        """Return the network after `epochs` of training in `folder`, or as an interrupted search has trained it.

        BatchNorm statistics are computed again first. `divergence` is that of the network before any training.
        """
        if (done := kept_subject(folder / _AFTER)) is not None:
            return done
        before = kept_subject(folder / _BEFORE)
        if before is None:
            preprocess = subject.config.preprocess
            images = (batch.images for batch in sample_batches(self.dataset.train, preprocess, seed=self.seed))
            before = dataclasses.replace(subject, state=rebased(network_of(subject), images))
            keep_subject(before, folder / _BEFORE)
        recipe = recovery_recipe(
            self.dataset, before.config.preprocess, epochs=epochs, teacher=self.teacher,
            lr=min(max(_RATES[0], _RATE_A_NAT * divergence), _RATES[1]), temperature=_TEMPERATURE,
            frozen_norms=len(self.dataset.train) < _ENOUGH_FOR_STATISTICS, balanced=before.config.balanced,
            seed=self.seed,
        )  # fmt: skip
        state = recover(
            network_of(before), before, self.dataset, recipe, folder=folder / "train", listener=self.listener
        )
        after = dataclasses.replace(before, state=state)
        keep_subject(after, folder / _AFTER)
        return after

    def judged(self, finalist: Finalist, *, epochs: int, folder: Path) -> Finalist:
        """Return the finalist after a short recovery in `folder`, with its scores on the validation images."""
        divergence = finalist.scores.divergence
        subject = self.recovered(finalist.subject, divergence=divergence, epochs=epochs, folder=folder)
        path = folder / _SCORE
        if path.is_file():
            return Finalist(subject=subject, scores=from_data(Scores, read_json(path), where=str(path)))
        loss, accuracy = validated(subject, self.dataset)
        scores = dataclasses.replace(finalist.scores, val_loss=loss, val_accuracy=accuracy)
        write_text(path, json.dumps(to_data(scores)) + "\n")
        return Finalist(subject=subject, scores=scores)


def validated(subject: Subject, dataset: Dataset) -> tuple[float, float]:
    """Return the cross-entropy and the accuracy on the validation images, or without any on the training images."""
    split = dataset.val if len(dataset.val) else dataset.train
    network, preprocess = network_of(subject), subject.config.preprocess
    count, loss, right = 0, 0.0, 0
    for images, indices in eval_batches(split, preprocess):
        labels = torch.from_numpy(split.labels[indices])
        logits = logits_of(network, [to_input(images, preprocess, torch.device("cpu"))])
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    if not count:
        raise DataError("a search needs readable images to compare networks; none can be read")
    return loss / count, right / count
