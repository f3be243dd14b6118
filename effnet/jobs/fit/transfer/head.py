"""The head of a pretrained network, trained on its frozen features, and kept for a fit that is resumed."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.describe import pooled_in_words
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_arrays, write_arrays
from effnet.data.datasets import Dataset, Split
from effnet.errors import BundleError
from effnet.jobs.fit.config import HeadFeatures
from effnet.jobs.fit.resume import Attempt
from effnet.planner.events import Counted, Listener, Said
from effnet.planner.timetable import not_enough
from effnet.system.files import parse_json
from effnet.system.text import both, percent
from effnet.tasks.task import Figure
from effnet.training.learning import OwnHead, learning_of
from effnet.training.recipe.schema import Balance
from effnet.training.transfer.features import Extractor, Features, extract, make_extractor, over_clips
from effnet.training.transfer.head import Head as Linear
from effnet.weights.adapt import Arrays
from effnet.weights.catalog import entries
from effnet.weights.pretrained import Pretrained, adapted, load_backbone

HEAD, HEAD_ALONE = "head.safetensors", "head_alone.safetensors"
_CLASSIFIER = ("classifier.weight", "classifier.bias")
_LOGITS, _INDICES = "validation.logits", "validation.indices"
# A head is trained on this many views of a class's images if it has fewer images; with more images, views do not help.
_VIEWS_A_CLASS, _MOST_VIEWS = 50, 3
# With more features of all images (400 MB) the head reads the last feature map alone, unless more is requested.
_MOST_FEATURES = 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The head's logits [images, classes] on the readable validation images, and their indices [images]."""

    logits: np.ndarray
    indices: np.ndarray


Head = tuple[Arrays, dict[str, Any], Validation]
"""The state of a network with a trained head, the facts of that training, and its validation logits."""


def fit_head(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    *,
    weights: str,
    model: str | None,
    folder: Path,
    left: Callable[[], float],
    listener: Listener,
    pooled: tuple[int, ...] = (),
    reads: HeadFeatures = "auto",
) -> Head:
    """Return the network's state with its head trained, and the facts of that training; all is kept in `folder`.

    Random views that would not end in the seconds that `left` returns are left out. The head may read the stages
    `pooled` as well: `reads` says whether it does; the facts' "pooled" are those that it reads. By auto, one that does
    is kept beside it as HEAD_ALONE, for a network of which nothing else is trained.
    """
    listener(Said(text=f"Training a head on {weights}", heading=True))
    started = time.monotonic()
    found = load_backbone(weights, model=model)
    origin = origin_facts(found)
    balance, own = attempt.recipe.balance, _own_head(found, dataset, seed=attempt.recipe.train.seed)
    found = adapted(found, num_classes=spec.num_classes, in_channels=spec.in_channels, resolution=spec.resolution)
    if own is not None and reads == "all":
        listener(Said(text="The head reads what the weights' own does: they know these classes"))
    wide = found.spec if own is not None else _widest(found.spec, dataset, pooled=pooled, reads=reads)
    extractor = make_extractor(
        wide, found.state, attempt.preprocess, folder / "backbone.onnx", mirror=attempt.recipe.augment.flip
    )
    rows, left_out = _views(extractor, dataset, left=left, listener=listener)
    val = _features(extractor, dataset.val if len(dataset.val) else dataset.train, view=0, listener=listener)
    head_of = _trainer(dataset, rows, val, balance=balance, own=own)
    # Calibration needs held-out images: training images say nothing about it.
    held = len(val.values) if len(dataset.val) else 0
    made: list[Head] = []
    for head, also in _heads(found.spec, wide, head_of, reads, balance=balance, left=left):
        facts = origin | _facts(head, rows, val) | also | {"left_out": left_out, "seconds": time.monotonic() - started}
        state = dict(found.state) | dict(zip(_CLASSIFIER, (head.weight, head.bias), strict=True))
        logits = val.values[:held, : head.weight.shape[1]] @ head.weight.T + head.bias
        made.append((state, facts, Validation(logits=logits, indices=val.indices[:held])))
    for name, each in reversed(list(zip((HEAD, HEAD_ALONE), made, strict=False))):  # the first one says: all done
        _write_head(folder / name, *each)
    return made[0]


def _trainer(
    dataset: Dataset, rows: Sequence[Features], val: Features, *, balance: Balance, own: OwnHead | None
) -> Callable[[ArchSpec], Linear]:
    """Return what trains the head of a network, whose features are the first of those given."""
    values = np.concatenate([row.values for row in rows])
    targets = np.concatenate([dataset.train.labels[row.indices] for row in rows])
    val_targets = (dataset.val if len(dataset.val) else dataset.train).labels[val.indices]

    def head_of(spec: ArchSpec) -> Linear:
        width = spec.feature_channels
        return learning_of(dataset).fit_head(
            values[:, :width],
            targets,
            dataset=dataset,
            val_features=val.values[:, :width],
            val_targets=val_targets,
            balance=balance,
            own=own,
        )

    return head_of


def _own_head(found: Pretrained, dataset: Dataset, *, seed: int) -> OwnHead | None:
    """Return the head of weights that know these classes, if validation images can say which head is better."""
    if not len(dataset.val) or not found.knows(dataset.class_names, split_seed=seed, group_by=dataset.group_by):
        return None
    weight, bias = (found.state[name] for name in _CLASSIFIER)
    return OwnHead(weight=weight, bias=bias, removed=read_config(found.source).balanced)


