"""Re-fit layers after pruning by least squares, so that fewer input channels reproduce the original outputs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from effnet.arch.channels import Keep, kept_blocks, kept_widths
from effnet.arch.layers import layer_widths
from effnet.bundle.weights import state_arrays
from effnet.nn.network import Network
from effnet.weights.adapt import Arrays

# Positions of a feature map that are sampled per image: adjacent ones are nearly the same.
_POSITIONS = 48
# The ridge penalty that pulls weights to their old values, as a share of the inputs' mean variance, against noise from
# few images.
_RIDGE = 0.03


@torch.no_grad()
def reconstructed(original: Network, pruned: Network, keep: Keep, batches: Iterable[Tensor]) -> Arrays:
    """Return the state of `pruned`, which `keep` leaves of `original`, with its pointwise layers re-fitted.

    From the first block to the last, each pointwise convolution and the classifier gets the least-squares weights that
    map its inputs in the pruned network, for the normalised images of `batches`, to the layer's outputs in the
    original. BatchNorm means are adjusted accordingly. Depthwise layers and larger kernels keep their weights: their
    inputs are matched by the layers before them.
    Source: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", equation 2 and section 3.2.
    """
    original.eval()
    pruned.eval()
    solver = _Solver(original, keep)
    maps = [(images, images) for images in batches]
    maps = solver.through("stem", original.stem, pruned.stem, maps)
    renamed = {old: new for new, old in kept_blocks(keep).items()}
    for i, stage in enumerate(original.stages):
        for j, block in enumerate(stage):
            name = f"stages.{i}.{j}"
            place = renamed.get(name)
            module = pruned.get_submodule(place) if place else nn.Identity()
            maps = solver.through(place or "", block, module, maps, old_name=name)
    maps = solver.through("head", original.head, pruned.head, maps)
    maps = [(original.pool(old).flatten(1), pruned.pool(new).flatten(1)) for old, new in maps]
    solver.through("classifier", original.classifier, pruned.classifier, maps)
    return {name: array.copy() for name, array in state_arrays(pruned).items()}


Maps = list[tuple[Tensor, Tensor]]


class _Solver:
    """The kept channels of the original's layers; re-fits the layers of the pruned network one after the other."""

    def __init__(self, original: Network, keep: Keep) -> None:
        self.generator = torch.Generator().manual_seed(0)  # an interrupted job must reach the same weights
        widths = {name: torch.tensor(kept) for name, kept in kept_widths(original.spec, keep).items()}
        self.outputs = {
            name: widths[writes] for name, (_, writes) in layer_widths(original.spec).items() if writes in widths
        }

    def through(self, name: str, old: nn.Module, new: nn.Module, maps: Maps, *, old_name: str = "") -> Maps:
        """Re-fit the layers of one part of the network, and return its output feature maps."""
        if name:
            for layer, module in new.named_modules():
                if _pointwise(module):
                    self._solve(layer, module, old_name or name, old, new, maps)
        return [(old(x), new(y)) for x, y in maps]

    def _solve(self, layer: str, module: nn.Module, part: str, old: nn.Module, new: nn.Module, maps: Maps) -> None:
        place = f"{part}.{layer}" if layer else part
        kept = self.outputs[place]
        sums = _Sums()
        for x, y in maps:
            wanted = _taken(old, old.get_submodule(layer), x, output=True)[:, kept]
            sums.add(*self._sampled(_taken(new, module, y, output=False), wanted))
        weight = module.weight.flatten(1).double()
        solved, shift = sums.solve(weight)
        module.weight.copy_(solved.reshape(module.weight.shape))
        if module.bias is not None:
            module.bias.copy_(shift)
        else:
            new.get_submodule(layer.removesuffix("conv") + "norm").running_mean.sub_(shift)

    def _sampled(self, given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return some positions of two feature maps as rows [n, channels]."""
        if given.ndim == 2:
            return given, wanted
        x, y = given.flatten(2), wanted.flatten(2)
        chosen = torch.randperm(x.shape[2], generator=self.generator)[:_POSITIONS]
        x, y = (rows[:, :, chosen].transpose(1, 2).flatten(0, 1) for rows in (x, y))
        return x, y


class _Sums:
    """The sums for least squares, of inputs [n, in] and target outputs [n, out]."""

    def __init__(self) -> None:
        self.count, self.x, self.y, self.xx, self.xy = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.count += len(x)
        self.x, self.y = self.x + x.sum(0), self.y + y.sum(0)
        self.xx, self.xy = self.xx + x.T @ x, self.xy + x.T @ y

    def solve(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least-squares weight [out, in] with a ridge penalty towards `weight`, and the bias."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - torch.outer(mean_x, mean_x)
        xy = self.xy / self.count - torch.outer(mean_x, mean_y)
        held = xx + _RIDGE * xx.diagonal().mean().clamp(min=1e-12) * torch.eye(len(xx), dtype=xx.dtype)
        solved = weight + torch.linalg.solve(held, xy - xx @ weight.T).T
        return solved, mean_y - solved @ mean_x


def _pointwise(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


class _Stop(Exception):
    pass


def _taken(part: nn.Module, module: nn.Module, x: Tensor, *, output: bool) -> Tensor:
    """Return the input, or the output, of a module within `part` for the feature map x."""
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        found.append(result if output else inputs[0])
        raise _Stop

    handle = module.register_forward_hook(keep)
    try:
        part(x)
    except _Stop:
        pass
    finally:
        handle.remove()
    return found[0]
