"""Quantization-aware training (QAT): train a network that rounds as its int8 export does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.compression.fake_quant import FakeQuantize, calibrate_, round_, rounded_values
from effnet.compression.recovery import network_of, recover
from effnet.compression.subject import Sensitivity, Subject
from effnet.data.datasets import Dataset
from effnet.nn.network import Network
from effnet.progress import Listener
from effnet.runtimes.onnxruntime.int8_graph import WEIGHT_LEVELS
from effnet.tasks.task import Output
from effnet.training.device import to_input
from effnet.training.recipe.schema import Recipe

_CPU = torch.device("cpu")
# Sensitivity runs the network once per layer, on as many images as this budget of multiply-accumulates allows.
_MACS, _LEAST_IMAGES, _MOST_IMAGES = 300e9, 8, 128


def rounded_network(
    subject: Subject, images: np.ndarray, *, float_layers: Sequence[str] = (), weight_levels: int = WEIGHT_LEVELS
) -> Network:
    """Return the subject's network with fake quantization, calibrated on `images`.

    `images` are uint8 [images, R, R, C], `weight_levels` is the export's largest weight. Only weights and feature maps
    are rounded: an export with bias correction is a little more accurate.
    """
    network = network_of(subject)
    round_(network, float_layers=float_layers, weight_levels=weight_levels)
    calibrate_(network, to_input(images, subject.config.preprocess, _CPU))
    return network.eval()


def train_rounded(
    subject: Subject,
    dataset: Dataset,
    images: np.ndarray,
    recipe: Recipe,
    *,
    folder: Path,
    listener: Listener | None = None,
    deadline_seconds: float | None = None,
    weight_levels: int = WEIGHT_LEVELS,
) -> Subject:
    """Return the subject with weights from QAT; they are floats, for any int8 exporter to quantize.

    BatchNorm statistics are frozen, so that weights are rounded as they will be after folding; ranges follow the
    batches at first and are frozen later. `images` and `weight_levels` are those of the export. Gradients pass straight
    through rounding. The best epoch is chosen by the validation accuracy with rounding. Sources: Jacob et al. 2018,
    section 3; Krishnamoorthi 2018, sections 4.2 and 4.3 (frozen BatchNorm, per-channel weights).
    """
    network = rounded_network(subject, images, float_layers=subject.float_layers, weight_levels=weight_levels)
    # In float32: bfloat16 has fewer values in a range than the 256 of int8.
    plan = dataclasses.replace(recipe.train, frozen_norms=True, fused=False, recompute="none", precision="float32")
    recipe = dataclasses.replace(recipe, name="qat", train=plan)
    state = recover(
        network, subject, dataset, recipe, folder=folder, listener=listener, deadline_seconds=deadline_seconds
    )
    return dataclasses.replace(subject, state=state)


@torch.no_grad()
def sensitive_layers(subject: Subject, images: np.ndarray, *, weight_levels: int = WEIGHT_LEVELS) -> Sensitivity:
    """Return convolutions and linear layers by their sensitivity to quantization, the most sensitive first.

    The sensitivity is the mean divergence of the predictions from the float network's if only this layer's weights,
    inputs and outputs are quantized. `images` are uint8 [images, R, R, C].
    """
    layers = dict(named_layers(subject.config.arch))
    names = [name for name, layer in layers.items() if layer.op in ("conv", "linear")]
    count = int(_MACS / (len(names) * cost(subject.config.arch).macs))
    images = images[: max(_LEAST_IMAGES, min(_MOST_IMAGES, count))]
    network = rounded_network(subject, images, weight_levels=weight_levels)
    pixels = to_input(images, subject.config.preprocess, _CPU)
    rounded = {name: _quantizer(network, name) for name in rounded_values(subject.config.arch)}
    for quantizer in rounded.values():
        quantizer.enabled = False
    for name in names:
        network.get_submodule(name).rounds = False  # type: ignore[assignment]
    outputs = subject.config.file_outputs
    reference = network(pixels)
    harm = {}
    for name in names:
        module = network.get_submodule(name)
        touching = [rounded[value] for value in (*layers[name].inputs, *_outputs(layers, name)) if value in rounded]
        _switch(module, touching, on=True)
        answers = network(pixels)
        _switch(module, touching, on=False)
        harm[name] = divergence(reference, answers, outputs)
    return tuple(sorted(harm.items(), key=lambda pair: -pair[1]))


def divergence(reference: Tensor, answers: Tensor, outputs: Sequence[Output]) -> float:
    """Return the divergence of predictions from `reference`, both values [images, columns]: the mean over the images.

    KL in nats for classes and tags, half the squared difference for numbers; the sum over the outputs.
    """
    total, first = 0.0, 0
    for output in outputs:
        before, after = (values[:, first : first + output.width] for values in (reference, answers))
        first += output.width
        if output.activation == "softmax":
            before, after = before.log_softmax(1), after.log_softmax(1)
            part = before.exp() * (before - after)
        elif output.activation == "sigmoid":
            sure, other = (functional.logsigmoid(before), functional.logsigmoid(after))
            no, other_no = (functional.logsigmoid(-before), functional.logsigmoid(-after))
            part = sure.exp() * (sure - other) + no.exp() * (no - other_no)
        else:
            part = (before - after).square() / 2
        total += float(part.sum(1).mean())
    return total


def _outputs(layers: dict, name: str) -> list[str]:
    """Return the names of the layer's result: its own, and that of the BatchNorm after it."""
    return [name, *(other for other, layer in layers.items() if layer.op == "norm" and layer.inputs[0] == name)]


def _quantizer(network: Network, name: str) -> FakeQuantize:
    found = network.get_submodule("ranges").get_submodule(name.replace(".", "/"))
    assert isinstance(found, FakeQuantize)
    return found


def _switch(module: torch.nn.Module, quantizers: Sequence[FakeQuantize], *, on: bool) -> None:
    module.rounds = on  # type: ignore[assignment]
    for quantizer in quantizers:
        quantizer.enabled = on
