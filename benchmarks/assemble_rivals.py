"""The teacher of assemble_gain, its rivals of the same latency, and the latency of networks relative to the teacher."""

import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effnet.arch.channels import keep_from, kept_spec, tied_widths
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.compression.importance import Importance, taylor_importance
from effnet.compression.norm_statistics import rebased, right_answers, sample_batches
from effnet.compression.prune import Pruned, prune, vector_width
from effnet.compression.reconstruct import reconstructed
from effnet.compression.recovery import network_of, save_teacher
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.measurement.profile.table import LinearModel, fit_latency
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.nas.assemble.alternatives import alternatives, assembled_spec
from effnet.nas.assemble.assemble import at_resolution
from effnet.nas.assemble.calibration import calibration
from effnet.nas.assemble.figures import Kept
from effnet.nas.assemble.finalist import Recovery, keep_subject, kept_subject
from effnet.nas.assemble.score import divergence, logits_of
from effnet.planner.events import Listener
from effnet.planner.settings import finetune_recipe
from effnet.runtimes.untrained import write_graph
from effnet.system.files import read_json
from effnet.training.device import to_input
from effnet.training.input.batches import eval_batches
from effnet.training.loop import train
from effnet.training.losses import Batch, cross_entropy
from effnet.training.recipe.schema import Recipe, Train
from effnet.training.state.state import network_for
from effnet.training.transfer.head import train_head
from effnet.weights.morph import transfer
from effnet.weights.pretrained import adapted, load_pretrained

# Networks that the predictor of latency is fitted to; rounds of a comparison with the teacher, and their seconds.
_PROFILED, _ROUNDS, _SECONDS = 24, 3, 0.15
# Networks are measured and corrected at most this often until they use this share of the budget.
_TRIES, _ENOUGH = 6, 0.97
_SMOOTHING, _IMAGES = 0.1, 512


class Timer:
    """Latencies in ms, measured in turns with one network, the base: on a busy machine only ratios hold."""

    def __init__(self, base: ArchSpec, folder: Path) -> None:
        self.base, self.folder = base, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "base").mkdir(exist_ok=True)
        self.path = write_graph(base, folder / "base", runtime="onnxruntime", precision="fp32")
        absolute = Kept(self._absolute, folder / "base.json")
        self.base_ms = absolute(base)["latency_ms"]
        self.measure = Kept(self._measure, folder / "measured.json")
        self._model: LinearModel | None = None

    def _absolute(self, spec: ArchSpec) -> Mapping[str, float]:
        return {"latency_ms": Stopwatch().measure(self.path).counts.latency_ms}

    def _measure(self, spec: ArchSpec) -> Mapping[str, float]:
        if spec == self.base:
            return {"latency_ms": self.base_ms}
        (self.folder / "other").mkdir(exist_ok=True)
        path = write_graph(spec, self.folder / "other", runtime="onnxruntime", precision="fp32")
        found = Stopwatch().compare(self.path, path, rounds=_ROUNDS, seconds=_SECONDS)
        return {"latency_ms": found.ratio * self.base_ms}

    def predict(self, spec: ArchSpec) -> Mapping[str, float]:
        """Return the latency from a model that is fitted to random networks of the same space, measured once."""
        if self._model is None:
            path = self.folder / "profile.json"
            if not path.is_file():
                specs = self._profiled()
                rows = [(spec_to_dict(each), self.measure(each)["latency_ms"]) for each in specs]
                path.write_text(json.dumps(rows), encoding="utf-8")
            rows = [(spec_from_dict(data), ms) for data, ms in read_json(path)]
            self._model = fit_latency([spec for spec, _ in rows], [ms for _, ms in rows])
        return {"latency_ms": self._model.predict(spec)}

    def _profiled(self) -> list[ArchSpec]:
        rng, specs = random.Random(0), [self.base]
        wanted = alternatives(self.base, round_to=vector_width())
        while len(specs) < _PROFILED:
            share, side = rng.random(), round(self.base.resolution * rng.choice((1, 1, rng.uniform(0.6, 1))) / 2) * 2
            choice = {part: rng.choice(found) for part, found in wanted.items() if rng.random() < share}
            # The first block of a stage stays.
            choice = {part: found for part, found in choice.items() if not (found.dropped and part.endswith(".0"))}
            # Rivals are narrower between blocks too: without such networks, theirs are predicted 45 to 75 % too slow.
            found = assembled_spec(self.base, choice) if len(specs) % 2 else _narrowed(self.base, rng)
            specs.append(dataclasses.replace(found, resolution=side))
        return specs


