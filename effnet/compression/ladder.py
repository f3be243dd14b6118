"""The quantization search: steps towards int8 in a fixed order, each verified in the real runtime."""

import dataclasses
import math
import time
from pathlib import Path

from effnet.bundle.formats import Precision
from effnet.compression.activations import standins, with_spec
from effnet.compression.prover import Proofs, figures
from effnet.compression.record import Ladder
from effnet.compression.step import Gate, Step, best_of, known
from effnet.compression.subject import Subject
from effnet.compression.tools import Tools, tools_of
from effnet.compression.trained_steps import ROUNDED_SPEED, TrainedSteps
from effnet.data.datasets import Dataset
from effnet.errors import DataError, EffnetError, InputError
from effnet.measurement.budget import Budget
from effnet.measurement.sample import calibration_images
from effnet.progress import Listener
from effnet.runtimes.registry import deployed_format
from effnet.runtimes.write import Calibration, Quantization
from effnet.system.bounds import MAX_THREADS, check_minutes, check_whole

AS_DEPLOYED = "as deployed"
_METHODS: tuple[Calibration, ...] = ("minmax", "percentile", "entropy")
# At most this share of the layers stays float: beyond it int8 has little left to speed up.
_MOST_FLOAT = 0.5
# Learning rates for batches of 32: replacing the activation needs a larger one than QAT.
_REPLACED_RATE, _ROUNDED_RATE = 1e-3, 2e-4


def climb(
    subject: Subject,
    dataset: Dataset,
    *,
    runtime: str,
    folder: Path,
    budget: Budget | None = None,
    precision: Precision | None = None,
    gate: Gate | None = None,
    threads: int = 1,
    train: bool = True,
    minutes: float | None = None,
    epochs: int | None = None,
    present: Path | None = None,
    pair_stem: bool = False,
    tools: Tools | None = None,
    listener: Listener = lambda event: None,
) -> Ladder:
    """Return the fastest artifact that meets the accuracy criterion, or the first that meets the budget as well.

    The steps: fp32; fp16 and weight-only int8, if the runtime has them; int8 with minmax, percentile or entropy
    calibration; full bias correction; cross-layer equalization; mixed precision, with the most sensitive layers float;
    with `train`, activation replacement and quantization-aware training (QAT). Each is scored on the validation images
    and timed in turns with the fp32 file, with `threads`, in the runtime itself. The search ends once its goal is met.
    Training images calibrate; test images do not influence the search.

    The accuracy of a detector or a segmenter is its task's figure, AP or mIoU, of which a step may lose `figure_drop`
    of the task if that is more than the gate says. It has no steps with training, which need a teacher.

    Everything is written in `folder`, where an interrupted search resumes; nothing else is written. After `minutes` no
    new step starts, and none trains for more than `epochs`. The deployed export of `present`, the subject's own bundle,
    is a step too, if this runtime runs it, so that a search never ends with a worse artifact. `pair_stem`, of
    Quantization, is for files that run here. Raises DataError without validation images or with other classes than the
    subject's, MissingExtraError if the runtime or the package that writes for it is not installed.
    """
    _check(subject, dataset, threads=threads, minutes=minutes)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    task, gate = subject.config.task_record, gate or Gate()
    if task.right is None:
        gate = dataclasses.replace(gate, max_drop=max(gate.max_drop, task.figure_drop))
    proofs = Proofs(
        dataset.val,
        calibration_images(dataset.train, subject.config.preprocess, class_names=dataset.class_names),
        runtime=runtime,
        folder=folder,
        gate=gate,
        threads=threads,
        balanced=bool(subject.config.balanced),
        parts=task.parts,
        figure=task.figure if task.right is None else None,
        pair_stem=pair_stem,
        tools=tools or tools_of(runtime),
        listener=listener,
    )
    climbing = _Climb(
        subject, dataset, proofs, runtime, budget or Budget(), precision, train=train, deadline=deadline, epochs=epochs
    )
    return climbing.go(present)


def _check(subject: Subject, dataset: Dataset, *, threads: int, minutes: float | None) -> None:
    """Raise DataError if the data cannot judge the subject, InputError for a wrong number."""
    if dataset.class_names != subject.config.class_names:
        raise DataError(
            f"the data set must have the network's {len(subject.config.class_names)} classes in its order; "
            f"{dataset.name} has {len(dataset.class_names)}, or other names: give the data that the network was "
            "trained on"
        )
    if not len(dataset.val):
        raise DataError(f"the accuracy drop is measured on validation images; {dataset.name} has none: add some")
    if minutes is not None:
        check_minutes(minutes)
    check_whole("threads", threads, least=0, most=MAX_THREADS)


