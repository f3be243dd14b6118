"""Untrained bundles of a small detector and a small segmenter."""

from effnet.arch.catalog import get_spec
from effnet.arch.decoders.usual import with_detector, with_segmenter
from effnet.arch.scale import scale
from effnet.bundle.config import ModelConfig, write_config
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import build_dense
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.tasks.registry import task_for

NAMES = ("cat", "dog")


def untrained_bundle(folder, task):
    """Write the bundle of a network for a task, "detection" or "segmentation", into `folder`, and return it."""
    backbone = scale(get_spec("b0"), phi=-16, resolution=64)
    spec = (with_detector if task == "detection" else with_segmenter)(backbone, len(NAMES))
    half = (0.5,) * 3
    preprocess = Preprocess(
        resolution=64, mode="corner", crop=1.0, interpolation="bilinear", mean=half, std=half
    )  # fmt: skip
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=NAMES, task=task_for(spec), threshold=0.001)
    state = state_arrays(build_dense(spec, seed=0))
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    write_config(config, folder)
    return folder
