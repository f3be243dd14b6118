"""Transfer learning: a head on frozen features first, then, where it pays, the whole network."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset, Split
from effnet.errors import BundleError
from effnet.exporting.features import Extractor, Features, extract, make_extractor
from effnet.fitting.events import Counted, Listener, Said
from effnet.fitting.settings import epochs_in, finetune_recipe
from effnet.fitting.state import Attempt
from effnet.fitting.team import Training, train_together
from effnet.nn.network import Network, build
from effnet.recipes.choose import read_recipe
from effnet.runtime.config import write_text
from effnet.system.files import parse_json
from effnet.training.head import scored_head, train_head
from effnet.training.loop import TrainResult
from effnet.training.ranks import ALONE, Ranks
from effnet.training.recipe import Recipe
from effnet.training.recipe_file import with_values
from effnet.training.speed import train_speed
from effnet.training.state import network_for
from effnet.weights.adapt import Arrays, has_folded_norms
from effnet.weights.bundle import load_arrays, load_arrays_, write_arrays
from effnet.weights.catalog import entries
from effnet.weights.pretrained import Pretrained, adapted, load_pretrained

Method = Literal["scratch", "head", "finetune"]

HEAD, RECIPE = "head.safetensors", "recipe.json"
_CLASSIFIER = ("classifier.weight", "classifier.bias")
_LOGITS, _INDICES = "validation.logits", "validation.indices"
# With --strategy auto the whole network is trained only where the head gets less than this right (of the few others too
# few are in validation to tell whether it helped) and a class has as many training pictures: benchmarks/finetune.py
# says what it brings then, and fewer it only learns by heart.
_GOOD_ENOUGH, _ENOUGH_A_CLASS = 0.95, 50
# Views of a class's pictures that a head is trained on where it has fewer pictures; with more, views teach it nothing.
_VIEWS_A_CLASS, _MOST_VIEWS = 50, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A trained network and how it came about; `recipe` is None where only a head was trained.

    `head` says how the head was trained, and on whose weights: what `_train_head` writes into head.safetensors.
    `validation` is there where the network is that head.
    """

    method: Method
    training: TrainResult
    recipe: Recipe | None
    head: Mapping[str, Any] | None = None
    validation: "Validation | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The head on the readable validation pictures: logits [pictures, classes] and their indices [pictures]."""

    logits: np.ndarray
    indices: np.ndarray


Head = tuple[Arrays, dict[str, Any], Validation]
"""The state of a network whose head is trained, how that went, and its answers."""


