"""Export a bundle to Core ML's model.mlpackage, on any machine; only Apple's systems can run it."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import model_metadata
from effnet.errors import MissingExtraError
from effnet.runtimes.executorch.deployed import Deployed, deployed_module
from effnet.runtimes.quiet import quiet
from effnet.runtimes.write import Quantization
from effnet.system.lock import SCRATCH
from effnet.tasks.task import names_in_file


class _Pixels(nn.Module):
    """The deployed graph with Core ML's input: floats of 0..255 [1, channels, height, width]."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels to probabilities [1, classes]."""
        return self.deployed.from_pixels(pixels)


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: Quantization,
) -> None:
    """Write model.mlpackage into `folder`, whole or not at all: an fp16 ML program for iOS 15 and later.

    Its input `image` is an RGB or grayscale image, as Vision and Xcode's preview pass one; networks with another number
    of channels take float32 [1, channels, height, width] of 0..255. Its outputs are the most likely class,
    `classLabel`, and the probability of each class by name; several outputs, and those of a decoder, have their own
    names instead. The metadata hold `preprocess` and `class_names` as JSON. It cannot run here, so its numbers are not
    checked. Raises MissingExtraError without coremltools.
    """
    module = _Pixels(deployed_module(config, state)).eval()
    with quiet():
        coremltools = _import()
        shape = (1, config.preprocess.channels, *config.arch.size_at(config.preprocess.resolution))
        with torch.no_grad():
            traced = torch.jit.trace(module, torch.zeros(shape))
        model = coremltools.convert(
            traced,
            inputs=[_image(coremltools, shape)],
            **_outputs(coremltools, config),
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS15,
            compute_precision=coremltools.precision.FLOAT16,
            skip_model_load=True,
        )
    several = f"{len(config.specs)} outputs" if config.specs else f"{len(config.class_names)} classes"
    model.short_description = f"{config.arch.name}, {several}"
    model.user_defined_metadata.update(model_metadata(config))
    _replace(model, folder / target.file)


def _import() -> Any:
    try:
        import coremltools
    except ImportError as error:
        raise MissingExtraError("coremltools", "coreml") from error
    return coremltools


def _image(coremltools: Any, shape: tuple[int, ...]) -> Any:
    layouts = {1: coremltools.colorlayout.GRAYSCALE, 3: coremltools.colorlayout.RGB}
    if shape[1] not in layouts:
        return coremltools.TensorType(name="image", shape=shape)
    return coremltools.ImageType(name="image", shape=shape, color_layout=layouts[shape[1]])


def _outputs(coremltools: Any, config: ModelConfig) -> dict[str, Any]:
    """Return the options of the conversion that name the outputs."""
    if not config.specs and config.arch.decoder is None:
        return {"classifier_config": coremltools.ClassifierConfig(list(config.class_names))}
    return {"outputs": [coremltools.TensorType(name=name) for name in names_in_file(config.file_outputs)]}


def _replace(model: Any, path: Path) -> None:
    """Save the package beside `path` and move it there; one folder cannot replace another in a single step."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=SCRATCH) as scratch:
        model.save(str(Path(scratch) / path.name))
        if path.exists():
            os.replace(path, Path(scratch) / "before")
        try:
            os.replace(Path(scratch) / path.name, path)
        except OSError:
            if (Path(scratch) / "before").exists():
                shutil.move(Path(scratch) / "before", path)
            raise
