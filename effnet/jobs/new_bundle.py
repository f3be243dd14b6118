"""A new bundle of trained weights: written next to its folder, verified, and only then moved into place."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.names import CONFIG, WEIGHTS
from effnet.errors import InputError
from effnet.system.cache import file_digest
from effnet.system.lock import alone_in
from effnet.system.signals import held_interrupts

# The images of the check; networks with a decoder are so large that one must do.
_IMAGES, _LARGE_IMAGES = 4, 1


@contextmanager
def new_bundle(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files move to `folder` on success; on an error nothing is left.

    Raises InputError if `folder` is in use.
    """
    with alone_in(folder):
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"{folder} must be new or empty; it is not: name another --out")
        whole = Path(os.path.realpath(folder))
        beside = whole.with_name(f".{whole.name}.part")
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
        try:
            beside.mkdir(parents=True)  # fails before the download if it cannot be written to
            yield beside
            _move(beside, whole)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def write_bundle(
    folder: Path, config: ModelConfig, state: dict[str, np.ndarray], *, card: Callable[[ModelConfig], str]
) -> None:
    """Write a whole bundle; model.onnx, if there is a classifier, is checked against the module.

    The config's origin records the hash of the weights. Raises EffnetError if the two differ.
    """
    # Torch and ONNX load here, after the weights have been downloaded.
    from effnet.bundle.config import write_config, write_digests, write_text
    from effnet.bundle.weights import save_bundle
    from effnet.runtimes.digests import digests_of
    from effnet.runtimes.onnxruntime.writer import export_onnx

    save_bundle(folder, config, state)
    if config.origin is not None:
        digest = file_digest(folder / WEIGHTS, "sha256")
        config = replace(config, origin=replace(config.origin, weights_sha256=digest))
        write_config(config, folder)
    if config.arch.num_classes:
        export_onnx(folder, config, state)
        write_digests(folder, digests_of(folder, ["onnx"]))
        _check(folder, config)
    write_text(folder / "README.md", card(config))


def _move(beside: Path, folder: Path) -> None:
    """Move the finished bundle into place; in an existing folder, config.json comes last: it makes it a bundle."""
    if not folder.is_dir():
        os.replace(beside, folder)
        return
    with held_interrupts() as interrupt:
        for path in sorted(beside.iterdir(), key=lambda path: path.name == CONFIG):
            os.replace(path, folder / path.name)
    interrupt.check()


def _check(folder: Path, config: ModelConfig) -> None:
    """Record the answers of model.onnx in proof.json; raise EffnetError if they are not the module's."""
    from effnet.bundle.weights import load_module
    from effnet.measurement.verify import check_export
    from effnet.runtimes.predictor import Predictor
    from effnet.runtimes.recorded import record_answers

    number = _IMAGES if config.arch.decoder is None else _LARGE_IMAGES
    shape = (number, *config.preprocess.size, config.preprocess.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    predictor = Predictor(folder)
    check_export(load_module(folder), predictor, images)
    record_answers(predictor, folder)