def transfer(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    *,
    weights: str,
    model: str | None,
    epochs: int | None,
    minutes: float | None,
    folder: Path,
    listener: Listener,
    ranks: Ranks = ALONE,
    settings: Mapping[str, Any] | None = None,
) -> Learned:
    """Trains `spec`, which begins with the pretrained `weights`, in `folder`, or goes on with what is there.

    The head is this process's work, fine-tuning that of all `ranks`; it takes `epochs`, or what fits into `minutes`.
    `settings` change fields of its recipe by their dotted names. Raises WeightsError where the weights cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_head(folder)
    if done is None:
        done = _train_head(spec, attempt, dataset, weights=weights, model=model, folder=folder, listener=listener)
    state, facts, validation = done
    listener(Said(text=_say_head(facts)))
    network = build(spec)
    load_arrays_(network, state, where=str(folder / HEAD))
    enough = _why_no_more(facts, dataset) if attempt.strategy == "auto" else ""
    if enough:
        listener(Said(text=f"The head is enough: {enough}; --strategy finetune trains the whole network all the same"))
    if enough or attempt.strategy == "head":
        training = TrainResult(
            model=network.eval(),
            history=(),
            best_epoch=0,
            stopped="solved the head on frozen features",
            seconds=facts["seconds"],
            device="cpu",
        )
        return Learned(method="head", training=training, recipe=None, head=facts, validation=validation)
    return _finetune(
        network, attempt, dataset, done, epochs=epochs, minutes=minutes, settings=settings or {}, folder=folder,
        listener=listener, ranks=ranks,
    )  # fmt: skip


def _finetune(
    network: Network,
    attempt: Attempt,
    dataset: Dataset,
    head: Head,
    *,
    epochs: int | None,
    minutes: float | None,
    settings: Mapping[str, Any],
    folder: Path,
    listener: Listener,
    ranks: Ranks,
) -> Learned:
    """Trains the whole of `network`, which begins with its head trained."""
    state, facts, _ = head
    spent = facts["seconds"]
    recipe = _recipe(
        attempt, dataset, network, state, epochs=epochs, minutes=minutes, settings=settings, spent=spent, folder=folder
    )
    listener(Said(text=f"Fine-tuning the whole network for {recipe.train.epochs} epochs", heading=True))
    tuned = network_for(network.spec, recipe)
    load_arrays_(tuned, state, where=str(folder / HEAD))
    training = train_together(
        Training(
            model=tuned,
            dataset=dataset,
            recipe=recipe,
            preprocess=attempt.preprocess,
            folder=folder,
            deadline_seconds=None if minutes is None else max(1.0, 66 * minutes - spent),
        ),
        ranks,
        listener=listener,
    )
    training = dataclasses.replace(training, seconds=training.seconds + spent)
    return Learned(method="finetune", training=training, recipe=recipe, head=facts)


def _why_no_more(facts: Mapping[str, Any], dataset: Dataset) -> str:
    """Returns why training the whole network promises no more than the head alone; empty where it does."""
    if facts["val_accuracy"] >= _GOOD_ENOUGH:
        return f"it gets at least {_GOOD_ENOUGH:.0%} of the validation pictures right"
    a_class = len(dataset.train) / len(dataset.class_names)
    if a_class < _ENOUGH_A_CLASS:
        return f"{a_class:.0f} training pictures a class, of the {_ENOUGH_A_CLASS} that fine-tuning takes"
    return ""


def _say_head(facts: Mapping[str, Any]) -> str:
    kind = "A head" if facts["penalty"] else "Its own head"
    return (
        f"{kind} on frozen features of {facts['name']}: validation accuracy {facts['val_accuracy']:.2%}, "
        f"{facts['seconds']:.1f} s ({facts['computed']} of {facts['features']} features computed)"
    )


def _train_head(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    *,
    weights: str,
    model: str | None,
    folder: Path,
    listener: Listener,
) -> Head:
    """Returns the state of the network with its head trained, and how that went; all is kept in `folder`."""
    listener(Said(text=f"Training a head on {weights}", heading=True))
    started = time.monotonic()
    found = load_pretrained(weights, model=model)
    origin = _origin(found)
    seed = attempt.recipe.train.seed
    knows = found.knows(dataset.class_names, split_seed=seed, group_by=dataset.group_by) and len(dataset.val) > 0
    own = tuple(found.state[name] for name in _CLASSIFIER) if knows else ()
    found = adapted(
        found, num_classes=spec.num_classes, in_channels=spec.in_channels, resolution=spec.resolution
    )  # fmt: skip
    extractor = make_extractor(
        found.spec, found.state, attempt.preprocess, folder / "backbone.onnx", mirror=attempt.recipe.augment.flip
    )
    views = min(_MOST_VIEWS, math.ceil(_VIEWS_A_CLASS * spec.num_classes / len(dataset.train)))
    rows = [_features(extractor, dataset.train, view=view, listener=listener) for view in range(views)]
    val_split = dataset.val if len(dataset.val) else dataset.train
    val = _features(extractor, val_split, view=0, listener=listener)
    values = np.concatenate([row.values for row in rows])
    head = train_head(
        values,
        np.concatenate([dataset.train.labels[row.indices] for row in rows]),
        num_classes=spec.num_classes,
        val_features=val.values,
        val_labels=val_split.labels[val.indices],
    )
    if own:  # weights that know these classes may know them better than a head of this size can
        before = scored_head(*own, val.values, val_split.labels[val.indices])
        head = max(before, head, key=lambda h: (h.val_accuracy, -h.val_loss))
    facts = {
        **origin,
        "penalty": head.penalty,
        "views": views,
        "images": len(rows[0].values),
        "val_accuracy": head.val_accuracy,
        "val_loss": head.val_loss,
        "features": len(values) + len(val.values),
        "computed": sum(found.computed for found in (*rows, val)),
        "seconds": time.monotonic() - started,
    }
    state = dict(found.state) | dict(zip(_CLASSIFIER, (head.weight, head.bias), strict=True))
    # Pictures that were trained on say nothing of how sure the head may be.
    held = val.values[: len(val.values) if len(dataset.val) else 0]
    validation = Validation(logits=held @ head.weight.T + head.bias, indices=val.indices[: len(held)])
    _write_head(folder, state, facts, validation)
    return state, facts, validation


def _origin(found: Pretrained) -> dict[str, Any]:
    """Returns whose the pretrained weights are: what a report and a model card must say of them.

    `weights` is an id or a path, `name` short enough for a page; `licence` is empty and `top1` None where unknown.
    """
    entry = next((entry for entry in entries() if entry.id == found.published), None)
    return {
        "weights": found.source,
        "name": entry.id if entry else Path(found.source).resolve().name,
        "network": found.name,
        "licence": found.licence,
        "licence_source": entry.licence_source if entry else "",
        "origin": entry.source if entry else "",
        "hub": entry.hub if entry else "",
        "top1": found.top1,
        "top1_resolution": entry.test_resolution if entry else None,
    }


def _features(extractor: Extractor, split: Split, *, view: int, listener: Listener) -> Features:
    def tell(done: int, total: int) -> None:
        listener(Counted(label="computing features", done=done, total=total))

    return extract(extractor, split, view=view, progress=tell)


def _write_head(folder: Path, state: Arrays, facts: Mapping[str, Any], validation: Validation) -> None:
    arrays = state | {_LOGITS: validation.logits, _INDICES: validation.indices}
    write_arrays(arrays, folder / HEAD, metadata={"facts": json.dumps(dict(facts))})


def _read_head(folder: Path) -> Head | None:
    """Returns what an interrupted fit has left, so that it needs neither the weights nor the features again."""
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        state, metadata = load_arrays(path)
        facts = parse_json(metadata["facts"])
        if not isinstance(facts, dict):
            raise ValueError("its facts must be a JSON object")
        return state, facts, Validation(logits=state.pop(_LOGITS), indices=state.pop(_INDICES))
    except (BundleError, ValueError, KeyError) as error:
        raise BundleError(f"{path} cannot be resumed: {error}; remove the folder to start anew") from error


def _recipe(
    attempt: Attempt,
    dataset: Dataset,
    network: Network,
    state: Arrays,
    *,
    epochs: int | None,
    minutes: float | None,
    settings: Mapping[str, Any],
    spent: float,
    folder: Path,
) -> Recipe:
    """Returns the recipe of fine-tuning; it is kept in `folder`, so that a resumed fit does not measure anew."""
    path = folder / RECIPE
    if path.is_file():
        return read_recipe(path, network.spec)
    spec = network.spec
    if epochs is None:
        assert minutes is not None
        left = max(0.1, minutes - spent / 60)
        speed = train_speed(spec)
        epochs = epochs_in(left, images_per_second=speed, num_train=len(dataset.train))
    recipe = finetune_recipe(
        attempt.recipe,
        attempt.preprocess,
        num_train=len(dataset.train),
        epochs=epochs,
        folded=has_folded_norms(state, spec),
    )
    # What was asked for comes before what fine-tuning does otherwise; its epochs are as given.
    others = {name: value for name, value in settings.items() if name not in ("train.epochs", "train.seed")}
    recipe = with_values(recipe, others)
    write_text(path, json.dumps(recipe.to_dict()))
    return recipe
