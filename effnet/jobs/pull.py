"""The verb pull: turn published weights into a bundle that predicts without any training."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.bundle.config import ModelConfig
from effnet.bundle.config_fields import Origin
from effnet.errors import WeightsError
from effnet.jobs.new_bundle import new_bundle, write_bundle
from effnet.report.cards.published import imported_card, published_card
from effnet.system.lock import SCRATCH
from effnet.weights.catalog import PublishedWeights, find
from effnet.weights.download import Progress, fetch, is_published, verify_hash
from effnet.weights.hub_config import weights_in
from effnet.weights.readers.archive import is_archive, unpack

if TYPE_CHECKING:
    from effnet.weights.pretrained import Pretrained

_WITH_BACKGROUND = 1001


def pull(
    name: str,
    *,
    out: str | os.PathLike[str] | None = None,
    file: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Make a bundle from the published weights `name` in the new folder `out`, and return the folder.

    `name` is what effnet.weights.catalog.find takes; `out` is effnet-NAME by default. `file` is the published file, if
    it is already on this machine; if no hash proves that it is, the bundle says so and has neither the name nor the
    accuracy of the published weights. The bundle has config.json, model.safetensors, README.md and, if there is a
    classifier, model.onnx, checked against the module. Raises WeightsError if the weights cannot be downloaded or
    built, InputError if `out` is in use; then only the download is left behind.
    """
    entry = find(name)
    if entry.unsupported or entry.untrained:
        reason = entry.unsupported or "no weights were published"
        raise WeightsError(f"effnet cannot make a bundle of {entry.id}: {reason}")
    folder = Path(out) if out is not None else Path(f"effnet-{entry.id.partition('/')[2]}")
    with new_bundle(folder) as beside:
        found, checked = _load(entry, beside, file=file, offline=offline, progress=progress)
        _write(entry, found, beside, name=Path(os.path.realpath(folder)).name, checked=checked)
    return folder


def _load(
    entry: PublishedWeights,
    beside: Path,
    *,
    file: str | os.PathLike[str] | None,
    offline: bool,
    progress: Progress | None,
) -> tuple["Pretrained", bool]:
    """Return the weights, and whether a hash proves that they are the published ones."""
    if file is None:
        path = fetch(entry, offline=offline, progress=progress)
        return _read(entry, offline=offline), path.is_file() and verify_hash(path, entry)
    path = Path(file)
    if not path.exists():
        raise WeightsError(f"{path} must be the published file of {entry.id}; there is no such file")
    _verify(weights_in(path), entry)
    with tempfile.TemporaryDirectory(dir=beside, prefix=SCRATCH) as scratch:
        inside = unpack(path, Path(scratch) / "checkpoint") if is_archive(path.name) else path
        found = replace(_read(entry, file=inside), source=str(path))
    classes = entry.num_classes - (entry.num_classes == _WITH_BACKGROUND)
    if found.spec.num_classes not in (0, classes):
        raise WeightsError(
            f"{path} has {found.spec.num_classes} classes and {entry.id} has {classes}: it is another file"
        )
    return found, bool(found.published)


def _verify(path: Path, entry: PublishedWeights) -> None:
    """Raise WeightsError if the file must be the published one and has another hash.

    timm's hashes are of its older files, recognised by their names; the hub's cache has its own hashes.
    """
    bears_name = path.name in entry.legacy_files
    if not path.is_file() or is_published(path, entry):
        return
    if entry.scheme == "timm" and not bears_name and path.suffix != ".safetensors":
        return
    advice = (
        {}
        if bears_name
        else {"advice": "download it again; your own weights: effnet models import FILE --classes NAMES"}
    )
    verify_hash(path, entry, **advice)


def _read(entry: PublishedWeights, **options: Any) -> "Pretrained":
    # Torch loads here, after the file has been downloaded.
    from effnet.weights.pretrained import load_published

    return load_published(entry, **options)


def _write(entry: PublishedWeights, found: "Pretrained", folder: Path, *, name: str, checked: bool) -> None:
    from effnet.system.machine import versions

    config = ModelConfig(
        arch=replace(found.spec, resolution=found.preprocess.resolution),
        preprocess=found.preprocess,
        class_names=found.class_names,
        versions=versions(),
        origin=Origin(source=found.published or f"imported from {Path(found.source).name}", published=found.published),
    )

    def card(config: ModelConfig) -> str:
        if found.published:
            return published_card(entry, config.arch, found.preprocess, folder=name, checked=checked)
        note = f"They were given as {entry.id}, but no published hash proves it."
        return imported_card(config, folder=name, notes=(note,))

    write_bundle(folder, config, found.state, card=card)
