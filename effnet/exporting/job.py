"""The verb export: a bundle's weights become its ONNX file, proven against the module."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from effnet.data.datasets import load_image, read_dataset
from effnet.data.preprocess import resize_and_crop
from effnet.exporting.bundle import export_onnx
from effnet.runtime.config import CONFIG, ONNX
from effnet.runtime.predictor import Predictor

_IMAGES = 64


def export(folder: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None):
    """Writes model.onnx into the bundle `folder` and returns its ExportCheck against the module.

    The check runs on pictures of `data`, or on random ones. Raises EffnetError where they differ, and leaves the
    old file as it was.
    """
    # Torch loads here: importing effnet.export must not need it.
    from effnet.exporting.verify import check_export
    from effnet.weights.bundle import load_module, load_state

    folder = Path(folder)
    pictures = _pictures(Predictor(folder), data)
    # Within the folder, so that the file moves in whole once it is proven; until then the old one stays.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        shutil.copyfile(folder / CONFIG, Path(scratch) / CONFIG)
        predictor = Predictor(scratch)
        path = export_onnx(Path(scratch), predictor.config, load_state(folder))
        found = check_export(load_module(folder), predictor, pictures)
        os.replace(path, folder / ONNX)
    return found


def _pictures(predictor: Predictor, data: str | os.PathLike[str] | None) -> np.ndarray:
    preprocess = predictor.config.preprocess
    if data is None:
        shape = (_IMAGES, preprocess.resolution, preprocess.resolution, preprocess.channels)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    dataset = read_dataset(data, channels=preprocess.channels)
    images = [load_image(dataset.test, i, channels=preprocess.channels) for i in range(min(_IMAGES, len(dataset.test)))]
    return np.stack([resize_and_crop(image, preprocess) for image in images])
