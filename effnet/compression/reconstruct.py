"""Re-fit layers of a changed network by least squares, so that less input reproduces the original outputs."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.channels import Keep, kept_blocks, kept_widths
from effnet.arch.layers import layer_widths, same_padding
from effnet.bundle.weights import state_arrays
from effnet.nn.dense import DenseNetwork
from effnet.nn.layers import SameConv2d
from effnet.nn.network import Network
from effnet.weights.adapt import Arrays

# Positions of a feature map that are sampled per image: adjacent ones are nearly the same.
_POSITIONS = 48
# The ridge penalty that pulls weights to their old values, as a share of the inputs' mean variance, against noise from
# few images.
_RIDGE = 0.03


@torch.no_grad()
def reconstructed(
    original: Network | DenseNetwork, pruned: Network | DenseNetwork, keep: Keep, batches: Iterable[Tensor]
) -> Arrays:
    """Return the state of `pruned`, which `keep` leaves of `original`, with its pointwise layers re-fitted.

    From the first block to the last, each pointwise convolution and the classifier gets the least-squares weights that
    map its inputs in the pruned network, for the normalised images of `batches`, to the layer's outputs in the
    original. BatchNorm means are adjusted accordingly. Depthwise layers and larger kernels keep their weights: their
    inputs are matched by the layers before them. Only a depthwise layer with a smaller kernel than the original's is
    re-fitted as well; blocks of `pruned` may also lack squeeze-and-excitation or have another activation.
    Of a decoder only the pointwise convolutions that read the backbone are re-fitted: what they give the rest of it is
    then about what it was.
    Source: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", equation 2 and section 3.2.
    """
    original.eval()
    pruned.eval()
    solver = Refit(original, keep)
    maps = [(images, images) for images in batches]
    maps = solver.through("stem", original.stem, pruned.stem, maps)
    # The feature maps that a decoder reads, by the layer whose output they are.
    tapped = {_part_of(name): name for name in original.tapped.values()} if isinstance(original, DenseNetwork) else {}
    taps = {tapped["stem"]: maps} if "stem" in tapped else {}
    renamed = {old: new for new, old in kept_blocks(keep).items()}
    pooled: list[Maps] = []
    for i, stage in enumerate(original.stages):
        for j, block in enumerate(stage):
            name = f"stages.{i}.{j}"
            place = renamed.get(name)
            module = pruned.get_submodule(place) if place else nn.Identity()
            maps = solver.through(place or "", block, module, maps, old_name=name)
            if name in tapped:
                taps[tapped[name]] = maps
        if i in original.spec.pooled:
            pooled.append(_means(maps))
    if isinstance(original, DenseNetwork):
        solver.readers_of(taps, original, pruned)
        return _arrays(pruned)
    assert isinstance(pruned, Network)
    maps = solver.through("head", original.head, pruned.head, maps)
    maps = [
        (torch.cat(before, dim=1), torch.cat(after, dim=1))
        for before, after in (zip(*parts, strict=True) for parts in zip(_means(maps), *pooled, strict=True))
    ]
    solver.through("classifier", original.classifier, pruned.classifier, maps)
    return _arrays(pruned)


def _arrays(network: nn.Module) -> Arrays:
    return {name: array.copy() for name, array in state_arrays(network).items()}


def _part_of(name: str) -> str:
    """Return the part of the backbone that a layer belongs to: a block, or the stem."""
    return ".".join(name.split(".")[:3]) if name.startswith("stages.") else "stem"


Maps = list[tuple[Tensor, Tensor]]
"""The feature maps of each batch of images: in the original network, and in the changed one."""


def _means(maps: Maps) -> Maps:
    """Return the means of feature maps over their places, [batch, channels]."""
    return [(old.mean((2, 3)), new.mean((2, 3))) for old, new in maps]


class Refit:
    """The kept channels of the original's layers; re-fits the layers of the changed network one after the other."""

    def __init__(self, original: Network | DenseNetwork, keep: Keep) -> None:
        self.generator = torch.Generator().manual_seed(0)  # an interrupted job must reach the same weights
        widths = {name: torch.tensor(kept) for name, kept in kept_widths(original.spec, keep).items()}
        self.outputs = {
            name: widths[writes] for name, (_, writes) in layer_widths(original.spec).items() if writes in widths
        }

    def through(self, name: str, old: nn.Module, new: nn.Module, maps: Maps, *, old_name: str = "") -> Maps:
        """Re-fit the layers of one part of the network, and return its output feature maps."""
        if name:
            self.fit_(old_name or name, old, new, maps)
        return [(old(x), new(y)) for x, y in maps]

    def readers_of(self, taps: Mapping[str, Maps], old: DenseNetwork, new: DenseNetwork) -> None:
        """Re-fit the pointwise convolutions of a decoder that read `taps`, the backbone's maps by their layer."""
        norms = {layer.inputs[0]: name for name, layer in old.graph if layer.op == "norm"}
        for name, layer in old.graph:
            module = new.get_submodule(layer.weights or name)
            maps = taps.get(layer.inputs[0])
            if maps is None or not isinstance(module, nn.Conv2d) or not _pointwise(module):
                continue
            if module.bias is None and name not in norms:
                continue  # it has no place for a shift
            sums, before = Sums(), old.get_submodule(layer.weights or name)
            for x, y in maps:
                sums.add(*rows_of(y, before(x), generator=self.generator))
            solved, shift = sums.solve(module.weight.flatten(1).double())
            module.weight.copy_(solved.reshape(module.weight.shape))
            if module.bias is not None:
                module.bias.copy_(shift)
            else:
                new.get_submodule(norms[name]).running_mean.sub_(shift)

    def fit_(self, part: str, old: nn.Module, new: nn.Module, maps: Maps) -> None:
        """Re-fit the layers of `new`, which replaces `old`, the part of the original network of this name."""
        for layer, module in new.named_modules():
            if _pointwise(module):
                self._solve_(layer, module, part, old, new, maps)
            elif _depthwise(module) and module.kernel_size < old.get_submodule(layer).kernel_size:
                self._solve_kernels_(layer, module, part, old, new, maps)

    def _solve_(self, layer: str, module: nn.Module, part: str, old: nn.Module, new: nn.Module, maps: Maps) -> None:
        if _has_same_inputs(layer, module, old, new, maps):
            return  # its weights are exact
        kept = self._kept(part, layer)
        sums = Sums()
        for x, y in maps:
            wanted = taken(old, old.get_submodule(layer), x, output=True)[:, kept]
            given = taken(new, module, y, output=False)
            sums.add(*rows_of(given, wanted, generator=self.generator))
        weight = module.weight.flatten(1).double()
        solved, shift = sums.solve(weight)
        module.weight.copy_(solved.reshape(module.weight.shape))
        _shift_(new, layer, module, shift)

    def _solve_kernels_(
        self, layer: str, module: nn.Conv2d, part: str, old: nn.Module, new: nn.Module, maps: Maps
    ) -> None:
        """Re-fit the kernel of each channel to the outputs of the original's larger one."""
        kept = self._kept(part, layer)
        sums = _KernelSums()
        for x, y in maps:
            wanted = taken(old, old.get_submodule(layer), x, output=True)[:, kept].flatten(2)
            given = taken(new, module, y, output=False)
            chosen = torch.randperm(wanted.shape[2], generator=self.generator)[:_POSITIONS]
            sums.add(_windows(given, module, chosen), wanted[:, :, chosen])
        solved, shift = sums.solve(module.weight.flatten(1).double())
        module.weight.copy_(solved.reshape(module.weight.shape))
        _shift_(new, layer, module, shift)

    def _kept(self, part: str, layer: str) -> Tensor:
        return self.outputs[f"{part}.{layer}" if layer else part]


