"""Make a bundle of a module that was trained in a program's own code."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from effnet.bundle.config import ModelConfig
from effnet.bundle.config_fields import Origin
from effnet.bundle.weights import state_arrays
from effnet.data.preprocess import Preprocess
from effnet.errors import WeightsError
from effnet.jobs.new_bundle import new_bundle, write_bundle
from effnet.nn.network import Network
from effnet.report.cards.published import imported_card
from effnet.system.machine import versions
from effnet.training.input.transforms import transforms


def save(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] = (),
    preprocess: Preprocess | None = None,
) -> Path:
    """Make a bundle of a network of effnet in the new folder `folder`, for `effnet.load` and every command.

    `class_names` are the classes in the order of the logits, none if there is no classifier. `preprocess` is the
    model's own by default, that of `effnet.transforms`. The bundle has config.json, model.safetensors, README.md and,
    if there is a classifier, model.onnx, checked against the module. Raises WeightsError for another module,
    BundleError if the names do not fit, InputError if `folder` is in use; then nothing is left behind.
    """
    if not isinstance(model, Network):
        raise WeightsError(
            f"the model must be a whole network of effnet, as create_model and build return it; got "
            f"{type(model).__name__}"
        )
    preprocess = preprocess or transforms(model).preprocess
    config = ModelConfig(
        arch=dataclasses.replace(model.spec, resolution=preprocess.resolution),
        preprocess=preprocess,
        class_names=tuple(class_names),
        versions=versions(),
        origin=Origin(source="trained in a program of its own"),
    )
    path = Path(folder)
    name = Path(os.path.realpath(path)).name
    with new_bundle(path) as beside:
        write_bundle(beside, config, state_arrays(model), card=lambda config: imported_card(config, folder=name))
    return path
