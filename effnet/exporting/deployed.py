"""The graph that is deployed, as a torch module: normalisation, network without norms, probabilities."""

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from effnet.errors import SpecError
from effnet.exporting.bundle import calibrated_weights
from effnet.nn.network import Network, build
from effnet.runtime.config import ModelConfig


class Deployed(nn.Module):
    """Pictures in, probabilities out; its convolutions hold the norms, and the first one the spread of the pixels.

    The names within `network` are those of `named_layers`.
    """

    mean: Tensor

    def __init__(self, network: Network, mean: np.ndarray) -> None:
        super().__init__()
        self.network = network
        # The subtraction cannot go into the first convolution: the zeros that pad a picture are normalised pixels.
        self.register_buffer("mean", torch.from_numpy(mean)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Maps uint8 [batch, side, side, channels] to probabilities [batch, classes]."""
        # ExecuTorch's XNNPACK moves the axes of floats itself, and none of bytes.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        return self.network(pixels - self.mean).softmax(1)


def deployed_module(config: ModelConfig, state: Mapping[str, np.ndarray]) -> Deployed:
    """Returns the module of a bundle's config and state dict as arrays, in evaluation mode.

    Its probabilities are those of the bundle's model.onnx. Raises SpecError for a network without a classifier.
    """
    spec, preprocess = config.arch, config.preprocess
    if not spec.num_classes:
        raise SpecError(
            f"an export gives probabilities, and {spec.name} has no classifier (num_classes = 0); "
            "train one on your pictures: effnet fit DATA --weights BUNDLE"
        )
    weights = calibrated_weights(config, state)
    scale = 1.0 / (255.0 * np.asarray(preprocess.std, np.float64))
    weights["stem.conv.weight"] = (weights["stem.conv.weight"] * scale[None, :, None, None]).astype(np.float32)
    network = build(spec, seed=0)
    _fill(network, weights)
    return Deployed(network, 255.0 * np.asarray(preprocess.mean, np.float32)).eval()


@torch.no_grad()
def _fill(network: Network, weights: Mapping[str, np.ndarray]) -> None:
    """Writes folded weights into `network`, whose norms become the identity."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight = nn.Parameter(torch.from_numpy(weights[f"{name}.weight"]))
            module.bias = nn.Parameter(torch.from_numpy(weights[f"{name}.bias"]))


def texts(config: ModelConfig) -> dict[str, str]:
    """Returns what an export tells about itself, each value as JSON."""
    found = {
        "class_names": list(config.class_names),
        "preprocess": config.preprocess.to_dict(),
        "network": config.arch.name,
        "threshold": config.threshold,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in found.items() if value is not None}
