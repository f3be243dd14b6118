"""The verb zeroshot: an ordinary classifier whose last layer is made of the vectors of class names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effnet.bundle.config import MAX_NAME_LENGTH, ModelConfig, read_config
from effnet.bundle.config_fields import Origin
from effnet.data.datasets import DataLike
from effnet.data.labels import class_name
from effnet.errors import InputError
from effnet.jobs.new_bundle import new_bundle, write_bundle
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import fit_temperature
from effnet.measurement.intervals import wilson
from effnet.report.cards.words import zeroshot_card
from effnet.runtimes.predictor import Predictor
from effnet.system.files import read_json
from effnet.system.machine import versions
from effnet.system.text import brief, percent, printable, reason_of
from effnet.tasks.embedding import TASK as EMBEDDING
from effnet.weights.labels import choose_images
from effnet.words.kept import open_space
from effnet.words.space import TEMPLATES, class_vectors

Classes = str | os.PathLike[str] | Sequence[str] | Mapping[str, Sequence[str]]
"""Class names, a text of them with commas, or the texts that describe each; or a JSON file of a list or an object."""

# Above this, logits are so large that probabilities say nothing; it bounds the calibrated factor.
_SCALED = 20.0
_MOST_CLASSES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroshotResult:
    """The bundle's folder, its classes, and sentences on its scale and, with labelled images, its accuracy."""

    folder: Path
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    accuracy: float | None = None


def zeroshot(
    model: str | os.PathLike[str],
    classes: Classes,
    *,
    out: str | os.PathLike[str],
    templates: Sequence[str] = TEMPLATES,
    data: DataLike | None = None,
    words: str | os.PathLike[str] | None = None,
) -> ZeroshotResult:
    """Write a classifier of `classes` into the new folder `out`, from the bundle `model` that `align` wrote.

    A class is its name, put into each of the `templates`, or the mean of texts that describe it. With T their vectors,
    W and b the map of the bundle, the classifier's weight is s · T W and its bias s · T b: the most probable class is
    that of the largest cosine. s is fitted to labelled images, `data`, which are scored as well; without any it is that
    of the captions the bundle was aligned with. `words` are as in effnet.words.kept.open_space.

    Raises InputError for another bundle, unknown words, or classes of equal words.
    """
    from effnet.bundle.weights import load_state

    config = read_config(model)
    if config.task != EMBEDDING.name:
        raise InputError(
            f"zeroshot needs a bundle that `effnet align` wrote; the task of {printable(model)} is {config.task}"
        )
    asked = read_classes(classes)
    if not templates or any("{}" not in template for template in templates):
        raise InputError(f"a template must hold {{}}, the place of the class name; got {brief(list(templates))}")
    space, record = open_space(model, words=words)
    vectors = class_vectors(space, asked, templates=templates)
    state = load_state(model)
    head = [vectors @ state["classifier.weight"], vectors @ state["classifier.bias"]]
    made = _config(config, tuple(asked), Path(model))
    scale, accuracy = record.scale, None
    notes: tuple[str, ...] = (_usual(scale),)
    folder = Path(out)
    with new_bundle(folder) as beside:
        if data is not None:
            scale, notes, accuracy = _calibrated(Predictor(model), made, vectors, data)
        names = ("classifier.weight", "classifier.bias")
        weights = dict(zip(names, ((scale * part).astype(np.float32) for part in head), strict=True))
        name = Path(os.path.realpath(folder)).name
        described = sum(bool(texts) for texts in asked.values())
        how = f"{described} classes are described by texts" if described else f"Templates: {', '.join(templates)}"
        card_notes = (f"{how}; the words are {record.source}.", *notes)
        write_bundle(
            beside, made, state | weights, card=lambda config: zeroshot_card(config, folder=name, notes=card_notes)
        )
    return ZeroshotResult(folder=folder, class_names=made.class_names, notes=notes, accuracy=accuracy)


def read_classes(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Return the texts of each class, none for a name alone; raise InputError for fewer than two, or equal names."""
    if isinstance(classes, str | os.PathLike):
        text = os.fspath(classes)
        classes = _from_file(text) if text.lower().endswith(".json") else text.split(",")
    pairs = classes.items() if isinstance(classes, Mapping) else [(name, ()) for name in classes]
    found: dict[str, tuple[str, ...]] = {}
    for name, texts in pairs:
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        if not isinstance(name, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"a class must be a text, or a list of texts by its name; got {brief(name)}")
        title = class_name(name)
        if not title or len(title) > MAX_NAME_LENGTH or title in found:
            why = "another has this name" if title in found else f"it has {len(title):,} characters"
            raise InputError(
                f"a class must have a name of its own, of 1 to {MAX_NAME_LENGTH} characters; {why}: {brief(title)}"
            )
        found[title] = tuple(text for text in texts if text.strip())
    if not 2 <= len(found) <= _MOST_CLASSES:
        raise InputError(f"there must be 2 to {_MOST_CLASSES:,} classes, with commas between them; got {len(found)}")
    return found


def _from_file(text: str) -> Sequence[str] | Mapping[str, Sequence[str]]:
    try:
        value = read_json(text)
    except (OSError, ValueError) as error:
        raise InputError(f"the file of classes {printable(text)} cannot be read: {reason_of(error)}") from error
    if not isinstance(value, list | dict):
        raise InputError(f"{printable(text)} must hold a list of names, or an object of lists of texts by name")
    if isinstance(value, dict) and not all(isinstance(texts, str | list) for texts in value.values()):
        raise InputError(f"{printable(text)} must give each class a text or a list of texts")
    return value


def _config(config: ModelConfig, names: tuple[str, ...], model: Path) -> ModelConfig:
    return replace(
        config,
        arch=replace(config.arch, num_classes=len(names)),
        class_names=names,
        versions=versions(),
        task="classification",
        deployed="onnx",
        origin=Origin(source=f"zero-shot head of {model.resolve().name}"),
    )


def _usual(scale: float) -> str:
    return (
        f"The scale of the logits is {scale:.3g}, that of the captions: without labelled images the probabilities are "
        "not calibrated."
    )


def _calibrated(
    predictor: Predictor, made: ModelConfig, vectors: np.ndarray, data: DataLike
) -> tuple[float, tuple[str, ...], float]:
    """Return the scale fitted to labelled images, a sentence on them, and the accuracy."""
    split = choose_images(data, folder=predictor.folder, config=made).split
    rows, indices = predict_split(predictor, split)
    logits, labels = rows @ vectors.T, split.labels[indices]
    right = int((logits.argmax(1) == labels).sum())
    scale = _SCALED / fit_temperature(_SCALED * logits, labels)
    low, high = wilson(right, len(labels))
    sentence = (
        f"{percent(right / len(labels), 1)} of the {len(labels):,} labelled images are right (95 % CI "
        f"{percent(low, 1)} to {percent(high, 1)}); the scale of the logits, {scale:.3g}, is fitted to them."
    )
    return scale, (sentence,), right / len(labels)
