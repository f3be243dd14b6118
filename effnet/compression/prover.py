"""Run one step of the quantization search: write, score, time and judge it, or reuse its finished result."""

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import write_config
from effnet.bundle.formats import Precision
from effnet.compression.kept import images_key, keep_record, kept_record, subject_key
from effnet.compression.step import Gate, Step, judge
from effnet.compression.subject import Sensitivity, Subject
from effnet.compression.tools import Tools, copy_export, size_mb
from effnet.data.datasets import Dataset, Split
from effnet.errors import EffnetError, MissingExtraError
from effnet.measurement.acceptance import FigureDrop
from effnet.measurement.classification.recall import by_class
from effnet.measurement.paired import paired, share_right
from effnet.measurement.speed.stopwatch import Compared
from effnet.progress import Listener, Noted
from effnet.runtimes.registry import by_precision, find_format, find_runtime
from effnet.runtimes.write import Quantization
from effnet.system.machine import versions
from effnet.tasks.task import Figure

# Of the comparison of a step with the fp32 artifact.
_ROUNDS, _ROUND_SECONDS = 4, 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rung:
    """A step with its network and quantization settings."""

    step: Step
    subject: Subject
    quantization: Quantization | None


class Proofs:
    """The steps of one search so far; the first is the fp32 artifact, the baseline of all others."""

    def __init__(
        self,
        val: Split,
        images: np.ndarray,
        *,
        runtime: str,
        folder: Path,
        gate: Gate,
        threads: int,
        tools: Tools,
        listener: Listener,
        balanced: bool = False,
        parts: Sequence[tuple[str, int]] = (),
        pair_stem: bool = False,
        figure: Figure | None = None,
    ) -> None:
        self.val, self.images, self.folder = val, images, folder
        self.gate, self.threads, self.tools, self.listener = gate, threads, tools, listener
        self.formats = {precision: found.name for precision, found in by_precision(runtime).items()}
        self.pair_stem = pair_stem and find_runtime(runtime).mlas
        self.key = images_key(val, images) + repr((threads, sorted(versions().items())))
        self.parts = parts  # of several outputs (Task.parts)
        self.labels = val.labels if balanced and not parts else None  # with them, all classes weigh the same
        self.rungs: list[Rung] = []
        self.ranked: list[tuple[Subject, Sensitivity]] = []
        self.right = np.empty(0, dtype=bool)  # the fp32 artifact's correct predictions
        # Of a task without right answers: the figure that decides, the fp32 artifact's, and the time outside the file.
        self.figure, self.base_figure, self.outside_ms = figure, 0.0, 0.0

    @property
    def accepted(self) -> list[Step]:
        """The steps that meet the accuracy criterion and improve speed or size."""
        return [rung.step for rung in self.rungs if rung.step.accepted]

    def say(self, text: str) -> None:
        """Send a note to the listener."""
        self.listener(Noted(text=text))

    def folder_of(self, name: str) -> Path:
        """Return the folder of a step's files."""
        return self.folder / re.sub(r"[^a-z0-9]+", "-", name.lower())

    def attempt(
        self,
        name: str,
        precision: Precision,
        subject: Subject,
        *,
        done: str = "",
        quantization: Quantization | None = None,
        must_beat: float | None = None,
        present: Path | None = None,
    ) -> Step:
        """Write, score and time one artifact, and report the result.

        With `present`, a bundle's folder, the artifact exists there already. One that cannot be written for the runtime
        is refused with the reason; raises MissingExtraError if a package is missing.
        """
        started = time.monotonic()
        quantization = self._for_here(quantization)
        step = Step(name=name, format=self.formats[precision], done=done or _in_words(quantization))
        try:
            step = self._measured(step, subject, quantization, present)
        except MissingExtraError:
            raise
        except EffnetError as error:
            step = dataclasses.replace(step, reason=f"it cannot be made: {error}")
        else:
            kept, accepted, reason = True, True, "the baseline of all other steps"
            if self.rungs:
                kept, accepted, reason = judge(step, self.accepted, self.gate, must_beat=must_beat)
            step = dataclasses.replace(step, kept=kept, accepted=accepted, reason=reason)
        return self.add(dataclasses.replace(step, seconds=time.monotonic() - started), subject, quantization)

    def _measured(self, step: Step, subject: Subject, quantization: Quantization | None, present: Path | None) -> Step:
        folder, first = self.folder_of(step.name), not self.rungs
        key = f"{subject_key(subject)} {self.key} {step.format} {quantization}"
        found = kept_record(folder, key) if present is None else None
        if found is None:
            if present is None:
                path = self._write(step.name, step.format, subject, quantization)
            else:
                path = copy_export(step.format, present, folder)
                write_config(subject.config, folder)
            scored = self._scored(folder, step.format, first=first)
            timed = self._compared(path if first else self._base(), path)
            found = scored | {
                "latency_ms": timed.second.latency_ms,
                "base_ms": (timed.second if first else timed.first).latency_ms,
                "speed": 1.0 if first else timed.speed,
                "size_mb": size_mb(folder, step.format),
                "memory_mb": timed.second.memory_mb,
            }
            keep_record(folder, key, found)
        # Records of searches that an older effnet started have no memory.
        figures: dict[str, Any] = {
            name: found.get(name) for name in ("latency_ms", "base_ms", "speed", "size_mb", "memory_mb")
        }
        return dataclasses.replace(step, **figures | self._judged(found, first=first))

    def _scored(self, folder: Path, target: str, *, first: bool) -> dict[str, Any]:
        """Return the right answers of an artifact or, of a task that has none, its figure; as JSON-able data."""
        if self.figure is None:
            return {"right": self.tools.answer(folder, target, self.val, self.threads).astype(int).tolist()}
        scored = {"figure": self.tools.figure(folder, target, self.val, self.threads)}
        return scored | ({"outside_ms": self.tools.outside(folder, target, self.val, self.threads)} if first else {})

    def _judged(self, found: dict[str, Any], *, first: bool) -> dict[str, Any]:
        """Return the fields of a step that compare it with the first one, from its record."""
        if self.figure is not None:
            if first:
                self.base_figure, self.outside_ms = found["figure"], found["outside_ms"]
            base, after = self.base_figure, found["figure"]
            lost = FigureDrop(images=len(self.val), figure=self.figure, before=base, after=after)
            # The latency of an answer, and the speed of the whole, contain the time outside the file.
            latency, base_ms = (found[name] + self.outside_ms for name in ("latency_ms", "base_ms"))
            speed = base_ms / (found["base_ms"] / found["speed"] + self.outside_ms)
            return {"lost": lost, "latency_ms": latency, "base_ms": base_ms, "speed": speed}
        right = np.array(found["right"], dtype=np.int8 if self.parts else bool)
        if first:
            self.right = right
        return {
            "accuracy": share_right(right),
            "balanced_accuracy": self._balanced(right, self.val),
            "paired": paired(self.right, right, labels=self.labels, parts=self.parts),
        }

    def speed_of(self, name: str, subject: Subject) -> float | None:
        """Return the speed of an untrained network's int8 relative to the fp32 artifact; None if it cannot be made."""
        target, key = self.formats["int8"], f"{subject_key(subject)} {self.key} speed"
        found = kept_record(self.folder_of(name), key)
        if found is None:
            try:
                path = self._write(name, target, subject, self._for_here(Quantization()))
            except MissingExtraError:
                raise
            except EffnetError:
                return None
            found = {"speed": self._compared(self._base(), path).speed}
            keep_record(self.folder_of(name), key, found)
        return found["speed"]

    def rank_layers(self, name: str, subject: Subject) -> Sensitivity:
        """Return the layers of a network by their sensitivity to quantization, the most sensitive first."""
        folder, key = self.folder_of(f"{name} sensitivity"), f"{subject_key(subject)} {self.key} sensitivity"
        found = kept_record(folder, key)
        if found is None:
            self.say("Ranking the layers by their sensitivity to quantization")
            found = {"layers": self.tools.rank_layers(subject, self.images)}
            folder.mkdir(parents=True, exist_ok=True)
            keep_record(folder, key, found)
        ranked = tuple((layer, harm) for layer, harm in found["layers"])
        self.ranked.append((subject, ranked))
        return ranked

    def sensitivity_of(self, subject: Subject) -> Sensitivity:
        """Return the ranking of this network's layers or, without one, the first ranking; empty without any."""
        own = [ranking for ranked, ranking in self.ranked if ranked is subject]
        return next(iter(own or [ranking for _, ranking in self.ranked]), ())

    def add(self, step: Step, subject: Subject, quantization: Quantization | None) -> Step:
        """Keep a step, and report its result."""
        self.rungs.append(Rung(step=step, subject=subject, quantization=quantization))
        self.say(f"{step.name}: {'accepted' if step.accepted else 'refused'}{figures(step)}; {step.reason}")
        return step

    def tested(self, best: Step, dataset: Dataset) -> dict[str, Any]:
        """Return the accuracy of the first artifact and of `best` on the test images; empty without any."""
        if not len(dataset.test):
            return {}
        if self.figure is not None:
            fp32, winner = (
                self.tools.figure(self.folder_of(step.name), step.format, dataset.test, self.threads)
                for step in (self.rungs[0].step, best)
            )
            lost = FigureDrop(images=len(dataset.test), figure=self.figure, before=fp32, after=winner).to_dict()
            return {"fp32": lost["before"], "winner": lost["after"], "lost": lost}
        first, last = (
            self.tools.answer(self.folder_of(step.name), step.format, dataset.test, self.threads)
            for step in (self.rungs[0].step, best)
        )
        test = dataset.test
        labels = None if self.labels is None else test.labels
        return {
            "fp32": share_right(first),
            "winner": share_right(last),
            "fp32_balanced": self._balanced(first, test),
            "winner_balanced": self._balanced(last, test),
            "paired": paired(first, last, labels=labels, parts=self.parts).to_dict(),
        }

    def _balanced(self, right: np.ndarray, split: Split) -> float:
        """Return the mean recall of the classes; of several outputs, the share of right answers."""
        return share_right(right) if self.parts else by_class(right, split.labels).balanced_accuracy

    def _for_here(self, quantization: Quantization | None) -> Quantization | None:
        return quantization and dataclasses.replace(quantization, pair_stem=self.pair_stem)

    def _write(self, name: str, target: str, subject: Subject, quantization: Quantization | None) -> Path:
        images = self.images if find_format(target).precision == "int8" else None
        return self.tools.write(target, self.folder_of(name), subject, images, quantization)

    def _compared(self, base: Path, path: Path) -> Compared:
        return self.tools.stopwatch.compare(base, path, threads=self.threads, rounds=_ROUNDS, seconds=_ROUND_SECONDS)

    def _base(self) -> Path:
        return self.folder_of("fp32") / find_format(self.formats["fp32"]).file


def _in_words(quantization: Quantization | None) -> str:
    """Return an int8 artifact's quantization settings in words."""
    if quantization is None:
        return ""
    text = f"int8, {quantization.method} calibration, {quantization.bias_correction} bias correction"
    return text + (f", float: {', '.join(quantization.float_layers)}" if quantization.float_layers else "")


def figures(step: Step) -> str:
    """Return a step's measurements for a sentence, after a comma; empty if it was not measured."""
    if not step.shown:
        return ""
    speed = f"{step.speed:.2f} times as fast as fp32"
    if step.base_ms != step.latency_ms:
        speed += f", which took {step.base_ms:.3g} ms"
    return f", {step.shown}, {step.latency_ms:.3g} ms ({speed}), {step.size_mb:.3g} MB"
