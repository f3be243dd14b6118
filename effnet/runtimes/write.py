"""Write a bundle's export in any format; each runtime's writer is in its own file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.errors import InputError, SpecError, nearest
from effnet.runtimes.probe import trust
from effnet.runtimes.registry import RUNTIMES, find_export

Calibration = Literal["minmax", "percentile", "entropy"]
BiasCorrection = Literal["none", "fast", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """The settings of int8 quantization: calibration, bias correction and float layers.

    `float_layers` are names of `named_layers`: convolutions and linear layers whose weights, inputs and outputs stay
    fp32. A runtime's writer raises InputError for settings that it does not support. `pair_stem` is for ONNX Runtime on
    the x86 processors that int8_stem names: the same numbers, faster there.
    """

    method: Calibration = "minmax"
    bias_correction: BiasCorrection = "fast"
    float_layers: tuple[str, ...] = ()
    pair_stem: bool = False


def write_export(
    name: str,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None = None,
    quantization: Quantization | None = None,
    maps: bool = False,
) -> Path:
    """Write the format `name` of a state dict as arrays into `folder`, whole or not at all, and return its path.

    `images`, preprocessed uint8 [images, R, R, C], calibrate int8. With `maps` the file returns activation maps too
    (effnet.runtimes.maps). Raises InputError for int8 without images, and for maps that the format cannot have,
    MissingExtraError if the runtime's packages are not installed, SpecError if the runtime lacks an operator or the
    network has no classifier (not needed by formats of embeddings).
    """
    target = find_export(name)
    if target.precision == "int8" and (images is None or not len(images)):
        raise InputError(f"{name} must be calibrated on images; got none: give --data DATA")
    quantization = quantization or Quantization()
    check_float_layers(quantization.float_layers, config.arch)
    check_task(config, target)
    if maps:
        check_maps(config, target)
    if target.result == "features":
        config = without_classifier(config)
    else:
        check_classifier(config, target)
    writer = import_module(f"{RUNTIMES[target.runtime].home}.writer")
    more = {"maps": True} if maps else {}  # a runtime without maps need not know them
    writer.write(target, folder, config, state, images=images, quantization=quantization, **more)
    trust(folder, target)
    return folder / target.file


def without_classifier(config: ModelConfig) -> ModelConfig:
    """Return the config of a bundle's backbone, whose graph ends at the features."""
    arch = replace(config.arch, num_classes=0)
    return replace(config, arch=arch, class_names=(), specs=(), temperature=1.0, threshold=None, known=None)


def check_task(config: ModelConfig, target: Format) -> None:
    """Raise InputError for a format that the bundle's task does not have."""
    task, decoded = config.task_record, config.arch.decoder is not None
    if target.result == "features":
        if decoded:
            raise InputError(f"embeddings are those of classifiers; this bundle's task is {config.task}")
        return
    if not RUNTIMES[target.runtime].can_run and not decoded:
        config.must_classify(target.name)
    if target.precision == "int8" and task.right is None and not task.figure_drop:
        raise InputError(
            f"{target.name} is accepted by the right answers that it loses; this bundle's task, {config.task}, does "
            "not say which are right (Task.right): export fp32 or fp16"
        )


def check_maps(config: ModelConfig, target: Format) -> None:
    """Raise InputError for a network or a format that cannot return activation maps."""
    if target.result == "features":
        raise InputError("activation maps are those of a classifier; give --maps or --features, not both")
    if config.arch.decoder is not None:
        raise InputError(f"activation maps are those of a classifier; this bundle's task is {config.task}")
    if not RUNTIMES[target.runtime].maps:
        known = ", ".join(name for name, runtime in RUNTIMES.items() if runtime.maps)
        raise InputError(f"files of {known} can return activation maps; got {target.name}")


def check_classifier(config: ModelConfig, target: Format) -> None:
    """Raise SpecError for a network without a last layer, which cannot answer."""
    if not config.arch.num_classes:
        raise SpecError(
            f"a bundle's {target.file} outputs {config.task_record.output.name}, but {config.arch.name} has no "
            "classifier (num_classes = 0); train one on your images: effnet fit DATA --weights BUNDLE"
        )


def check_float_layers(names: Iterable[str], spec: ArchSpec) -> None:
    """Raise InputError for a name that is no convolution or linear layer of `spec`; suggest the nearest that is."""
    known = [name for name, layer in named_layers(spec) if layer.op in ("conv", "linear")]
    for name in names:
        if name not in known:
            raise InputError(
                f"a layer that stays float must be a convolution or a linear layer of {spec.name}; got {name!r}"
                f"{nearest(name, known)}"
            )
