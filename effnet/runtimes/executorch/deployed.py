"""The deployed graph as a torch module: normalisation, network with BatchNorm folded in, outputs of the task."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import Size, map_sizes, named_layers, same_padding
from effnet.bundle.config import ModelConfig
from effnet.nn.layers import ChannelConv, SameConv2d
from effnet.nn.network import Network, build
from effnet.runtimes.executorch.decoded import Decoded
from effnet.tasks.task import Activation, Output
from effnet.weights.folding import calibrated_weights, own_weights, pixel_mean, scaled_stem

Rows: TypeAlias = Tensor | tuple[Tensor, ...]
"""What a file returns for images: one output [batch, classes], or several."""


class Deployed(nn.Module):
    """Map images to the outputs of the task, such as probabilities, or to features if there is no last layer.

    BatchNorm is folded into its convolutions, and the pixels' standard deviation into the first one.

    The names within `network` are those of `named_layers`, but for the last layer of several outputs (`Heads`). With
    `maps`, a convolution with the last layer's weights, the activation maps are the last output.
    """

    mean: Tensor

    def __init__(
        self,
        network: Network | Decoded,
        mean: np.ndarray,
        *,
        activation: Activation = "none",
        maps: nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.maps = maps
        self.activation = activation
        self.register_buffer("mean", torch.from_numpy(mean)[:, None, None])

    def forward(self, image: Tensor) -> Rows:
        """Map uint8 [batch, height, width, channels] to probabilities [batch, classes], or other outputs."""
        # ExecuTorch's XNNPACK permutes the axes of floats itself, but not of bytes.
        return self.from_pixels(image.to(torch.float32).permute(0, 3, 1, 2))

    def from_pixels(self, pixels: Tensor) -> Rows:
        """Map float32 [batch, channels, height, width] of 0..255 to probabilities [batch, classes], or others."""
        if self.maps is None:
            return _activated(self.network(pixels - self.mean), self.activation)
        last = self.network.forward_features(pixels - self.mean)
        rows = _activated(self.network.forward_head(last), self.activation)
        return *(rows if isinstance(rows, tuple) else (rows,)), self.maps(last)


class Head(nn.Module):
    """The columns of one of several outputs, and what a file returns for them."""

    def __init__(self, linear: nn.Linear, answer: Output) -> None:
        super().__init__()
        self.linear, self.answer = linear, answer

    def forward(self, features: Tensor) -> Tensor:
        """Map features [batch, channels] to the output [batch, width]."""
        rows = _activated(self.linear(features), self.answer.activation)
        return rows if self.answer.activation != "none" else rows * self.answer.scale + self.answer.mean


class Heads(nn.ModuleList):
    """The last layer of several outputs, each a linear layer of its own.

    In int8 a feature map has one range, which would be too wide for the smaller of unlike outputs.
    """

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Map features [batch, channels] to the outputs, [batch, width] each."""
        return tuple(head(features) for head in self)


def _activated(rows: Any, activation: Activation) -> Any:
    match activation:
        case "softmax":
            return rows.softmax(1)
        case "sigmoid":
            return rows.sigmoid()
    return rows


def deployed_module(config: ModelConfig, state: Mapping[str, np.ndarray], *, maps: bool = False) -> Deployed:
    """Return the module of a bundle's config and state dict as arrays, in evaluation mode.

    Its output is that of the bundle's model.onnx.
    """
    spec, preprocess = config.arch, config.preprocess
    weights, size = own_weights(spec, calibrated_weights(config, state)), spec.size_at(preprocess.resolution)
    weights["stem.conv.weight"] = scaled_stem(weights, preprocess.std)
    if spec.decoder is not None:
        decoded = Decoded(spec, size, weights)
        _settle(decoded, size)
        _fill(decoded, weights)
        return Deployed(decoded, pixel_mean(preprocess.mean)).eval()
    network = build(spec, seed=0)
    _settle(network, size)
    _fill(network, weights)
    answers, places = config.file_outputs, _places(network.classifier) if maps else None
    if len(answers) > 1:
        network.classifier = _split(network.classifier, answers)
    activation = answers[0].activation if len(answers) == 1 else "none"
    return Deployed(network, pixel_mean(preprocess.mean), activation=activation, maps=places).eval()


@torch.no_grad()
def _places(classifier: nn.Linear) -> nn.Conv2d:
    """Return the last layer without its bias as a convolution, which maps a feature map to activation maps."""
    conv = nn.Conv2d(classifier.in_features, classifier.out_features, 1, bias=False)
    conv.weight.copy_(classifier.weight[:, :, None, None])
    return conv


@torch.no_grad()
def _split(classifier: nn.Linear, answers: Sequence[Output]) -> Heads:
    """Return the last layer as one linear layer for each of several outputs."""
    heads, first = [], 0
    for answer in answers:
        linear = nn.Linear(classifier.in_features, answer.width)
        linear.weight.copy_(classifier.weight[first : first + answer.width])
        linear.bias.copy_(classifier.bias[first : first + answer.width])
        heads.append(Head(linear, answer))
        first += answer.width
    return Heads(heads)


class PaddedConv2d(nn.Conv2d):
    """A convolution whose input is first padded by fixed numbers of zeros: left, right, top, bottom."""

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, in_channels, height, width] to [batch, out_channels, ...]."""
        return super().forward(functional.pad(input, self.pads))


def _settle(network: Network | Decoded, size: Size) -> None:
    """Replace paddings computed from a feature map's side, which not every converter supports, with their values.

    If both ends are padded equally, the convolution pads by itself, which is faster than a separate operation.
    """
    layers = named_layers(network.spec)
    sizes = map_sizes(layers, size)
    for name, layer in layers:
        if layer.op != "conv" or not isinstance(network.get_submodule(name), SameConv2d):
            continue
        (top, bottom), (left, right) = (
            same_padding(side, kernel_size=layer.kernel_size, stride=layer.stride) for side in sizes[layer.inputs[0]]
        )
        conv = (nn.Conv2d if (top, left) == (bottom, right) else PaddedConv2d)(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, groups=layer.groups
        )
        if isinstance(conv, PaddedConv2d):
            conv.pads = (left, right, top, bottom)
        else:
            conv.padding = (top, left)
        network.set_submodule(name, conv)


@torch.no_grad()
def _fill(network: Network | Decoded, weights: Mapping[str, np.ndarray]) -> None:
    """Write folded weights into `network`; its BatchNorm layers become the identity."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
        elif isinstance(module, ChannelConv):
            module.weight = nn.Parameter(torch.from_numpy(weights[f"{name}.weight"]))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight = nn.Parameter(torch.from_numpy(weights[f"{name}.weight"]))
            module.bias = nn.Parameter(torch.from_numpy(weights[f"{name}.bias"]))
