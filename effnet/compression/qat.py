"""Quantization-aware training (QAT): train a network that rounds as its int8 export does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effnet.arch.cost import cost
from effnet.arch.decoders.layers import BOXES, MASK, SCORES
from effnet.arch.layers import named_layers
from effnet.bundle.weights import load_arrays_
from effnet.compression.fake_quant import FakeQuantize, calibrate_, round_, rounded_values
from effnet.compression.recovery import network_of, recover
from effnet.compression.subject import Sensitivity, Subject
from effnet.data.datasets import Dataset
from effnet.errors import SpecError
from effnet.nn.dense import DenseNetwork
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
) -> Network | DenseNetwork:
    """Return the subject's network with fake quantization, calibrated on `images`.

    `images` are uint8 [images, R, R, C], `weight_levels` is the export's largest weight. Only weights and feature maps
    are rounded: an export with bias correction is a little more accurate. The levels of a detector have layers of their
    own, whose weights are not shared.
    """
    network = network_of(subject) if subject.config.arch.decoder is None else _unshared(subject)
    round_(network, float_layers=float_layers, weight_levels=weight_levels)
    calibrate_(network, to_input(images, subject.config.preprocess, _CPU))
    return network.eval()


def _unshared(subject: Subject) -> DenseNetwork:
    """Return the network of a subject with a decoder in which each layer has its own copy of its weights."""
    spec, state = subject.config.arch, dict(subject.state)
    for name, layer in named_layers(spec):
        if layer.weights:
            parts = [key for key in subject.state if key.rpartition(".")[0] == layer.weights]
            state |= {f"{name}.{key.rpartition('.')[2]}": subject.state[key] for key in parts}
            for key in parts:
                state.pop(key, None)
    network = DenseNetwork(spec, drop_path=0.0, norm_momentum=0.1, shared=False)
    load_arrays_(network, state, where="the network to quantize")
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
    section 3; Krishnamoorthi 2018, sections 4.2 and 4.3 (frozen BatchNorm, per-channel weights). Raises SpecError for
    a network with a decoder: it would train layers apart whose weights must stay the same.
    """
    if subject.config.arch.decoder is not None:
        raise SpecError(
            f"quantization-aware training is for networks without a decoder; {subject.config.arch.name} detects or "
            "segments: quantize it after training"
        )
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
    run = network.rows if isinstance(network, DenseNetwork) else network
    reference = run(pixels)
    harm = {}
    for name in names:
        module = network.get_submodule(name)
        touching = [rounded[value] for value in (*layers[name].inputs, *_outputs(layers, name)) if value in rounded]
        _switch(module, touching, on=True)
        answers = run(pixels)
        _switch(module, touching, on=False)
        harm[name] = divergence(reference, answers, outputs)
    return tuple(sorted(harm.items(), key=lambda pair: -pair[1]))


def divergence(reference: Tensor, answers: Tensor, outputs: Sequence[Output]) -> float:
    """Return the divergence of predictions from `reference`, both values [images, columns]: the mean over the images.

    KL in nats for classes and tags, half the squared difference for numbers; the sum over the outputs. For a detector's
    scores and a segmenter's cells too, summed over their places; a box counts by its place's most probable class.
    """
    if any(output.name in (BOXES, MASK) and output.shape for output in outputs):
        return _divergence_in_image(reference, answers, outputs)
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


def _divergence_in_image(reference: Tensor, answers: Tensor, outputs: Sequence[Output]) -> float:
    """Return the divergence of the answers of a detector or a segmenter."""
    sizes = [output.width for output in outputs]
    before, after = (
        {
            output.name: part.reshape(len(part), *output.sides)
            for output, part in zip(outputs, values.split(sizes, dim=1), strict=True)
        }
        for values in (reference, answers)
    )
    if MASK in before:
        one, other = before[MASK].log_softmax(1), after[MASK].log_softmax(1)
        return float((one.exp() * (one - other)).flatten(1).sum(1).mean())
    plain = dataclasses.replace(outputs[0], activation="sigmoid", shape=(), width=before[SCORES][0].numel())
    scores = divergence(before[SCORES].flatten(1), after[SCORES].flatten(1), [plain])
    weight = before[SCORES].sigmoid().amax(2, keepdim=True)
    boxes = weight * (before[BOXES] - after[BOXES]).square() / 2
    return scores + float(boxes.flatten(1).sum(1).mean())


def _outputs(layers: dict, name: str) -> list[str]:
    """Return the names of the layer's result: its own, and that of the BatchNorm after it."""
    return [name, *(other for other, layer in layers.items() if layer.op == "norm" and layer.inputs[0] == name)]


def _quantizer(network: torch.nn.Module, name: str) -> FakeQuantize:
    found = network.get_submodule("ranges").get_submodule(name.replace(".", "/"))
    assert isinstance(found, FakeQuantize)
    return found


def _switch(module: torch.nn.Module, quantizers: Sequence[FakeQuantize], *, on: bool) -> None:
    module.rounds = on  # type: ignore[assignment]
    for quantizer in quantizers:
        quantizer.enabled = on
