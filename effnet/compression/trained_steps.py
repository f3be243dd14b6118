"""The steps of the quantization search that train, with the fp32 network as teacher."""

import dataclasses
import time

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import WEIGHTS
from effnet.bundle.weights import load_state, write_arrays
from effnet.compression.activations import standins, with_spec
from effnet.compression.kept import keep_record, kept_record, own_folder, subject_key
from effnet.compression.prover import Proofs
from effnet.compression.recovery import recovery_epochs, recovery_recipe, save_teacher
from effnet.compression.step import Step
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.training.speed import train_speed

# The share of the remaining time that one training may take, and the speed of QAT relative to plain training.
_TIME_SHARE, ROUNDED_SPEED = 0.5, 0.5


class TrainedSteps:
    """What can be trained in the remaining time, and the networks that were.

    No training begins after `deadline`, of time.monotonic, and none has more than `epochs`.
    """

    def __init__(
        self, subject: Subject, dataset: Dataset, proofs: Proofs, *, deadline: float | None, epochs: int | None
    ) -> None:
        self.subject, self.dataset, self.proofs = subject, dataset, proofs
        self.deadline, self.epochs = deadline, epochs

    def cannot(self, name: str) -> bool:
        """Return whether the network has no training with a teacher, and record the step that is left out."""
        if self.subject.config.arch.decoder is None:
            return False
        reason = "left out: a detector or a segmenter learns from annotations, not from its fp32 network"
        step = Step(name=name, format=self.proofs.formats["int8"], done="not trained", reason=reason)
        self.proofs.add(step, self.subject, None)
        return True

    def too_late(self, name: str, subject: Subject, spec: ArchSpec, *, speed: float) -> bool:
        """Return whether the remaining time is too short for one epoch of training, and record it as a step.

        `speed` is relative to training the plain network. A training that has started resumes.
        """
        if self.deadline is None or self.proofs.folder_of(f"{name} weights").exists():
            return False
        needs = len(self.dataset.train) / (speed * train_speed(spec))
        left = _TIME_SHARE * max(0.0, self.deadline - time.monotonic())
        if needs <= left:
            return False
        reason = f"not trained: an epoch takes about {needs:.0f} s, and {left:.0f} s are left for it"
        step = Step(name=name, format=self.proofs.formats["int8"], done="not trained", reason=reason)
        self.proofs.add(step, subject, None)
        return True

    def trained(self, name: str, subject: Subject, activation: str, *, lr: float) -> Subject:
        """Return the subject trained with another activation or, without one, with QAT; reuse a finished training."""
        tools, dataset = self.proofs.tools, self.dataset
        folder = own_folder(self.proofs.folder_of(f"{name} weights"), subject_key(subject) + self.proofs.key)
        spec = subject.config.arch
        if activation:
            spec = next(found for found in standins(spec) if found.activation == activation)
        if kept_record(folder, "trained") is not None:
            return dataclasses.replace(with_spec(subject, spec), state=load_state(folder))
        teacher = save_teacher(self.subject, own_folder(self.proofs.folder / "teacher", subject_key(self.subject)))
        seconds = None if self.deadline is None else max(1.0, _TIME_SHARE * (self.deadline - time.monotonic()))
        recipe = recovery_recipe(
            dataset,
            subject.config.preprocess,
            epochs=1,
            teacher=teacher,
            lr=lr,
            balanced=subject.config.balanced,
        )
        epochs = recovery_epochs(
            len(dataset.train),
            batch_size=recipe.train.batch_size,
            images_per_second=train_speed(spec) * (1.0 if activation else ROUNDED_SPEED),
            minutes=None if seconds is None else seconds / 60,
            most=self.epochs,
        )
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs))
        how = f"Training with {activation}" if activation else "Quantization-aware training"
        self.proofs.say(f"{how} for {epochs} epochs, with the fp32 network as teacher")
        run, listener = folder / "run", self.proofs.listener
        if activation:
            found = tools.train_replaced(
                subject, spec, dataset, recipe, folder=run, listener=listener, deadline_seconds=seconds
            )
        else:
            found = tools.train_rounded(
                subject, dataset, self.proofs.images, recipe, folder=run, listener=listener, deadline_seconds=seconds
            )
        write_arrays(found.state, folder / WEIGHTS, metadata={"format": "pt"})
        keep_record(folder, "trained", {})
        return found
