"""The training of pretrain: its images, its recipe, its network with a projector, and the resumed run."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.bundle.weights import load_arrays_
from effnet.data.datasets import Dataset, Split, read_dataset
from effnet.data.inspection.unlabelled import read_unlabelled
from effnet.data.preprocess import Preprocess
from effnet.data.sources.folder import list_images
from effnet.data.view.crop import size_at
from effnet.errors import ImageError, InputError
from effnet.jobs.pretrain.config import PretrainConfig
from effnet.nn.network import Network, build, fuse_
from effnet.planner.events import Counted, Said
from effnet.system.files import read_json
from effnet.system.options import options_of, repeated
from effnet.system.text import printable
from effnet.training.pretraining.learning import PairLearning, TeacherNetwork
from effnet.training.pretraining.model import Byol, Distilled, Pretraining, SimClr
from effnet.training.pretraining.views import Look, PairInput
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Augment, Optimizer, Recipe, Schedule, Train
from effnet.training.speed import train_speed
from effnet.weights.adapt import Arrays, has_folded_norms
from effnet.weights.pretrained import Pretrained, adapted, load_backbone

OPTIONS = "pretrain-options.json"
_SMALL_SIDE, _SMALL_TEMPERATURE, _TEMPERATURE = 64, 0.5, 0.1
# Fang et al. 2021, section 4.1.
_STUDENT_TEMPERATURE, _TEACHER_TEMPERATURE = 0.2, 0.01
_BATCH, _RATE, _EPOCHS, _MOST_EPOCHS = 64, 5e-4, 10, 1000
_HELD_OUT, _MOST_HELD_OUT, _LEAST_IMAGES, _SAMPLED = 0.05, 500, 8, 64
# Two views of an image, and their augmentation, relative to a step of training alone.
_VIEWS, _WITH_VIEWS = 2, 0.7
_CLASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A pretraining: its images, its network as it begins, and how it learns; `notes` are sentences on it."""

    dataset: Dataset
    probe: Dataset | None
    found: Pretrained
    model: Pretraining
    learning: PairLearning
    recipe: Recipe
    preprocess: Preprocess
    notes: tuple[str, ...]


def make_run(config: PretrainConfig, folder: Path) -> Run:
    """Return the run of a config, whose options it writes into `folder`, or compares with those there.

    Raises InputError if they differ, or if there are too few images; WeightsError for weights that cannot be read.
    """
    found = _begin(config)
    probe = None
    if config.probe:
        probe = read_dataset(config.probe, seed=config.seed, channels=found.spec.in_channels)
        if not probe.label_kind.classes:
            raise InputError(f"--probe must be images with classes; those of {printable(config.probe)} have others")
    paths, told = _images(config, probe)
    dataset = _dataset(config, found, paths)
    side = _median_side(dataset)
    teacher = _teacher(config, found) if config.teacher else None
    network, notes = _network(found, config)
    folded = bool(found.state) and has_folded_norms(found.state, found.spec)
    recipe = _recipe(config, found, dataset, folded=folded, folder=folder)
    notes = (*told, *notes, _norms_sentence(folded))
    look = Look(min_area=config.min_area, flip=config.flip, strength=config.strength, blur=side >= _SMALL_SIDE)
    return Run(
        dataset=dataset,
        probe=probe,
        found=found,
        model=_model(config, network, teacher, side=side),
        learning=PairLearning(inputs=PairInput(look=look), teacher=teacher),
        recipe=recipe,
        preprocess=found.preprocess,
        notes=notes,
    )