def _narrowed(spec: ArchSpec, rng: random.Random) -> ArchSpec:
    """Return a network of which each layer keeps a random share of its channels."""
    widths: dict[str, tuple[int, ...]] = {}
    for tie in tied_widths(spec):
        count = max(vector_width(), round(rng.uniform(0.3, 1) * tie.channels / vector_width()) * vector_width())
        widths |= dict.fromkeys(tie.widths, tuple(range(min(count, tie.channels))))
    return kept_spec(spec, keep_from(spec, widths))


def make_teacher(
    weights: str, dataset: Dataset, *, side: int, epochs: int, seed: int, folder: Path, listener: Listener
) -> Subject:
    """Return the pretrained Lite0 for images of `side` pixels, fine-tuned; kept in `folder`."""
    if (done := kept_subject(folder / "fine-tuned")) is not None:
        return done
    found = adapted(load_pretrained(weights), num_classes=len(dataset.class_names), in_channels=3, resolution=side)
    config = ModelConfig(arch=found.spec, preprocess=found.preprocess, class_names=dataset.class_names)
    network = network_of(Subject(config=config, state=found.state))

    def features(split: Split) -> np.ndarray:
        with torch.inference_mode():
            rows = [
                network.forward_head(network.forward_features(images), pre_logits=True).numpy()
                for images in normalised(split, config.preprocess)
            ]
        return np.concatenate(rows)

    head = train_head(
        features(dataset.train), dataset.train.labels, num_classes=len(dataset.class_names),
        val_features=features(dataset.val), val_labels=dataset.val.labels,
    )  # fmt: skip
    recipe = finetune_recipe(
        Recipe(train=Train(seed=seed)), config.preprocess, num_train=len(dataset.train), epochs=epochs, folded=True
    )
    tuned = network_for(found.spec, recipe)
    state = found.state | {"classifier.weight": head.weight, "classifier.bias": head.bias}
    load_arrays_(tuned, state, where=weights)
    trained = train(tuned, dataset, recipe, config.preprocess, folder=folder / "fine-tuning", listener=listener)
    teacher = Subject(config=config, state=state_arrays(trained.model))
    keep_subject(teacher, folder / "fine-tuned")
    return teacher