def _widest(spec: ArchSpec, dataset: Dataset, *, pooled: tuple[int, ...], reads: HeadFeatures) -> ArchSpec:
    """Return the network with all features of which a head may read some."""
    wide = dataclasses.replace(spec, pooled=pooled or spec.pooled)
    many = len(dataset.train) * wide.feature_channels > _MOST_FEATURES
    return spec if reads == "auto" and (many or not len(dataset.val)) else wide


def _heads(
    spec: ArchSpec,
    wide: ArchSpec,
    head_of: Callable[[ArchSpec], Linear],
    reads: HeadFeatures,
    *,
    balance: Balance,
    left: Callable[[], float],
) -> list[tuple[Linear, dict[str, Any]]]:
    """Return the head to fine-tune from and, if it is another one, that of a network of which nothing else is trained.

    Each has the facts on its features. Fine-tuning is worse from a head on all features, which fits a
    few images too well. Alone, it is better (benchmarks/few_labels.py); of few validation images the figure and the
    loss are vague, so it must not be worse in both.
    """
    if wide == spec or reads == "last":
        return [(head_of(spec), {"pooled": list(spec.pooled)})]
    if reads == "all":
        return [(head_of(wide), {"pooled": list(wide.pooled)})]
    begun = time.monotonic()
    before = head_of(spec)
    last = before, {"pooled": list[int]()}
    if left() < 2 * (time.monotonic() - begun):
        return [last]
    head = head_of(wide)
    if head.score(balance)[0] < before.score(balance)[0] and head.val_loss > before.val_loss:
        return [last]
    return [last, (head, {"pooled": list(wide.pooled), "last_figure": before.val_figure})]


def _facts(head: Linear, rows: Sequence[Features], val: Features) -> dict[str, Any]:
    """Return the facts of a head, trained on the features of each view of the training images."""
    return {
        "penalty": head.penalty,
        "views": len(rows),
        "images": len(rows[0].values),
        "val_figure": head.val_figure,
        "val_balanced_figure": head.val_balanced_figure,
        "val_loss": head.val_loss,
        "features": sum(len(found.values) for found in (*rows, val)),
        "computed": sum(found.computed for found in (*rows, val)),
    }


def _views(
    extractor: Extractor, dataset: Dataset, *, left: Callable[[], float], listener: Listener
) -> tuple[list[Features], str]:
    """Return the features of each view of the training images, and a sentence on views that there was no time for."""
    views = min(_MOST_VIEWS, math.ceil(_VIEWS_A_CLASS / dataset.images_a_class))
    rows: list[Features] = []
    for view in range(views):
        begun = time.monotonic()
        rows.append(_features(extractor, dataset.train, view=view, listener=listener))
        took, more = time.monotonic() - begun, views - view - 1
        needs = took * (1 + len(dataset.val) / len(dataset.train))  # validation comes last
        if more and (rest := left()) < needs:
            what = f"{more} more random views of each training image were left out"
            sentence = not_enough(what, needs=needs, left=rest)
            listener(Said(text=sentence))
            return rows, sentence
    return rows, ""


def head_in_words(facts: Mapping[str, Any], figure: Figure) -> str:
    """Return the task's figure, the duration and the features of a head as a line for the terminal."""
    kind = "A head" if facts["penalty"] else "Its own head"
    stages, alone = pooled_in_words(facts["pooled"]), facts.get("last_figure")
    also = stages and f" and of {stages}" + ("" if alone is None else f" (without: {percent(alone)})")
    return (
        f"{kind} on frozen features of {facts['name']}{also}: validation {figure.title} "
        f"{both(facts['val_figure'], facts.get('val_balanced_figure'))}, "
        f"{facts['seconds']:.1f} s ({facts['computed']} of {facts['features']} features computed)"
    )


def origin_facts(found: Pretrained) -> dict[str, Any]:
    """Return the provenance of the pretrained weights, for a report and a model card.

    `weights` is an id or a path, `name` short enough for a page; `licence` is empty and `top1` None if unknown.
    """
    entry = next((entry for entry in entries() if entry.id == found.published), None)
    return {
        "weights": found.source,
        "name": entry.id if entry else Path(found.source).resolve().name,
        "network": found.spec.name,
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

    return over_clips(extract(extractor, split, view=view, progress=tell), split)


def _write_head(path: Path, state: Arrays, facts: Mapping[str, Any], validation: Validation) -> None:
    arrays = state | {_LOGITS: validation.logits, _INDICES: validation.indices}
    write_arrays(arrays, path, metadata={"facts": json.dumps(dict(facts))})


def of_head(spec: ArchSpec, head: Head | None) -> ArchSpec:
    """Return the network whose classifier reads what a head does."""
    return spec if head is None else dataclasses.replace(spec, pooled=tuple(head[1]["pooled"]))


def read_head(folder: Path, name: str = HEAD) -> Head | None:
    """Return the head that an interrupted fit has saved: it needs neither the weights nor the features again."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        state, metadata = load_arrays(path)
        facts = parse_json(metadata["facts"])
        if not isinstance(facts, dict):
            raise ValueError("its facts must be a JSON object")
        return state, facts, Validation(logits=state.pop(_LOGITS), indices=state.pop(_INDICES))
    except (BundleError, ValueError, KeyError) as error:
        raise BundleError(f"{path} cannot be resumed: {error}; remove the folder to start again") from error