class _Climb:
    """The order of the steps, and the end of the search."""

    def __init__(
        self,
        subject: Subject,
        dataset: Dataset,
        proofs: Proofs,
        runtime: str,
        budget: Budget,
        precision: Precision | None,
        *,
        train: bool,
        deadline: float | None,
        epochs: int | None,
    ) -> None:
        self.subject, self.dataset, self.proofs, self.runtime = subject, dataset, proofs, runtime
        self.budget, self.precision = budget, precision
        self.train, self.deadline = train, deadline
        self.training = TrainedSteps(subject, dataset, proofs, deadline=deadline, epochs=epochs)
        # Networks whose int8 loses too much accuracy with all layers quantized, and the best accuracy of such int8.
        self.failed: list[tuple[str, Subject, float]] = []

    def go(self, present: Path | None) -> Ladder:
        """Run the search."""
        proofs = self.proofs
        proofs.folder.mkdir(parents=True, exist_ok=True)
        self._begin()
        if present is not None:
            self._look_at(present)
        for climb_on in (self._store_smaller, self._round, self._replace, self._train_rounded):
            if not self._over():
                climb_on()
        best = self._best()
        rung = next(rung for rung in proofs.rungs if rung.step is best)
        return Ladder(
            runtime=self.runtime,
            budget=self.budget,
            precision=self.precision,
            gate=proofs.gate,
            steps=tuple(rung.step for rung in proofs.rungs),
            winner=best,
            quantization=rung.quantization,
            folder=proofs.folder_of(best.name),
            config=dataclasses.replace(rung.subject.config, deployed=best.format),
            state=rung.subject.state,
            changed=rung.subject is not self.subject,
            met=self._met(),
            sentence=self._sentence(best),
            tested=proofs.tested(best, self.dataset),
            sensitivity=proofs.sensitivity_of(rung.subject),
        )

    def _best(self) -> Step:
        return best_of(self.proofs.accepted, self.budget, self.proofs.gate, precision=self.precision)

    @property
    def _goal(self) -> bool:
        """Whether a budget or a precision is required; the search ends once it is met."""
        return bool(self.budget.asked() or self.precision)

    def _met(self) -> bool:
        return self._best().meets(self.budget, self.precision)

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _over(self) -> bool:
        """Return whether the search ends: the goal is met, or the time is over."""
        return (self._goal and self._met()) or self._late()

    def _begin(self) -> None:
        """Write and measure the fp32 artifact."""
        if not {"fp32", "int8"} <= set(self.proofs.formats):
            raise InputError(f"{self.runtime} has no fp32 and int8 formats that run here; name another runtime")
        step = self.proofs.attempt("fp32", "fp32", self.subject, done="fp32, as trained")
        if not step.accepted:
            raise EffnetError(f"the fp32 artifact is needed as the baseline; {step.reason}")

    def _look_at(self, present: Path) -> None:
        """Measure the deployed artifact, if it is one of this runtime other than fp32."""
        deployed = deployed_format(self.subject.config)
        here = deployed.runtime == self.runtime and deployed.precision != "fp32" and (present / deployed.file).exists()
        if here:
            self.proofs.attempt(
                AS_DEPLOYED, deployed.precision, self.subject, done="as deployed so far", present=present
            )

    def _store_smaller(self) -> None:
        """Try reduced-precision weights, which save size, and time only if the runtime computes in that precision.

        They are skipped if only int8 will do and there is a deadline, because they would take its time.
        """
        if self.precision == "int8" and self.deadline is not None:
            return
        self._if_any("fp16", "fp16 weights")
        self._if_any("bf16", "fp16 weights, bfloat16 arithmetic if the processor has it")
        if self.budget.size_mb is not None and not self._over():
            self._if_any("w8", "weight-only int8")

    def _if_any(self, precision: Precision, done: str) -> None:
        if precision in self.proofs.formats:
            self.proofs.attempt(precision, precision, self.subject, done=done)

    def _round(self) -> None:
        self._round_subject(self.subject, "int8")

    def _round_subject(self, subject: Subject, name: str) -> bool:
        """Try the ways to quantize all layers, then all but a few; return whether one met the accuracy criterion."""
        tried: list[tuple[float, Subject, Quantization]] = []

        def keeps(way: str, rounded: Subject, quantization: Quantization) -> bool:
            step = self.proofs.attempt(f"{name} {way}", "int8", rounded, quantization=quantization)
            tried.append((_known(step.judged), rounded, quantization))
            return step.kept

        for method in _METHODS:
            if keeps(method, subject, Quantization(method=method)):
                return True
            if self._late():
                return False
        method = _best(tried)[2].method
        if keeps(f"{method}, full bias correction", subject, Quantization(method=method, bias_correction="full")):
            return True
        equal = self.proofs.tools.equalize(subject, self.proofs.images)
        if equal is not None and keeps(f"{method}, equalized", equal, Quantization(method=method)):
            return True
        accuracy, best, quantization = _best(tried)
        self.failed.append((name, best, accuracy))
        return self._leave_float(best, name, quantization)

    def _leave_float(self, subject: Subject, name: str, quantization: Quantization) -> bool:
        """Leave the 1, 2, 4, ... most sensitive layers float, until the accuracy criterion is met."""
        if self._late():
            return False
        ranked, count = [layer for layer, _ in self.proofs.rank_layers(name, subject)], 1
        while count <= _MOST_FLOAT * len(ranked) and not self._late():
            label = f"{name} {quantization.method}, {count} {'layer' if count == 1 else 'layers'} float"
            plan = dataclasses.replace(quantization, float_layers=tuple(ranked[:count]))
            if self.proofs.attempt(label, "int8", subject, quantization=plan).kept:
                return True
            count *= 2
        return False

    def _replace(self) -> None:
        """Try other activations: first their speed, which needs no training, then the accuracy of faster ones."""
        if not self.train or (self.budget.latency_ms is None and self._goal):  # they do not reduce size
            return
        if self.training.cannot("replaced activation"):
            return
        paying = []
        for spec in standins(self.subject.config.arch):
            speed = self.proofs.speed_of(f"untrained {spec.activation}", with_spec(self.subject, spec))
            best = max(known(step.speed) for step in self.proofs.accepted)
            if speed is not None and speed >= best * (1 + self.proofs.gate.least_gain):
                paying.append((speed, spec))
            else:
                self._refuse_standin(spec.activation, speed, best)
        for _, spec in sorted(paying, key=lambda pair: -pair[0]):
            if self._over():
                return
            name = f"replaced {spec.activation}"
            if self.training.too_late(name, self.subject, spec, speed=1.0):
                continue
            changed = self.training.trained(name, self.subject, spec.activation, lr=_REPLACED_RATE)
            if self._round_subject(changed, f"{name} int8"):
                return

    def _refuse_standin(self, activation: str, speed: float | None, best: float) -> None:
        found = "cannot be made"
        if speed is not None:
            found = f"is {speed:.2f} times as fast as fp32, and {best:.2f} is already reached"
        step = Step(
            name=f"replaced {activation}",
            format=self.proofs.formats["int8"],
            done=f"{activation}, not trained",
            speed=speed,
            reason=f"not worth training: its int8 {found}",
        )
        self.proofs.add(step, self.subject, None)

    def _train_rounded(self) -> None:
        """Apply QAT to the networks whose int8 lost too much with all layers quantized, the latest first."""
        if not self.train or (self.failed and self.training.cannot("trained int8")):
            return
        for name, subject, accuracy in reversed(self.failed):
            if self._over():
                return
            label = f"trained {name}"
            if self.training.too_late(label, subject, subject.config.arch, speed=ROUNDED_SPEED):
                continue
            trained = self.training.trained(label, subject, "", lr=_ROUNDED_RATE)
            plan = Quantization()
            if self.proofs.attempt(label, "int8", trained, quantization=plan, must_beat=accuracy).accepted:
                return

    def _sentence(self, best: Step) -> str:
        """Return the result of the search, in one sentence."""
        found = f"{best.name} wins{figures(best)}"
        if not self._goal:
            return found
        limits = ", ".join(filter(None, (self.budget.in_words(), self.precision)))
        if self._met():
            return f"{found}; it meets the limits ({limits})"
        late = " in the time given" if self._late() else ""
        nearest = f"{best.name}{figures(best)}"
        return f"no step meets the limits ({limits}) and the accuracy criterion{late}; the nearest: {nearest}"


def _known(judged: float | None) -> float:
    """Return the accuracy or figure of a step; the least of all if it was not measured or is not defined."""
    return -math.inf if judged is None or math.isnan(judged) else judged


def _best(tried: list[tuple[float, Subject, Quantization]]) -> tuple[float, Subject, Quantization]:
    """Return the most accurate way to quantize; the first of equal ones."""
    return max(tried, key=lambda found: found[0])