def normalised(split: Split, preprocess: Preprocess) -> Iterator[Tensor]:
    """Yield the images of a split, normalised, in batches."""
    for images, _ in eval_batches(split, preprocess):
        yield to_input(images, preprocess, torch.device("cpu"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """Three ways to a network that takes at most `limit_ms`: pruning, uniformly narrower layers, smaller images."""

    teacher: Subject
    dataset: Dataset
    timer: Timer
    limit_ms: float
    epochs: int
    seed: int
    folder: Path
    listener: Listener

    def timed(self, name: str, make: Callable[[], Subject]) -> tuple[Subject, float]:
        """Return a made network and the processor seconds; both are kept."""
        folder = self.folder / name.replace(" ", "-")
        done = kept_subject(folder / "made")
        if done is None:
            start = time.process_time()
            done = make()
            keep_subject(done, folder / "made")
            (folder / "seconds").write_text(str(time.process_time() - start), encoding="utf-8")
        return done, float((folder / "seconds").read_text(encoding="utf-8"))

    def right_answers(self, name: str, subject: Subject) -> np.ndarray:
        """Return whether a network is right on each test image, bool [images]; kept."""
        path = self.folder / f"{name.replace(' ', '-')}.npy"
        if not path.is_file():
            np.save(path, right_answers(network_of(subject), self.dataset.test, subject.config))
        return np.load(path)

    def pruned(self) -> Subject:
        """Return the network pruned in two steps, as `effnet prune` does it, with half of the epochs after each."""
        base = self.timer.base_ms
        half = self._pruned(self.teacher, (base * self.limit_ms) ** 0.5, verified=False)
        first = self._recovered(half, epochs=self.epochs // 2, name="pruned-1")
        whole = self._pruned(first, self.limit_ms, verified=True)
        return self._recovered(whole, epochs=self.epochs - self.epochs // 2, name="pruned-2")

    def _pruned(self, subject: Subject, limit_ms: float, *, verified: bool) -> Subject:
        importance = self._importance(subject)

        def at(limit: float) -> Pruned:
            return prune(
                subject.config.arch, importance=importance, limit=limit, round_to=vector_width(),
                measure=lambda spec: self.timer.predict(spec)["latency_ms"],
            )  # fmt: skip

        found = self._largest(at, limit_ms) if verified else at(limit_ms)
        return self._refitted(subject, found)

    def narrower(self) -> Subject:
        """Return the network of which every layer keeps the same share of its channels, the most important ones."""
        spec, importance = self.teacher.config.arch, self._importance(self.teacher)
        base = self.timer.predict(spec)["latency_ms"]

        def kept(share: float) -> Pruned:
            widths = {}
            for tie in tied_widths(spec):
                count = max(vector_width(), round(share * tie.channels / vector_width()) * vector_width())
                best = np.argsort(-importance.channels[tie.name], kind="stable")[: min(count, tie.channels)]
                widths |= dict.fromkeys(tie.widths, tuple(sorted(best.tolist())))
            keep = keep_from(spec, widths)
            return Pruned(spec=kept_spec(spec, keep), keep=keep)

        def at(limit: float) -> Pruned:
            shares = np.linspace(1.0, 0.2, 161)
            fits = (kept(share) for share in shares)
            return next(found for found in fits if self.timer.predict(found.spec)["latency_ms"] <= limit)

        assert base > self.limit_ms
        found = self._largest(at, self.limit_ms)
        return self._recovered(self._refitted(self.teacher, found), epochs=self.epochs, name="narrower")

    def smaller_images(self) -> Subject:
        """Return the whole network at the largest resolution, an even number of pixels, that meets the budget."""
        spec = self.teacher.config.arch
        for side in range(spec.resolution, 8, -2):
            smaller = dataclasses.replace(spec, resolution=side)
            if self.timer.predict(smaller)["latency_ms"] > 1.1 * self.limit_ms:
                continue
            if self.timer.measure(smaller)["latency_ms"] <= self.limit_ms:
                return self._recovered(at_resolution(self.teacher, side), epochs=self.epochs, name="smaller-images")
        raise AssertionError("no resolution meets the budget")

    def _largest(self, at: Callable[[float], Pruned], limit_ms: float) -> Pruned:
        """Return the network of the largest predicted limit that is measured within `limit_ms`."""
        best, best_ms, limit = None, 0.0, limit_ms
        for _ in range(_TRIES):
            found = at(limit)
            took = self.timer.measure(found.spec)["latency_ms"]
            if best_ms < took <= limit_ms:
                best, best_ms = found, took
            if _ENOUGH * limit_ms <= took <= limit_ms:
                break
            limit *= 0.985 * limit_ms / took
        assert best is not None, "no network was measured within the budget"
        return best

    def _importance(self, subject: Subject) -> Importance:
        network = network_of(dataclasses.replace(subject, state=self._rebased(subject)))
        return taylor_importance(network, self._images(subject), cross_entropy(_SMOOTHING))

    def _rebased(self, subject: Subject) -> dict[str, np.ndarray]:
        return rebased(network_of(subject), (batch.images for batch in self._images(subject)))

    def _images(self, subject: Subject) -> Iterator[Batch]:
        return sample_batches(self.dataset.train, subject.config.preprocess, seed=self.seed)

    def _refitted(self, subject: Subject, found: Pruned) -> Subject:
        state = self._rebased(subject)
        moved = transfer(state, source=subject.config.arch, target=found.spec, keep=found.keep)
        changed = Subject(config=dataclasses.replace(subject.config, arch=found.spec), state=moved)
        whole = network_of(dataclasses.replace(subject, state=state))
        images = (batch.images for batch in self._images(subject))
        return dataclasses.replace(changed, state=reconstructed(whole, network_of(changed), found.keep, images))

    def _recovered(self, subject: Subject, *, epochs: int, name: str) -> Subject:
        """Return the network after the same recovery as an assembled one's: its rate follows from the divergence."""
        images = calibration(subject, self.teacher, self.dataset.train, count=_IMAGES, seed=self.seed)
        before = divergence(images.score_logits, logits_of(network_of(subject), images.score))
        recovery = Recovery(
            teacher=save_teacher(self.teacher, self.folder / "teacher"), dataset=self.dataset, seed=self.seed,
            listener=self.listener,
        )  # fmt: skip
        return recovery.recovered(subject, divergence=before, epochs=epochs, folder=self.folder / "rivals" / name)
