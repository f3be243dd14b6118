"""A network with a decoder as static operations, each layer with weights of its own: folding and int8 part them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import Size, map_sizes, named_layers, same_padding
from effnet.arch.spec import ArchSpec
from effnet.nn.dense import DenseNetwork


class Decoded(DenseNetwork):
    """A detector or segmenter for images of one size, which returns its outputs in their order."""

    def __init__(self, spec: ArchSpec, size: Size, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, drop_path=0.0, norm_momentum=0.1, shared=False)
        sizes = map_sizes(named_layers(spec), size)
        for name, layer in self.graph:
            read = sizes[layer.inputs[0]]
            if layer.op == "resize":
                self.set_submodule(name, Nearest(read, sizes[name]))
            elif layer.op == "fuse":
                self.set_submodule(name, Weighted(weights[f"{name}.weight"].tolist()))
            elif layer.op == "max_pool":
                # With these, a pool pads as the function "same" does.
                before = tuple(same_padding(side, kernel_size=3, stride=2)[0] for side in read)
                assert (layer.function, layer.kernel_size, layer.stride) == ("same", 3, 2)
                self.set_submodule(name, nn.MaxPool2d(3, 2, padding=before, ceil_mode=True))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Map normalised images [1, channels, height, width] to the outputs; to a tensor if there is one."""
        found = tuple(super().forward(x).values())
        return found if len(found) > 1 else found[0]


class Nearest(nn.Module):
    """A resize by the nearest pixels from one size to another."""

    def __init__(self, before: Size, after: Size) -> None:
        super().__init__()
        self.after = after
        self.whole = all(new % old == 0 for old, new in zip(before, after, strict=True))
        if not self.whole:
            for name, old, new in zip(("rows", "columns"), before, after, strict=True):
                self.register_buffer(name, torch.arange(new) * old // new)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, ...] to the size after."""
        if self.whole:
            return functional.interpolate(x, size=self.after, mode="nearest")
        return x.index_select(2, self.rows).index_select(3, self.columns)


class Weighted(nn.Module):
    """The sum of feature maps, each times its factor."""

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, *maps: Tensor) -> Tensor:
        """Map tensors of one shape to one."""
        first, *others = (each * factor for each, factor in zip(maps, self.factors, strict=True))
        for term in others:
            first = first + term
        return first