def rows_of(*maps: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return some positions of feature maps of one size, the same of each, as rows [n, channels]."""
    if maps[0].ndim == 2:
        return list(maps)
    chosen = torch.randperm(maps[0].flatten(2).shape[2], generator=generator)[:_POSITIONS]
    return [x.flatten(2)[:, :, chosen].transpose(1, 2).flatten(0, 1) for x in maps]


def _has_same_inputs(layer: str, module: nn.Module, old: nn.Module, new: nn.Module, maps: Maps) -> bool:
    """Return whether a layer of a changed part reads what it read before: the part does, and all before it is alike."""
    x, y = maps[0]
    if x is not y:
        return False
    return torch.equal(taken(old, old.get_submodule(layer), x, output=False), taken(new, module, y, output=False))


def _shift_(new: nn.Module, layer: str, module: nn.Module, shift: Tensor) -> None:
    """Let a re-fitted layer add `shift` [out], in its own bias or in the mean of the BatchNorm behind it."""
    if module.bias is not None:
        module.bias.copy_(shift)
    else:
        new.get_submodule(layer.removesuffix("conv") + "norm").running_mean.sub_(shift)


class Sums:
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
        solved = weight + torch.linalg.solve(held(xx), xy - xx @ weight.T).T
        return solved, mean_y - solved @ mean_x


class _KernelSums:
    """The sums for least squares of each channel's kernel, of windows [batch, channels, n, taps] and their outputs."""

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor

    def __init__(self) -> None:
        self.count, self.x, self.y, self.xx, self.xy = 0, *(torch.zeros(()).double() for _ in range(4))

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.count += x.shape[0] * x.shape[2]
        self.x, self.y = self.x + x.sum((0, 2)), self.y + y.sum((0, 2))
        self.xx, self.xy = self.xx + torch.einsum("bcni,bcnj->cij", x, x), self.xy + torch.einsum("bcni,bcn->ci", x, y)

    def solve(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kernels [channels, taps] with a ridge penalty towards `weight`, and the bias [channels]."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - mean_x[:, :, None] * mean_x[:, None]
        xy = self.xy / self.count - mean_x * mean_y[:, None]
        rest = xy - torch.einsum("cij,cj->ci", xx, weight)
        solved = weight + torch.linalg.solve(torch.stack([held(each) for each in xx]), rest)
        return solved, mean_y - (solved * mean_x).sum(1)


def held(xx: Tensor) -> Tensor:
    """Return a covariance matrix [n, n] with the ridge penalty."""
    return xx + _RIDGE * xx.diagonal().mean().clamp(min=1e-12) * torch.eye(len(xx), dtype=xx.dtype)


def _windows(x: Tensor, module: nn.Conv2d, chosen: Tensor) -> Tensor:
    """Return the inputs of a depthwise convolution for the `chosen` positions of its output map, flattened.

    x is [batch, channels, height, width]; the result [batch, channels, chosen, taps].
    """
    kernel, stride = module.kernel_size[0], module.stride[0]
    pads: list[int] = []
    for side in reversed(x.shape[-2:]):
        same = isinstance(module, SameConv2d)
        pads += same_padding(side, kernel_size=kernel, stride=stride) if same else (kernel // 2, kernel // 2)
    padded = functional.pad(x, pads)
    width = -(-x.shape[-1] // stride)
    rows, columns = chosen // width * stride, chosen % width * stride
    taps = [padded[:, :, rows + i, columns + j] for i in range(kernel) for j in range(kernel)]
    return torch.stack(taps, dim=-1)


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _pointwise(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


class _Stop(Exception):
    pass


def taken(part: nn.Module, module: nn.Module, x: Tensor, *, output: bool) -> Tensor:
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
