"""The verb pull: published weights become a bundle that predicts without any training."""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.errors import InputError, WeightsError
from effnet.runtime.config import CONFIG, ModelConfig
from effnet.system.lock import SCRATCH, alone_in
from effnet.system.signals import held_interrupts
from effnet.weights.archive import is_archive, unpack
from effnet.weights.catalog import PublishedWeights, find
from effnet.weights.download import Progress, fetch, verify_hash
from effnet.weights.hub_config import weights_in

if TYPE_CHECKING:
    from effnet.weights.pretrained import Pretrained

_IMAGES = 4
_WITH_BACKGROUND = 1001


def pull(
    name: str,
    *,
    out: str | os.PathLike[str] | None = None,
    file: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Makes a bundle of the published weights `name` in the new folder `out`, and returns the folder.

    `name` is what effnet.weights.catalog.find takes; `out` is effnet-NAME by default. `file` is the published file,
    where it is on this machine already. The bundle has config.json, model.safetensors, README.md and, where there is
    a classifier, model.onnx, proven against the module. Raises WeightsError where the weights cannot be had or
    built, InputError where `out` is in use; then nothing is left behind but what was downloaded.
    """
    entry = find(name)
    if entry.unsupported or entry.untrained:
        reason = entry.unsupported or "no weights were published"
        raise WeightsError(f"effnet cannot make a bundle of {entry.id}: {reason}")
    folder = Path(out) if out is not None else Path(f"effnet-{entry.id.partition('/')[2]}")
    with alone_in(folder):
        _pull(entry, folder, file=file, offline=offline, progress=progress)
    return folder


def _pull(
    entry: PublishedWeights,
    folder: Path,
    *,
    file: str | os.PathLike[str] | None,
    offline: bool,
    progress: Progress | None,
) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} must be new or empty; it is not: name another --out")
    whole = Path(os.path.realpath(folder))
    beside = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        beside.mkdir(parents=True)  # before a download: a folder that cannot be written to must not cost one
        found, checked = _load(entry, beside, file=file, offline=offline, progress=progress)
        _write(entry, found, beside, name=whole.name, checked=checked)
        _move(beside, whole)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _load(
    entry: PublishedWeights,
    beside: Path,
    *,
    file: str | os.PathLike[str] | None,
    offline: bool,
    progress: Progress | None,
) -> tuple["Pretrained", bool]:
    """Returns the weights, and whether a hash showed that they are the published ones."""
    if file is None:
        path = fetch(entry, offline=offline, progress=progress)
        return _read(entry, offline=offline), path.is_file() and verify_hash(path, entry)
    path = Path(file)
    if not path.exists():
        raise WeightsError(f"{path} must be the published file of {entry.id}; there is no such file")
    checked = _verify(weights_in(path), entry)
    with tempfile.TemporaryDirectory(dir=beside, prefix=SCRATCH) as scratch:
        inside = unpack(path, Path(scratch) / "checkpoint") if is_archive(path.name) else path
        found = _read(entry, file=inside)
    classes = entry.num_classes - (entry.num_classes == _WITH_BACKGROUND)
    if found.spec.num_classes not in (0, classes):
        raise WeightsError(
            f"{path} has {found.spec.num_classes} classes and {entry.id} has {classes}: it is another file"
        )
    return found, checked


def _verify(path: Path, entry: PublishedWeights) -> bool:
    """Returns whether a hash shows that this is the published file; raises WeightsError where it must be and is not.

    timm's hashes are those of its older files, which the names tell from the rest; the hub's cache has its own.
    """
    bears_name = path.name in entry.legacy_files
    if not path.is_file() or (entry.scheme == "timm" and not bears_name and path.suffix != ".safetensors"):
        return False
    if bears_name:
        return verify_hash(path, entry)
    return verify_hash(path, entry, advice="get it again; for weights of your own: effnet fit DATA --weights FILE")


def _read(entry: PublishedWeights, **options: Any) -> "Pretrained":
    # Torch loads here, once the file is there.
    from effnet.weights.pretrained import load_published

    return load_published(entry, **options)


def _move(beside: Path, folder: Path) -> None:
    """Gives the finished bundle its place; in a folder that exists, config.json last: with it, it is a bundle."""
    if not folder.is_dir():
        os.replace(beside, folder)
        return
    with held_interrupts() as interrupt:
        for path in sorted(beside.iterdir(), key=lambda path: path.name == CONFIG):
            os.replace(path, folder / path.name)
    interrupt.check()


def _write(entry: PublishedWeights, found: "Pretrained", folder: Path, *, name: str, checked: bool) -> None:
    from effnet.exporting.bundle import export_onnx
    from effnet.measure.machine import versions
    from effnet.runtime.config import digests_of, write_digests, write_text
    from effnet.weights.bundle import save_bundle
    from effnet.weights.card import model_card

    spec = dataclasses.replace(found.spec, name=entry.id, resolution=found.preprocess.resolution)
    config = ModelConfig(arch=spec, preprocess=found.preprocess, class_names=found.class_names, versions=versions())
    save_bundle(folder, config, found.state)
    if spec.num_classes:
        export_onnx(folder, config, found.state)
        write_digests(folder, digests_of(folder, ["onnx"]))
        _check(folder, config)
    write_text(folder / "README.md", model_card(entry, spec, found.preprocess, folder=name, checked=checked))


def _check(folder: Path, config: ModelConfig) -> None:
    """Raises EffnetError where model.onnx does not give the module's probabilities."""
    from effnet.exporting.verify import check_export
    from effnet.runtime.predictor import Predictor
    from effnet.weights.bundle import load_module

    side = config.preprocess.resolution
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, side, side, 3), dtype=np.uint8)
    check_export(load_module(folder), Predictor(folder), images)
