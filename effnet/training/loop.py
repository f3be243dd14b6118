"""The training loop: resumable at any step, with identical results on CPU however often it is interrupted."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import EffnetError
from effnet.nn.kernels.library import find_kernels
from effnet.progress import EpochEnd, Listener, Noted, Step
from effnet.system.lock import alone_in
from effnet.system.signals import Interrupt, held_interrupts
from effnet.tasks.registry import find_task
from effnet.training.checks import check_run
from effnet.training.device import fast_arithmetic, memory_mb, pick_device, to_input
from effnet.training.distributed.ranks import ALONE, Met, Ranks
from effnet.training.failures import check_finite, exploded, give_up
from effnet.training.input.batches import batch_images
from effnet.training.input.shares import Portions
from effnet.training.learning import Learning, Validated, learning_of, own_input
from effnet.training.log.run_files import Records
from effnet.training.losses import LossFn
from effnet.training.memory.shortage import shortage_told
from effnet.training.optim.ema import finish_average_, move_average_
from effnet.training.optim.norms import precise_norms
from effnet.training.optim.schedule import learning_rate
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe
from effnet.training.state.checkpoint import begin_together_
from effnet.training.state.position import CHECKPOINT_SECONDS, Position
from effnet.training.state.state import make_state, set_dropout_, wants_kernels
from effnet.training.step import Stepped, Stepper

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The averaged weights of the best epoch, and the history of the run.

    `best_epoch` counts from 1; 0 means the initial weights, if train.start_counts is set and no epoch was better.
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
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,
    learning: Learning | None = None,
) -> TrainResult:
    """Train `model` in place and return the averaged weights that scored best on the validation split.

    Checkpoints (every `checkpoint_seconds`), metrics.jsonl and TensorBoard events go to `folder`; if it holds a
    checkpoint of the same run, training resumes from it, on CPU to exactly the same weights. After `deadline_seconds`
    of training the epoch is cut short, validated, and training stops. On Ctrl-C, and in the command on SIGTERM and
    SIGHUP, it saves a checkpoint and raises KeyboardInterrupt.

    Several processes share the steps if each makes this call, with its own `ranks`; the weights, checkpoint and clock
    of the first count, only it writes files, and only its `listener` is called. `learning` replaces that of the data's
    task; it may have a `figure` of its own.

    Raises EffnetError if numbers are no longer finite or the loss explodes, with advice; InputError if another process
    trains in `folder`, or the recipe does not suit the network.
    """
    device = device or ranks.device or pick_device()
    listener = listener if listener and ranks.main else lambda event: None
    with ExitStack() as stack, ranks.together():
        learning = learning or learning_of(dataset)
        for sentence in check_run(model, dataset, recipe, learning, processes=ranks.size):
            listener(Noted(text=sentence))
        if ranks.main:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_in(folder))
        stack.enter_context(fast_arithmetic())
        run = _Run(
            model, dataset, recipe, preprocess, folder, loss_fn, listener, device, ranks, checkpoint_seconds, learning
        )
        return run.go(deadline_seconds)


class _Run:
    """The state and the steps of one training run."""

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
        ranks: Ranks,
        checkpoint_seconds: float,
        learning: Learning,
    ) -> None:
        self.dataset, self.recipe, self.preprocess, self.folder = dataset, recipe, preprocess, folder
        self.device, self.listener, self.ranks = device, listener, ranks
        self.learning = learning
        self.figure = getattr(learning, "figure", None) or find_task(dataset.task).figure
        self.state = make_state(model, recipe, device, ranks)
        if wants_kernels(model, recipe, device, ranks) and (note := find_kernels().note):
            self._note(note)
        loss_fn = loss_fn or self.learning.loss_of(dataset, recipe, preprocess=preprocess, device=device)
        self.guessed_loss = self.learning.guessed_loss(dataset)
        self.stepper = Stepper(self.state, recipe, preprocess, loss_fn, device, ranks)
        self.portions = Portions(dataset, recipe, preprocess, ranks, own_input(self.learning))
        self.batches = self.portions.num_batches
        self.val, self.precise = self.portions.validation(), self.portions.precise()
        self.position = Position()
        self.interrupt, self.clock = Interrupt(), time.perf_counter()
        keep = recipe.train.keep_checkpoints
        self.records = Records(folder, dataset.class_names, keep=keep, main=ranks.main)
        self.checkpoint_seconds, self.saved = checkpoint_seconds, time.monotonic()

    def _note(self, text: str) -> None:
        self.listener(Noted(text=text))

    def go(self, deadline_seconds: float | None) -> TrainResult:
        position = self.position = begin_together_(self.folder, self.state, self.ranks, say=self._note)
        if position.extend(self.recipe.train.epochs):
            self._note(self._goes_on())
        self.records.begin(position)
        if self.recipe.train.start_counts and position.step == 0:
            self._score_start()
        with held_interrupts() as self.interrupt, self.records.opened(position, batches=self.batches):
            while not position.finished:
                self._epoch(deadline_seconds)
            best = self.records.best()
            self._end_where(self.ranks.meet(asked=self.interrupt.asked))
        self.state.average.load_state_dict(self.ranks.tell(best))
        return TrainResult(
            model=self.state.average,
            history=tuple(position.history),
            best_epoch=position.best_epoch + 1,
            stopped=position.finished,
            seconds=position.seconds,
            device=str(self.device),
        )

    def _goes_on(self) -> str:
        """Return the message for a run that is resumed with more epochs than it began with."""
        position, epochs = self.position, self.recipe.train.epochs
        return (
            f"Continuing after epoch {position.epoch} up to {epochs}: from here on the learning rate is that of a run "
            f"of {epochs} epochs, now {self._rate(position.step):.2g}"
        )

    def _epoch(self, deadline_seconds: float | None) -> None:
        position = self.position
        try:
            with shortage_told(self.recipe, self.preprocess, epoch=position.epoch):
                self._train_epoch(deadline_seconds)
                row, found = self._end_epoch()
        except KeyboardInterrupt:
            # The first Ctrl-C was held until the end of a step; a second one may have interrupted a step.
            if self.interrupt.asked and not self.interrupt.insisted:
                self._save()
            raise
        self.records.epoch(row, step=position.step)
        position.finished = position.verdict(self.recipe, deadline_seconds)
        better = position.best_epoch == position.epoch - 1  # its weights are on the disk, so the checkpoint must be too
        last = bool(position.finished)
        self.records.images(found, step=position.step, best=better, last=last)
        if better or last or time.monotonic() - self.saved > self.checkpoint_seconds / 4:
            self._save()
        self.listener(row)

    def _lap(self, met: Met) -> float:
        """Return the seconds since the last lap, by the first process's clock."""
        before, self.clock = self.clock, met.clock
        return max(0.0, self.clock - before)  # a clock that is set back must not extend the deadline

    def _end_where(self, met: Met) -> None:
        """End the run if any process got a Ctrl-C, as soon as all processes know."""
        self.interrupt.asked |= met.asked
        if met.asked or self.ranks.size == 1:
            self.interrupt.check()

    def _unless_asked(self, items: Iterable[Item]) -> Iterable[Item]:
        """Return the items, cut short by a Ctrl-C; several processes finish all of them, since they end together."""
        return self.interrupt.between(items) if self.ranks.size == 1 else items

    def _score_start(self) -> None:
        """Validate the initial weights and record them as the first best."""
        found = self.learning.validate(self.state.average, self.val(), self.preprocess, self.device, self.ranks)
        self.position.best_score = found.score(self.recipe)
        self.records.keep_best(self.state.average)

    def _train_epoch(self, deadline_seconds: float | None) -> None:
        position, model, average = self.position, self.state.model, self.state.average
        recipe = recipe_at(self.recipe, position.epoch)
        if self.recipe.stages:
            set_dropout_(model, recipe.model.dropout)
        self.clock = self.ranks.meet().clock
        for images, labels in self.portions.batches(recipe, position):
            self.records.add_images(images, position)
            rate, count = self._rate(position.step), self._num_images(position.batch)
            stepped = self.stepper.step(
                images,
                labels,
                recipe,
                number=position.step,
                rate=rate,
                share=self.portions.share(count),
                asked=lambda: self.interrupt.asked,
            )
            if stepped.culprit:
                raise self._give_up(stepped, self.ranks.gather((images, labels)), recipe, rate)
            move_average_(average, model, recipe.train, step=position.step, batch=position.batch)
            position.advance(stepped.loss, images=count, seconds=self._lap(stepped.met))
            late = deadline_seconds is not None and position.seconds > deadline_seconds
            if late or position.batch == self.batches:  # before a checkpoint can be written: once an epoch
                finish_average_(average, model, recipe.train, steps=position.step, batches=position.batch)
            self._tell(stepped.loss, rate)
            if position.watch(stepped.loss, guessed=self.guessed_loss):
                raise exploded(position, recipe=recipe, rate=rate)
            self._end_where(stepped.met)
            if late:
                return
            if time.monotonic() - self.saved > self.checkpoint_seconds:
                self._save()

    def _give_up(
        self, stepped: Stepped, batches: Sequence[tuple[np.ndarray, np.ndarray]], recipe: Recipe, rate: float
    ) -> EffnetError:
        """Return the error to raise on the first process, and let the others know of it."""
        if not self.ranks.main:
            self.ranks.meet()
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return give_up(
            stepped,
            images,
            labels,
            state=self.state,
            position=self.position,
            recipe=recipe,
            rate=rate,
            folder=self.folder,
        )

    def _num_images(self, batch: int) -> int:
        return batch_images(len(self.dataset.train), self.recipe.train.batch_size, batch)

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
            val=self.figure.in_words(history[-1][f"val_{self.figure.key}"]) if history else "",
            images_per_second=position.images_per_second,
            seconds_left=position.seconds / position.step * (total - position.step),
            learning_rate=rate,
            memory_mb=memory_mb(self.device),
        )
        self.records.step(event)
        self.listener(event)

    def _end_epoch(self) -> tuple[EpochEnd, Validated]:
        """Validate the averaged weights, save them if they are the best so far, and count the epoch."""
        position, average = self.position, self.state.average
        speed = position.images_per_second
        with self._precise_norms():
            images = self._unless_asked(self.val())
            found = self.learning.validate(average, images, self.preprocess, self.device, self.ranks)
            check_finite(found, position=position, recipe=self.recipe)
            met = self.ranks.meet(asked=self.interrupt.asked)
            self._end_where(met)
            position.spend(self._lap(met))
            score = found.score(self.recipe)
            if score > position.best_score or self.recipe.train.last_counts:
                position.best_score, position.best_epoch = score, position.epoch
                position.last_better = position.epoch
                self.records.keep_best(average)
        row = EpochEnd(
            epoch=position.epoch + 1,
            loss=position.loss_sum / max(1, position.images),
            val_loss=found.loss,
            figures=found.figures,
            words=found.words,
            # Not read from the optimiser: right after resuming, its rate is not set yet.
            learning_rate=self._rate(position.step - 1),
            seconds=position.epoch_seconds,
            images_per_second=speed,
        )
        position.history.append(row.to_row())
        self.records.metrics(row)
        position.next_epoch()
        return row, found

    def _precise_norms(self) -> AbstractContextManager:
        """Return a context in which the averaged network has the BatchNorm statistics that the recipe requests."""
        if self.precise is None:
            return nullcontext()
        batches = (to_input(images, self.preprocess, self.device) for images, _ in self.precise())
        return precise_norms(self.state.average, self._unless_asked(batches), self.ranks)

    def _save(self) -> None:
        self.records.save(self.position, self.state)
        self.saved = time.monotonic()