def _begin(config: PretrainConfig) -> Pretrained:
    """Return the network and its weights, none if it is trained from scratch."""
    if os.fspath(config.weights) == "none":
        if not config.model:
            raise InputError("pretrain needs --weights, or a network to train from scratch: --set pretrain.model=NAME")
        spec = dataclasses.replace(get_spec(config.model), num_classes=0)
        spec = dataclasses.replace(spec, resolution=config.resolution or spec.resolution)
        half = (0.5,) * spec.in_channels
        preprocess = Preprocess(resolution=spec.resolution, mean=half, std=half)
        return Pretrained(
            spec=spec, state={}, preprocess=preprocess, class_names=(), licence="", source="none", top1=None
        )
    found = load_backbone(os.fspath(config.weights), model=config.model or None)
    side = config.resolution or found.preprocess.resolution
    found = adapted(found, num_classes=None, in_channels=found.spec.in_channels, resolution=side)
    return headless(found)


def headless(found: Pretrained) -> Pretrained:
    """Return pretrained weights without their classifier."""
    state = {name: array for name, array in found.state.items() if not name.startswith("classifier.")}
    spec = dataclasses.replace(found.spec, num_classes=0)
    return dataclasses.replace(found, spec=spec, state=state, class_names=())


def _images(config: PretrainConfig, probe: Dataset | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of the images, without copies of the probe's, and sentences on them."""
    root = os.fspath(config.data)

    def tell(done: int, total: int) -> None:
        config.listener(Counted(label="reading images", done=done, total=total))

    if probe is not None:
        unlabelled = read_unlabelled(root, probe, option="DIR", progress=tell)
        paths, told = unlabelled.paths, unlabelled.sentences
    else:
        if not os.path.isdir(root):
            raise InputError(f"DIR must be a folder of images; {printable(root)} is none")
        listed = list_images(root)
        paths, told = listed.paths, listed.notes
    if len(paths) < _LEAST_IMAGES:
        raise InputError(f"pretrain needs at least {_LEAST_IMAGES} images; there are {len(paths)} in {printable(root)}")
    return paths, tuple(told)


def _dataset(config: PretrainConfig, found: Pretrained, paths: tuple[str, ...]) -> Dataset:
    """Return the images as a data set without labels, of which a twentieth is held out."""
    order = np.random.default_rng(config.seed).permutation(len(paths))
    count = min(_MOST_HELD_OUT, max(2, round(_HELD_OUT * len(paths))))
    parts = {"val": order[:count], "train": np.sort(order[count:]), "test": order[:0]}
    splits: dict[str, Any] = {
        name: Split(sources=[paths[i] for i in rows], labels=np.zeros(len(rows), np.int64))
        for name, rows in parts.items()
    }
    name = os.path.basename(os.path.abspath(config.data)) or "data"
    channels = found.spec.in_channels
    return Dataset(name=name, class_names=(), channels=channels, mirror_safe=config.flip, **splits)


def _median_side(dataset: Dataset) -> float:
    """Return the median shorter side of a sample of the images."""
    sides = []
    for index in np.unique(np.linspace(0, len(dataset.train) - 1, _SAMPLED, dtype=np.int64)):
        try:
            sides.append(min(size_at(dataset.train, int(index))))
        except ImageError:
            continue
    if not sides:
        raise InputError(f"pretrain needs images that can be read; of {dataset.name} none of a sample can")
    return float(np.median(sides))


def _teacher(config: PretrainConfig, found: Pretrained) -> TeacherNetwork:
    teacher = headless(load_backbone(os.fspath(config.teacher)))
    if teacher.spec.in_channels != found.spec.in_channels:
        raise InputError(
            f"--teacher must take as many channels as the network, {found.spec.in_channels}; it takes "
            f"{teacher.spec.in_channels}: name another"
        )
    network = build(teacher.spec)
    load_arrays_(network, teacher.state, where=os.fspath(config.teacher))
    return TeacherNetwork(
        network=network.eval().requires_grad_(False), own=teacher.preprocess, preprocess=found.preprocess
    )


def _network(found: Pretrained, config: PretrainConfig) -> tuple[Network, tuple[str, ...]]:
    network = build(found.spec, seed=config.seed)
    if not found.state:
        return network, (f"{found.spec.name} is trained from scratch.",)
    load_arrays_(network, found.state, where=found.source)
    return network, (f"{found.spec.name} begins with {printable(found.source)}.",)


def _norms_sentence(folded: bool) -> str:
    if folded:
        return "BatchNorm is folded into these weights: its statistics stay, and nothing of a batch passes through it."
    return "BatchNorm learns from the batches of views; the projector, which is not exported, has none."


def _model(config: PretrainConfig, network: Network, teacher: TeacherNetwork | None, *, side: float) -> Pretraining:
    model: Pretraining
    torch.manual_seed(config.seed)  # of the heads, which a resumed run must begin with as well
    if teacher is not None:
        spec = teacher.network.spec
        assert isinstance(spec, ArchSpec)
        model = Distilled(
            network, width=spec.feature_channels, queued=config.queued,
            student_temperature=_STUDENT_TEMPERATURE, teacher_temperature=_TEACHER_TEMPERATURE,
        )  # fmt: skip
    elif config.method == "byol":
        model = Byol(network, momentum=config.momentum)
    else:
        usual = _TEMPERATURE if side >= _SMALL_SIDE else _SMALL_TEMPERATURE
        model = SimClr(network, temperature=config.temperature or usual, decouples=config.loss == "decoupled")
    return model


def _recipe(config: PretrainConfig, found: Pretrained, dataset: Dataset, *, folded: bool, folder: Path) -> Recipe:
    """Return the recipe; options and epochs are kept in `folder`, and compared with those of the run to resume."""
    path, number = folder / OPTIONS, len(dataset.train)
    asked: dict[str, Any] = json.loads(json.dumps({k: _plain(v) for k, v in repeated(config).items()}))
    asked |= {"data": _plain(config.data), "settings": dict(config.settings)}
    asked["images"] = crc32("\n".join(map(str, dataset.train.sources)).encode("utf-8", "surrogateescape"))
    known = read_json(path) if path.is_file() else None
    if known is not None:
        if other := [name for name, value in asked.items() if known.get(name) != value]:
            flags = {name: found.flag for name, found in options_of(PretrainConfig).items()}
            named = ", ".join(flags.get(name, name) for name in other)
            raise InputError(
                f"--resume must repeat the options and images of the run in {config.out}; changed: {named}"
            )
        epochs = known["epochs_made"]
    else:
        epochs = config.epochs or (_epochs_in(config.minutes, found.spec, number) if config.minutes else _EPOCHS)
    train = Train(
        epochs=epochs, batch_size=max(2, min(_BATCH, number)), lr=_RATE, frozen_norms=folded, seed=config.seed,
        last_counts=True,
    )  # fmt: skip
    recipe = Recipe(
        name="pretrain",
        train=train,
        optimizer=Optimizer(weight_decay=0.02),
        schedule=Schedule(warmup=0.1),
        augment=Augment(interpolation=found.preprocess.interpolation),
    )
    recipe = with_values(recipe, {k: v for k, v in config.settings.items() if k != "train.epochs"})
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asked | {"epochs_made": epochs}) + "\n")
    return recipe


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _epochs_in(minutes: float, spec: ArchSpec, number: int) -> int:
    speed = _WITH_VIEWS * train_speed(dataclasses.replace(spec, num_classes=_CLASSES)) / _VIEWS
    return max(1, min(_MOST_EPOCHS, int(60 * minutes * speed / number)))


def prepared_(model: Pretraining) -> Pretraining:
    """Return the model, whose network trains with the fused kernels if there are any."""
    fuse_(model.network)
    return model


def state_of(found: Pretrained, state: Arrays) -> Pretrained:
    """Return pretrained weights with another state."""
    return dataclasses.replace(found, state=dict(state))


def tell(config: PretrainConfig, text: str, *, heading: bool = False) -> None:
    """Send a sentence to the listener."""
    config.listener(Said(text=text, heading=heading))
