"""Training: one loop, resumable at any step, the same on CPU however often it is interrupted."""

import copy
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import EffnetError
from effnet.measure.machine import usable_cores
from effnet.nn.network import fuse_
from effnet.training.average import finish_average_, move_average_
from effnet.training.batches import cached_loader, held_out, num_batches, train_batches
from effnet.training.checkpoint import BEST, METRICS, Position, load_checkpoint_, save_checkpoint, save_tensors
from effnet.training.device import fast_arithmetic, memory_mb, pick_device, to_input
from effnet.training.distill import make_loss
from effnet.training.events import EpochEnd, Listener, Step
from effnet.training.journal import PICTURED_EPOCHS, Journal, open_journal
from effnet.training.losses import Batch, LossFn
from effnet.training.optim import make_optimizer
from effnet.training.recipe import Recipe
from effnet.training.schedule import learning_rate

CHECKPOINT_SECONDS = 20.0
# The confusion matrix of more classes than these is too large to look at.
_CONFUSED_CLASSES = 100


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


def freeze_norms_(model: nn.Module) -> None:
    """Has every norm use its statistics as they are, instead of those of the batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """How a network did on held-out pictures.

    `confusion` counts pictures, int64 [true class, predicted class]; None where there are more than 100 classes.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray | None


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
) -> Validated:
    """Returns mean cross-entropy, accuracy and confusion of `model`, in evaluation mode, on batches of uint8 images."""
    model.eval()
    loss = right = count = 0.0
    confusion = None
    for images, labels in batches:
        logits = model(to_input(images, preprocess, device))
        target = torch.from_numpy(labels).to(device)
        loss += functional.cross_entropy(logits, target, reduction="sum").item()
        predicted, classes = logits.argmax(1).cpu().numpy(), logits.shape[1]
        right += int((predicted == labels).sum())
        count += len(labels)
        if classes <= _CONFUSED_CLASSES:
            pairs = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
            confusion = pairs if confusion is None else confusion + pairs
    return Validated(loss=loss / count, accuracy=right / count, confusion=confusion)


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
    stops at the end of an epoch. Raises EffnetError where the loss is no longer finite.
    """
    run = _Run(model, dataset, recipe, preprocess, folder, loss_fn, listener, device or pick_device())
    with fast_arithmetic():
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
        listener: Listener | None,
        device: torch.device,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.dataset, self.recipe, self.preprocess, self.folder = dataset, recipe, preprocess, folder
        self.device = device
        self.loss_fn = loss_fn or make_loss(
            recipe, preprocess=preprocess, class_names=dataset.class_names, device=device
        )
        self.listener = listener or (lambda event: None)
        self.model = model.to(device, memory_format=torch.channels_last)
        if recipe.train.fused and device.type == "cpu":
            fuse_(self.model)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.model, recipe)
        self.load = cached_loader(dataset.train, preprocess)
        self.batches = num_batches(len(dataset.train), recipe.train.batch_size)
        self.val = held_out(dataset.val if len(dataset.val) else dataset.train, preprocess)
        self.position = (
            load_checkpoint_(folder, model=self.model, average=self.average, optimizer=self.optimizer) or Position()
        )
        self.saved = time.monotonic()

    def go(self, deadline_seconds: float | None) -> TrainResult:
        self.journal: Journal
        position = self.position
        self._rewrite_metrics()
        if self.recipe.train.start_counts and position.step == 0:
            self._score_start()
        # An epoch's results stand at the number of its last step; a checkpoint right after that step lacks them.
        purge_step = position.step + (position.batch < self.batches)
        with open_journal(self.folder, self.dataset.class_names, purge_step=purge_step) as self.journal:
            while not position.finished:
                self._train_epoch(deadline_seconds)
                row, confusion = self._end_epoch()
                self.journal.epoch(row, step=position.step)
                position.finished = self._verdict(deadline_seconds)
                better = position.best_epoch == position.epoch - 1  # its weights are on the disk, so this must be too
                if better:
                    self.journal.confusion(confusion, "best", step=position.step)
                if position.finished:
                    self.journal.confusion(confusion, "last", step=position.step)
                if better or position.finished or time.monotonic() - self.saved > CHECKPOINT_SECONDS / 4:
                    self._save()
                self.listener(row)
        self._load_best()
        return TrainResult(
            model=self.average,
            history=tuple(position.history),
            best_epoch=position.best_epoch + 1,
            stopped=position.finished,
            seconds=position.seconds,
            device=str(self.device),
        )

    def _score_start(self) -> None:
        """Makes the weights that training begins with its first result."""
        found = validate(self.average, self.val(), self.preprocess, self.device)
        self.position.best_score = (found.accuracy, -found.loss)
        save_tensors(self.average.state_dict(), self.folder / BEST)

    def _train_epoch(self, deadline_seconds: float | None) -> None:
        position, recipe = self.position, self.recipe
        total = recipe.train.epochs * self.batches
        batches = train_batches(
            self.load,
            self.dataset.train.labels,
            recipe,
            self.preprocess,
            epoch=position.epoch,
            start=position.batch,
            blocks=self.dataset.train.blocks,
            workers=max(1, usable_cores() // 2),
        )
        lap = time.perf_counter()
        for images, labels in batches:
            if position.batch == 0 and position.epoch < PICTURED_EPOCHS:
                self.journal.pictures(images, step=position.step + 1)
            rate = learning_rate(recipe, position.step, total_steps=total, epoch_steps=self.batches)
            loss = self._step(images, labels, rate)
            if not np.isfinite(loss):
                raise EffnetError(
                    f"the loss became {loss} at step {position.step + 1} of epoch {position.epoch + 1}, at learning "
                    f"rate {rate:.2g}; use a lower one. The last checkpoint is in {self.folder}"
                )
            now = time.perf_counter()
            position.seconds += now - lap
            position.epoch_seconds += now - lap
            lap = now
            position.batch += 1
            position.step += 1
            position.loss_sum += loss * len(labels)
            position.images += len(labels)
            self._tell(loss, rate, total)
            if deadline_seconds is not None and position.seconds > deadline_seconds:
                return
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self._save()

    def _step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> float:
        # Dropout and drop-path draw from a generator that depends on the step alone: a resumed run draws alike.
        torch.manual_seed(self.recipe.train.seed * 1_000_003 + self.position.step)
        self.model.train()
        batch = Batch(
            images=to_input(images, self.preprocess, self.device),
            labels=torch.from_numpy(labels).to(self.device),
        )
        if self.recipe.train.frozen_norms:
            freeze_norms_(self.model)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss_fn(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.train.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.train.clip_norm)
        self.optimizer.step()
        move_average_(self.average, self.model, self.recipe.train, step=self.position.step, batch=self.position.batch)
        return loss.item()

    def _tell(self, loss: float, rate: float, total: int) -> None:
        position = self.position
        speed = position.images / max(position.epoch_seconds, 1e-9)
        history = position.history
        event = Step(
            epoch=position.epoch + 1,
            epochs=self.recipe.train.epochs,
            step=position.step,
            total_steps=total,
            loss=loss,
            val_accuracy=history[-1]["val_accuracy"] if history else None,
            images_per_second=speed,
            seconds_left=position.seconds / position.step * (total - position.step),
            learning_rate=rate,
            memory_mb=memory_mb(self.device),
        )
        self.journal.step(event)
        self.listener(event)

    def _end_epoch(self) -> tuple[EpochEnd, np.ndarray | None]:
        position = self.position
        start = time.perf_counter()
        finish_average_(self.average, self.model, self.recipe.train, steps=position.step, batches=position.batch)
        found = validate(self.average, self.val(), self.preprocess, self.device)
        took = time.perf_counter() - start
        position.seconds += took
        seconds = position.epoch_seconds + took
        row = EpochEnd(
            epoch=position.epoch + 1,
            loss=position.loss_sum / max(1, position.images),
            val_loss=found.loss,
            val_accuracy=found.accuracy,
            # Not the optimiser's own: one that was resumed right here has not been told it yet.
            learning_rate=learning_rate(
                self.recipe,
                position.step - 1,
                total_steps=self.recipe.train.epochs * self.batches,
                epoch_steps=self.batches,
            ),
            seconds=seconds,
            images_per_second=position.images / max(position.epoch_seconds, 1e-9),
        )
        score = (found.accuracy, -found.loss)
        if score > position.best_score:
            position.best_score, position.best_epoch, position.last_better = (
                score,
                position.epoch,
                position.epoch,
            )
            save_tensors(self.average.state_dict(), self.folder / BEST)
        position.history.append(asdict(row))
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        position.epoch += 1
        position.batch, position.loss_sum, position.images, position.epoch_seconds = 0, 0.0, 0, 0.0
        return row, found.confusion

    def _verdict(self, deadline_seconds: float | None) -> str:
        """Returns why training is over, or an empty text."""
        position, recipe = self.position, self.recipe
        if position.epoch >= recipe.train.epochs:
            return f"finished {recipe.train.epochs} epochs"
        if recipe.train.patience and position.epoch - 1 - position.last_better >= recipe.train.patience:
            return f"no better validation result for {recipe.train.patience} epochs"
        if deadline_seconds is not None and position.seconds > deadline_seconds:
            return f"out of time after epoch {position.epoch} of {recipe.train.epochs}"
        return ""

    def _save(self) -> None:
        self.journal.flush()  # before: what the checkpoint knows is not drawn again
        save_checkpoint(self.folder, self.position, model=self.model, average=self.average, optimizer=self.optimizer)
        self.saved = time.monotonic()

    def _rewrite_metrics(self) -> None:
        """Drops lines of epochs that the checkpoint does not know of: they will be trained again."""
        path = self.folder / METRICS
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.position.history), encoding="utf-8")
        os.replace(temporary, path)

    def _load_best(self) -> None:
        import safetensors.torch

        self.average.load_state_dict(safetensors.torch.load_file(self.folder / BEST))
