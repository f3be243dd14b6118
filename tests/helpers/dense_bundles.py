"""Bundles of a detector and a segmenter that are not trained, for the sets of `annotated_sets`."""

import dataclasses
from pathlib import Path

import numpy as np
from annotated_sets import TERRAIN
from decoders import LITE0, config_of, outputs_of, settled, small

from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.runtimes.onnxruntime.writer import export_onnx

# Of the scores of noise, this share is above the threshold of the detector: some objects in any image.
_FOUND = 0.02


def write_detector(folder: Path) -> Path:
    """Write a detector of buttons and coins, whose input of 128 x 96 pixels holds about 250 points."""
    spec = small(dataclasses.replace(with_detector(LITE0, 2), resolution=128, height=96))
    network = settled(spec)
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    logits = np.sort(outputs_of(network, noise)["scores"].ravel())
    least = logits[-max(1, round(_FOUND * len(logits)))]
    names = ("button", "coin")
    return _write(folder, network, class_names=names, threshold=round(float(1 / (1 + np.exp(-least))), 4))


def write_segmenter(folder: Path) -> Path:
    """Write a segmenter of the classes of the terrain."""
    spec = small(dataclasses.replace(with_segmenter(LITE0, len(TERRAIN)), resolution=128, height=96))
    return _write(folder, settled(spec), class_names=tuple(TERRAIN))


def _write(folder: Path, network, **facts) -> Path:
    config = config_of(network.spec)
    preprocess = dataclasses.replace(config.preprocess, interpolation="bilinear")
    config = dataclasses.replace(config, preprocess=preprocess, **facts)
    state = state_arrays(network)
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    return folder
