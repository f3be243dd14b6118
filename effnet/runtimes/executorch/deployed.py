"""The deployed graph as a torch module: normalisation, network with BatchNorm folded in, probabilities."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import INPUT, named_layers, output_side
from effnet.bundle.config import ModelConfig
from effnet.nn.layers import SameConv2d
from effnet.nn.network import Network, build
from effnet.weights.folding import calibrated_weights


class Deployed(nn.Module):
    """Map images to probabilities, or to features if there is no classifier.

    BatchNorm is folded into its convolutions, and the pixels' standard deviation into the first one.

    The names within `network` are those of `named_layers`.
    """

    mean: Tensor

    def __init__(self, network: Network, mean: np.ndarray) -> None:
        super().__init__()
        self.network = network
        # The subtraction cannot go into the first convolution: the zeros that pad an image are normalised pixels.
        self.register_buffer("mean", torch.from_numpy(mean)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 [batch, side, side, channels] to probabilities [batch, classes], or features."""
        # ExecuTorch's XNNPACK permutes the axes of floats itself, but not of bytes.
        return self.from_pixels(image.to(torch.float32).permute(0, 3, 1, 2))

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Map float32 [batch, channels, side, side] of 0..255 to probabilities [batch, classes], or features."""
        rows = self.network(pixels - self.mean)
        return rows.softmax(1) if self.network.spec.num_classes else rows


def deployed_module(config: ModelConfig, state: Mapping[str, np.ndarray]) -> Deployed:
    """Return the module of a bundle's config and state dict as arrays, in evaluation mode.

    Its probabilities are those of the bundle's model.onnx.
    """
    spec, preprocess = config.arch, config.preprocess
    weights = calibrated_weights(config, state)
    scale = 1.0 / (255.0 * np.asarray(preprocess.std, np.float64))
    weights["stem.conv.weight"] = (weights["stem.conv.weight"] * scale[None, :, None, None]).astype(np.float32)
    network = build(spec, seed=0)
    _settle(network, preprocess.resolution)
    _fill(network, weights)
    return Deployed(network, 255.0 * np.asarray(preprocess.mean, np.float32)).eval()


class PaddedConv2d(nn.Conv2d):
    """A convolution whose input is first padded by fixed numbers of zeros: left, right, top, bottom."""

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, in_channels, height, width] to [batch, out_channels, ...]."""
        return super().forward(functional.pad(input, self.pads))


def _settle(network: Network, resolution: int) -> None:
    """Replace paddings computed from a feature map's side, which not every converter supports, with their values.

    If both ends are padded equally, the convolution pads by itself, which is faster than a separate operation.
    """
    sides = {INPUT: resolution}
    for name, layer in named_layers(network.spec):
        side = sides[layer.inputs[0]]
        sides[name] = 1 if layer.op == "global_pool" else output_side(side, layer.stride)
        if layer.op != "conv" or not isinstance(network.get_submodule(name), SameConv2d):
            continue
        total = max((sides[name] - 1) * layer.stride + layer.kernel_size - side, 0)
        before, after = total // 2, total - total // 2
        conv = (nn.Conv2d if before == after else PaddedConv2d)(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, groups=layer.groups
        )
        if isinstance(conv, PaddedConv2d):
            conv.pads = (before, after) * 2
        else:
            conv.padding = (before, before)
        network.set_submodule(name, conv)


@torch.no_grad()
def _fill(network: Network, weights: Mapping[str, np.ndarray]) -> None:
    """Write folded weights into `network`; its BatchNorm layers become the identity."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight = nn.Parameter(torch.from_numpy(weights[f"{name}.weight"]))
            module.bias = nn.Parameter(torch.from_numpy(weights[f"{name}.bias"]))
