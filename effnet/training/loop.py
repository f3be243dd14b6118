"""Training: one loop, resumable at any step, the same on CPU however often it is interrupted."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.measure.machine import usable_cores
from effnet.training.average import finish_average_, move_average_
from effnet.training.batches import cached_loader, held_out, num_batches, train_batches
from effnet.training.checkpoint import BEST, load_checkpoint_, save_checkpoint
from effnet.training.checks import check_run
from effnet.training.device import fast_arithmetic, memory_mb, pick_device, to_input
from effnet.training.distill import make_loss
from effnet.training.events import EpochEnd, Listener, Noted, Step
from effnet.training.failures import check_finite, exploded, give_up
from effnet.training.interrupt import Interrupt, held_interrupts
from effnet.training.journal import PICTURED_EPOCHS, open_journal
from effnet.training.lock import alone_in
from effnet.training.losses import LossFn
from effnet.training.memory import evaluation_batch
from effnet.training.metrics import append_metrics, rewrite_metrics
from effnet.training.norms import precise_norms
from effnet.training.position import Position
from effnet.training.progressive import recipe_at, resolution_at
from effnet.training.recipe import Recipe
from effnet.training.schedule import learning_rate
from effnet.training.shortage import shortage_told
from effnet.training.state import make_state, set_dropout_
from effnet.training.step import Stepper
from effnet.training.tensorfile import save_tensors
from effnet.training.validate import validate

CHECKPOINT_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The averaged weights of the best epoch, and how they came about.

    `best_epoch` counts from 1; 0 are the weights that training began with, where they count and nothing was better.
    """

    model: nn.Module
    history: tuple[dict[str, Any], ...]
    best_epoch: int
    stopped: str
    seconds: float
    device: str


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    folder: Path,
    loss_fn: LossFn | None = None,
    listener: Listener | None = None,
    device: torch.device | None = None,
    deadline_seconds: float | None = None,
) -> TrainResult:
    """Trains `model` in place and returns the averaged weights that did best on the validation split.

    Checkpoints, metrics.jsonl and TensorBoard events go to `folder`; where it holds a checkpoint of the same
    run, training goes on from there, on CPU to the very same weights. Past `deadline_seconds` of training it
    stops at the end of an epoch. At Ctrl-C it saves a checkpoint and raises KeyboardInterrupt.

    Raises EffnetError where numbers are no longer finite or the loss explodes, with what to do; InputError where
    another run is in `folder`, or the recipe does not suit the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listener = listener or (lambda event: None)
    for sentence in check_run(model, dataset, recipe):
        listener(Noted(text=sentence))
    with alone_in(folder), fast_arithmetic():
        run = _Run(model, dataset, recipe, preprocess, folder, loss_fn, listener, device or pick_device())
        return run.go(deadline_seconds)


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        recipe: Recipe,
        preprocess: Preprocess,
        folder: Path,
        loss_fn: LossFn | None,
        listener: Listener,
        device: torch.device,
    ) -> None:
        self.dataset, self.recipe, self.preprocess, self.folder = dataset, recipe, preprocess, folder
        self.device, self.listener = device, listener
        self.state = make_state(model, recipe, device)
        loss_fn = loss_fn or make_loss(recipe, preprocess=preprocess, class_names=dataset.class_names, device=device)
        self.stepper = Stepper(self.state, recipe, preprocess, loss_fn, device)
        self.load, self.load_preprocess = cached_loader(dataset.train, preprocess), preprocess
        self.batches = num_batches(len(dataset.train), recipe.train.batch_size)
        val = dataset.val if len(dataset.val) else dataset.train
        self.val = held_out(val, preprocess, batch_size=evaluation_batch(recipe))
        self.precise = self._precise_pictures()
        self.position = load_checkpoint_(folder, self.state, say=self._note) or Position()
        self.interrupt, self.journal = Interrupt(), None
        self.saved = time.monotonic()

    def _precise_pictures(self) -> Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]] | None:
        count, split = self.recipe.train.precise_norms, self.dataset.train
        if not count:
            return None
        chosen = np.random.default_rng(self.recipe.train.seed).permutation(len(split))[:count]
        part = Split(sources=[split.sources[i] for i in chosen], labels=split.labels[chosen])
        return held_out(part, self.preprocess, batch_size=evaluation_batch(self.recipe))

    def _note(self, text: str) -> None:
        self.listener(Noted(text=text))

    def go(self, deadline_seconds: float | None) -> TrainResult:
        position = self.position
        rewrite_metrics(self.folder, position.history)
        if self.recipe.train.start_counts and position.step == 0:
            self._score_start()
        # An epoch's results stand at the number of its last step; a checkpoint right after that step lacks them.
        purge_step = position.step + (position.batch < self.batches)
        journal = open_journal(self.folder, self.dataset.class_names, purge_step=purge_step)
        with held_interrupts() as self.interrupt, journal as self.journal:
            while not position.finished:
                self._epoch(deadline_seconds)
            self.interrupt.check()
        self._load_best()
        return TrainResult(
            model=self.state.average,
            history=tuple(position.history),
            best_epoch=position.best_epoch + 1,
            stopped=position.finished,
            seconds=position.seconds,
            device=str(self.device),
        )

    def _epoch(self, deadline_seconds: float | None) -> None:
        position = self.position
        try:
            with shortage_told(self.recipe, self.preprocess, epoch=position.epoch):
                self._train_epoch(deadline_seconds)
                row, confusion = self._end_epoch()
        except KeyboardInterrupt:
            # The first Ctrl-C was held until between two steps; a second one may have cut a step in half.
            if self.interrupt.asked and not self.interrupt.insisted:
                self._save()
            raise
        self.journal.epoch(row, step=position.step)
        position.finished = position.verdict(self.recipe, deadline_seconds)
        better = position.best_epoch == position.epoch - 1  # its weights are on the disk, so this must be too
        if better:
            self.journal.confusion(confusion, "best", step=position.step)
        if position.finished:
            self.journal.confusion(confusion, "last", step=position.step)
        if better or position.finished or time.monotonic() - self.saved > CHECKPOINT_SECONDS / 4:
            self._save()
        self.listener(row)

    def _score_start(self) -> None:
        """Makes the weights that training begins with its first result."""
        found = validate(self.state.average, self.val(), self.preprocess, self.device)
        self.position.best_score = (found.accuracy, -found.loss)
        save_tensors(self.state.average.state_dict(), self.folder / BEST)

    def _train_epoch(self, deadline_seconds: float | None) -> None:
        position, model, average = self.position, self.state.model, self.state.average
        recipe = recipe_at(self.recipe, position.epoch)
        if self.recipe.stages:
            set_dropout_(model, recipe.model.dropout)
        lap = time.perf_counter()
        for images, labels in self._batches(recipe):
            if position.batch == 0 and position.epoch < PICTURED_EPOCHS:
                self.journal.pictures(images, step=position.step + 1)
            rate = self._rate(position.step)
            stepped = self.stepper.step(images, labels, recipe, number=position.step, rate=rate)
            if stepped.culprit:
                raise give_up(
                    stepped,
                    images,
                    labels,
                    state=self.state,
                    position=position,
                    recipe=recipe,
                    rate=rate,
                    folder=self.folder,
                )
            move_average_(average, model, recipe.train, step=position.step, batch=position.batch)
            now = time.perf_counter()
            position.advance(stepped.loss, images=len(labels), seconds=now - lap)
            lap = now
            late = deadline_seconds is not None and position.seconds > deadline_seconds
            if late or position.batch == self.batches:  # before a checkpoint can be written: once an epoch
                finish_average_(average, model, recipe.train, steps=position.step, batches=position.batch)
            self._tell(stepped.loss, rate)
            if position.watch(stepped.loss, num_classes=len(self.dataset.class_names)):
                raise exploded(position, recipe=recipe, rate=rate)
            self.interrupt.check()
            if late:
                return
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self._save()

    def _batches(self, recipe: Recipe) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields what is left of this epoch's batches, at the resolution that the epoch has."""
        side = resolution_at(self.recipe, self.position.epoch, final=self.preprocess.resolution)
        preprocess = dataclasses.replace(self.preprocess, resolution=side)
        if preprocess != self.load_preprocess:  # pictures are kept no larger than this resolution needs them
            self.load, self.load_preprocess = cached_loader(self.dataset.train, preprocess), preprocess
        return train_batches(
            self.load,
            self.dataset.train.labels,
            recipe,
            preprocess,
            epoch=self.position.epoch,
            start=self.position.batch,
            blocks=self.dataset.train.blocks,
            workers=max(1, usable_cores() // 2),
        )

    def _rate(self, step: int) -> float:
        total = self.recipe.train.epochs * self.batches
        return learning_rate(self.recipe, step, total_steps=total, epoch_steps=self.batches)

    def _tell(self, loss: float, rate: float) -> None:
        position, epochs = self.position, self.recipe.train.epochs
        total, history = epochs * self.batches, position.history
        event = Step(
            epoch=position.epoch + 1,
            epochs=epochs,
            step=position.step,
            total_steps=total,
            loss=loss,
            val_accuracy=history[-1]["val_accuracy"] if history else None,
            images_per_second=position.images_per_second,
            seconds_left=position.seconds / position.step * (total - position.step),
            learning_rate=rate,
            memory_mb=memory_mb(self.device),
        )
        self.journal.step(event)
        self.listener(event)

    def _end_epoch(self) -> tuple[EpochEnd, np.ndarray | None]:
        """Validates the averaged weights, keeps them where they are the best, and counts the epoch."""
        position, average = self.position, self.state.average
        start, speed = time.perf_counter(), position.images_per_second
        with self._precise_norms():
            found = validate(average, self.interrupt.between(self.val()), self.preprocess, self.device)
            check_finite(found, position=position, recipe=self.recipe)
            position.spend(time.perf_counter() - start)
            score = (found.accuracy, -found.loss)
            if score > position.best_score:
                position.best_score, position.best_epoch = score, position.epoch
                position.last_better = position.epoch
                save_tensors(average.state_dict(), self.folder / BEST)
        row = EpochEnd(
            epoch=position.epoch + 1,
            loss=position.loss_sum / max(1, position.images),
            val_loss=found.loss,
            val_accuracy=found.accuracy,
            # Not the optimiser's own: one that was resumed right here has not been told it yet.
            learning_rate=self._rate(position.step - 1),
            seconds=position.epoch_seconds,
            images_per_second=speed,
        )
        position.history.append(asdict(row))
        append_metrics(self.folder, asdict(row))
        position.next_epoch()
        return row, found.confusion

    def _precise_norms(self) -> AbstractContextManager:
        """Returns a context in which the averaged network has the statistics that the recipe asks for."""
        if self.precise is None:
            return nullcontext()
        batches = (to_input(images, self.preprocess, self.device) for images, _ in self.precise())
        return precise_norms(self.state.average, self.interrupt.between(batches))

    def _save(self) -> None:
        self.journal.flush()  # before: what the checkpoint knows is not drawn again
        save_checkpoint(self.folder, self.position, self.state, keep=self.recipe.train.keep_checkpoints)
        self.saved = time.monotonic()

    def _load_best(self) -> None:
        import safetensors.torch

        self.state.average.load_state_dict(safetensors.torch.load_file(self.folder / BEST))
