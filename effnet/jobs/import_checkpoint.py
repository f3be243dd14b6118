"""The verb import: turn any checkpoint into a bundle, with its own classifier."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.arch.families.efficientdet import COCO_CLASSES
from effnet.bundle.config import ModelConfig
from effnet.bundle.config_fields import Origin
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError, WeightsError
from effnet.jobs.new_bundle import new_bundle, write_bundle
from effnet.report.cards.published import imported_card, published_card
from effnet.system.lock import SCRATCH
from effnet.system.text import printable
from effnet.tasks.registry import task_for
from effnet.weights.catalog import PublishedWeights, preprocess_of
from effnet.weights.hub_config import is_bundle, read_hub_config, weights_in
from effnet.weights.locate import no_classifier
from effnet.weights.network_file import (
    NetworkFile,
    for_network,
    named_or_none,
    preprocess_for_import,
    published_file,
    read_network,
)
from effnet.weights.own_classes import COCO, ClassOrder, read_classes
from effnet.weights.readers.archive import is_archive_file, unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A bundle made from a checkpoint: its folder, its config, and notes on what was detected and assumed."""

    folder: Path
    config: ModelConfig
    notes: tuple[str, ...]


def import_checkpoint(
    path: str | os.PathLike[str],
    *,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    class_order: ClassOrder | None = None,
    model: str | None = None,
    head: str | None = None,
    preprocess: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Imported:
    """Make a bundle from the checkpoint `path` in the new folder `out`, keeping its classifier.

    The network is identified by names and shapes, under any prefix; `model` names it, or published weights of it, if
    they do not determine its padding. `classes` and `class_order` are as in effnet.weights.own_classes.read_classes.
    `head` names a linear layer on the pooled features that is the classifier, if its name is not the network's own.
    `preprocess` holds the fields of Preprocess that differ from those of the published weights of the same network and
    naming scheme; the notes say what was assumed. `out` is effnet-NAME by default.

    The bundle has the name and accuracy of published weights only if a hash proves that the file is theirs. Raises
    WeightsError if the file cannot be read or matched with a network, InputError if the classes do not fit.

    A detector of 90 classes has COCO's unless others are given: the outputs are counted from 0, without a background.
    """
    source = Path(path)
    if is_bundle(source):
        raise InputError(f"{source} must be a checkpoint; it is already a bundle")
    if not (source.exists() or source.with_name(f"{source.name}.index").exists()):
        raise InputError(f"CHECKPOINT must be a file of weights; there is no {printable(source)}")
    changes = _checked(preprocess or {})
    folder = Path(out) if out is not None else Path(f"effnet-{source.name.partition('.')[0] or 'imported'}")
    with new_bundle(folder) as beside:
        with tempfile.TemporaryDirectory(dir=beside, prefix=SCRATCH) as scratch:
            inside = unpack(source, Path(scratch) / "checkpoint") if is_archive_file(source) else source
            found, prepared, entry, told = _read(inside, model=model, head=head, changes=changes)
        proven = entry if entry and prepared == preprocess_of(entry) else None
        config, notes = _config(source, found, prepared, proven, classes=classes, order=class_order)
        notes = (*found.notes, *told, *notes)
        name = Path(os.path.realpath(folder)).name

        def card(config: ModelConfig) -> str:
            if proven:
                return published_card(proven, config.arch, config.preprocess, folder=name, checked=True)
            return imported_card(config, folder=name, notes=notes)

        write_bundle(beside, config, found.state, card=card)
    return Imported(folder=folder, config=config, notes=notes)


def _checked(preprocess: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are set; raise before a file is read if no Preprocess can have them."""
    given = {key: value for key, value in preprocess.items() if value is not None}
    if given.get("mode") in ("pad", "corner"):
        given = {"crop": 1.0} | given
    channels = len(given.get("mean") or given.get("std") or (0,) * 3)
    Preprocess.from_dict({"resolution": 1, "mean": (0.0,) * channels, "std": (1.0,) * channels} | given)
    return given


def _read(
    path: Path, *, model: str | None, head: str | None, changes: dict[str, Any]
) -> tuple[NetworkFile, Preprocess, PublishedWeights | None, tuple[str, ...]]:
    """Return the network, its preprocessing, the published weights that it equals, if any, and notes."""
    asked = named_or_none(model)
    described = None if asked else read_hub_config(path)  # an id brings its own preprocessing
    network = described.network if described and model is None else model
    found = read_network(weights_in(path), entry=asked, model=None if asked else network, head=head)
    if not found.spec.num_classes:
        raise no_classifier(found.located, where=str(path))
    entry = published_file(weights_in(path), found.spec)
    if described is not None:
        prepared, told = described.preprocess, "the config.json next to it"
    elif entry is not None and model is None:
        prepared, told = preprocess_of(entry), f"{entry.id}, whose published hash the file has"
    else:
        prepared, told = preprocess_for_import(found, model=model, path=path)
    prepared = for_network(prepared, found)
    prepared = Preprocess.from_dict(prepared.to_dict() | changes)
    if prepared.channels != found.spec.in_channels:
        raise InputError(
            f"mean and std must have a value for each of the network's {found.spec.in_channels} channels; "
            f"got {prepared.channels}"
        )
    but = f", except {', '.join(changes)}" if changes else ""
    return found, prepared, entry, (f"preprocessing is that of {told}{but}",)


def _config(
    source: Path,
    found: NetworkFile,
    preprocess: Preprocess,
    proven: PublishedWeights | None,
    *,
    classes: str | os.PathLike[str] | Sequence[str] | None,
    order: ClassOrder | None,
) -> tuple[ModelConfig, tuple[str, ...]]:
    from effnet.system.machine import versions

    told, task = found.told_names, task_for(found.spec)
    if task == "detection" and classes is None and not told and found.spec.num_classes == COCO_CLASSES:
        classes = COCO
    names, of = read_classes(classes, told=told, count=found.spec.num_classes, where=source.name, order=order)
    try:
        config = ModelConfig(
            arch=replace(found.spec, resolution=preprocess.resolution, height=preprocess.height),
            preprocess=preprocess,
            class_names=names,
            task=task,
            versions=versions(),
            origin=Origin(
                source=proven.id if proven else f"imported from {source.name}", published=proven.id if proven else ""
            ),
        )
    except UnicodeError as error:
        raise WeightsError(f"the class names must be text: {error}") from error
    return config, (f"the {len(names):,} classes are those of {of}",)
