"""int8 for ExecuTorch: torchao's PT2E with XNNPACK's operators, calibrated on images, with bias correction."""

from collections.abc import Sequence

import numpy as np
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationConfig,
    QuantizationSpec,
    SharedQuantizationSpec,
)

from effnet.errors import InputError
from effnet.runtimes.executorch.deployed import Deployed, Head, Heads
from effnet.runtimes.write import Calibration, Quantization

_ANNOTATION = "quantization_annotation"
_ATEN = torch.ops.aten
_CLAMPS = (_ATEN.hardtanh.default, _ATEN.relu6.default)
_PADS = (_ATEN.pad.default, _ATEN.constant_pad_nd.default)
# The share of values that percentile excludes, at both ends together.
_OUTSIDE = 1e-4


class PercentileObserver(HistogramObserver):
    """The range that holds all but one value in ten thousand."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        share = self.histogram.cumsum(0) / self.histogram.sum()
        low = int((share < _OUTSIDE / 2).sum())
        high = int((share < 1 - _OUTSIDE / 2).sum())
        width = (self.max_val - self.min_val) / self.bins
        return self.min_val + width * low, self.min_val + width * (high + 1)


_OBSERVERS = {"minmax": MinMaxObserver, "percentile": PercentileObserver}


def _rounding(method: Calibration) -> QuantizationConfig:
    """Return asymmetric int8 for each feature map and symmetric per-channel int8 for weights.

    ExecuTorch's own configuration sets the least scale to 2^-12, too coarse for weights with folded BatchNorm or pixel
    normalisation.
    """
    if method not in _OBSERVERS:
        raise InputError(f"executorch-int8 is calibrated by {' or '.join(_OBSERVERS)}; got {method}")
    maps = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=_OBSERVERS[method],
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
    )
    return QuantizationConfig(maps, maps, weights, None)


class Quantizer(XNNPACKQuantizer):
    """XNNPACK's quantizer, which also fuses ReLU6 and keeps padded feature maps in int8.

    Its base class observes a convolution before ReLU6 and wastes the range on values that ReLU6 clips.
    """

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotate the nodes to quantize in `model`, and return it."""
        for node in model.graph.nodes:
            if node.target in _CLAMPS and _is_lone_convolution(node.args[0]) and self._may_round(node.args[0]):
                self._fuse(node.args[0], node)
        model = super().annotate(model)
        for node in model.graph.nodes:
            before = node.args[0].meta.get(_ANNOTATION) if node.target in _PADS else None
            if before and before.output_qspec:
                same = SharedQuantizationSpec(node.args[0])
                node.meta[_ANNOTATION] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: same}, output_qspec=same, _annotated=True
                )
        return model

    def _may_round(self, node: fx.Node) -> bool:
        return self.filter_fn is None or self.filter_fn(node)

    def _fuse(self, convolution: fx.Node, clamp: fx.Node) -> None:
        rounding = self.global_config
        assert rounding is not None
        maps, weights = convolution.args[:2]
        convolution.meta[_ANNOTATION] = QuantizationAnnotation(
            input_qspec_map={maps: rounding.input_activation, weights: rounding.weight}, _annotated=True
        )
        clamp.meta[_ANNOTATION] = QuantizationAnnotation(output_qspec=rounding.output_activation, _annotated=True)


def _is_lone_convolution(node: fx.Node) -> bool:
    return node.target is _ATEN.conv2d.default and len(node.users) == 1


def _layer_of(node: fx.Node) -> str:
    """Return the path of the innermost module that `node` comes from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0].removeprefix("L['self'].") if stack else ""


def quantize(module: Deployed, images: np.ndarray, quantization: Quantization) -> fx.GraphModule:
    """Return the graph of `module` with int8 weights and feature maps; changes the biases of `module`.

    `images` is uint8 [images, side, side, channels]. A float layer still reads and writes feature maps that adjacent
    layers quantize. Raises InputError for an unknown layer and for settings that torchao does not support.
    """
    layers = _within(module, quantization.float_layers) | ({"maps"} if module.maps is not None else set())
    known = {name for name, found in module.named_modules() if isinstance(found, nn.Conv2d | nn.Linear | Head)}
    if layers - known:
        names = ", ".join(sorted(name.removeprefix("network.") for name in layers - known))
        raise InputError(f"float layers must be convolutions or linear layers of the network; got {names}")
    if quantization.bias_correction == "full":
        raise InputError("executorch-int8 corrects biases fast or not at all; got full: give fast or none")
    rounding = _rounding(quantization.method)
    batch = torch.from_numpy(np.ascontiguousarray(images))
    if quantization.bias_correction == "fast":
        correct_biases_(module, batch, skip=layers)
    quantizer = Quantizer()
    quantizer.set_global(rounding)
    quantizer.set_filter_function(lambda node: _layer_of(node) not in layers)
    graph = torch.export.export(module, (batch[:1],)).module()
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for image in batch:
            prepared(image[None])
    return convert_pt2e(prepared)


def _within(module: Deployed, float_layers: Sequence[str]) -> set[str]:
    """Return the paths of the float layers in `module`: those named, and all that computes a number."""
    layers = {f"network.{name}" for name in float_layers}
    heads = getattr(module.network, "classifier", None)
    if not isinstance(heads, Heads):
        return layers
    path = "network.classifier"
    numbers = [n for n, head in enumerate(heads) if head.answer.activation == "none" or path in layers]
    return layers - {path} | {f"{path}.{n}{part}" for n in numbers for part in ("", ".linear")}


@torch.no_grad()
def correct_biases_(module: nn.Module, images: Tensor, *, skip: Sequence[str] | set[str] = ()) -> None:
    """Add to each bias the shift of the layer's mean output over `images` that quantizing its weights causes.

    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2; the
    means are those of the fp32 network.
    """
    sums: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Conv2d | nn.Linear):
        lost = layer.weight - _rounded(layer.weight)

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept, bias = layer.weight.data, layer.bias.data
            layer.weight.data, layer.bias.data = lost, torch.zeros_like(bias)
            missing = type(layer).forward(layer, inputs[0])
            layer.weight.data, layer.bias.data = kept, bias
            over = [axis for axis in range(missing.ndim) if axis != 1]
            sums[name] = sums.get(name, 0) + missing.mean(over)

        return layer.register_forward_hook(hook)

    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n not in skip}
    handles = [watch(name, layer) for name, layer in layers.items()]
    for image in images:
        module(image[None])
    for handle in handles:
        handle.remove()
    for name, total in sums.items():
        layers[name].bias += total / len(images)


def _rounded(weight: Tensor) -> Tensor:
    """Return weights rounded to symmetric per-channel int8."""
    scale = weight.abs().flatten(1).amax(1).div(127).clamp(min=torch.finfo(torch.float32).eps)
    scale = scale.view(-1, *(1,) * (weight.ndim - 1))
    return (weight / scale).round().clamp(-127, 127) * scale
