"""What the comparisons with peers share: weights, images, and what is watched inside a network."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_
from effnet.data.preprocess import Preprocess, normalize, resize_and_crop
from effnet.nn.network import Network, build
from effnet.weights.schemes import Scheme, to_effnet

# Of the largest absolute value in the same map.
TOLERANCE = 1e-4
# Parameters; two copies of more would fill the memory of a small machine.
MOST_COPIED = 100_000_000

Outputs = dict[str, Tensor]


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of initial weights, which takes a third of all the time even where there is no memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def bodiless(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the module that `make` builds, its tensors without memory."""
    with torch.device("meta"), _Undrawn():
        return make()


def bare(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the module that `make` builds, its memory unwritten."""
    return bodiless(make).to_empty(device="cpu")


@functools.cache
def _pool() -> Tensor:
    # A prime number, so that no two rows of a weight are alike where the pool starts anew.
    return torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def draw_weights_(peer: nn.Module) -> None:
    """Fill every convolution, norm and classifier with normal values, each its own, at the speed of copying."""
    start = 0

    def draw(tensor: Tensor, *, mean: float = 0.0, std: float) -> None:
        nonlocal start
        rest = tensor.view(-1)
        while len(rest):
            piece = _pool()[start : start + len(rest)]
            torch.mul(piece, std, out=rest[: len(piece)])
            rest, start = rest[len(piece) :], (start + len(piece)) % len(_pool())
        tensor += mean

    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            draw(module.weight, mean=1.0, std=0.2)
            draw(module.bias, std=0.3)
            module.num_batches_tracked.zero_()
        elif isinstance(module, nn.Conv1d):  # efficient channel attention
            draw(module.weight, std=1.0)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            draw(module.weight, std=(2.0 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                draw(module.bias, std=0.5)


@torch.inference_mode()
def give_statistics_(network: nn.Module, photos: Sequence[np.ndarray], *, side: int = 48) -> None:
    """Give every norm statistics near those of what it sees at this side, all different, and turns to evaluation.

    Without any, the signal would vanish or explode over a hundred layers. With exactly those of a few images, a
    deep network would magnify roundings until two runs of it differ; so a layer's channels share one spread, and
    most of their mean stays.
    """
    generator = torch.Generator().manual_seed(1)

    def settle(norm: nn.BatchNorm2d, args: tuple[Tensor]) -> None:
        mean, square = (values.mean((2, 3)).mean(0) for values in (args[0], args[0].square()))
        variance = square - mean.square()
        kept = 0.2 * mean
        whole = variance.mean() + (mean - kept).square().mean()
        norm.running_mean.copy_(kept + 0.3 * whole.sqrt() * torch.randn(mean.shape, generator=generator))
        norm.running_var.copy_(whole * (0.5 + torch.rand(mean.shape, generator=generator)))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    network.eval()(mixed_images(photos, count=4, side=side, seed=0))
    for hook in hooks:
        hook.remove()


def mixed_images(photos: Sequence[np.ndarray], *, count: int, side: int, seed: int) -> Tensor:
    """Return [count, 3, side, side], as after normalisation: photographs and noise in turn."""
    preprocess = Preprocess(resolution=side)
    shrunk = [normalize(resize_and_crop(photo, preprocess), preprocess) for photo in photos[: count // 2]]
    noise = np.random.default_rng(seed).normal(size=(count - len(shrunk), side, side, 3)).astype(np.float32)
    images = torch.from_numpy(np.concatenate([np.stack(shrunk), noise])).permute(0, 3, 1, 2)
    return images[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]


def create_timm(timm: ModuleType, name: str, **changes: Any) -> nn.Module:
    """Return timm's network of this name with ten classes, dropping nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, pretrained=False, num_classes=10, **changes)


def copied(peer: nn.Module, spec: ArchSpec, *, scheme: Scheme) -> Network:
    """Return effnet's network with the peer's weights, converted by name and loaded as a bundle's are."""
    arrays = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    return loaded(to_effnet(arrays, spec, scheme=scheme, where=spec.name), spec)


def loaded(state: Mapping[str, np.ndarray], spec: ArchSpec) -> Network:
    """Return effnet's network with these weights, evaluating; a huge one uses the memory of `state` itself."""
    if sum(array.size for array in state.values()) <= MOST_COPIED:
        network = bare(lambda: build(spec))
        load_arrays_(network, state, where=spec.name)
        return network.eval()
    network = bodiless(lambda: build(spec))
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    missing, unknown = network.load_state_dict(tensors, strict=False, assign=True)
    assert not unknown
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def outputs(network: nn.Module, watched: Mapping[str, nn.Module], images: Tensor) -> Outputs:
    """Return what each watched module puts out for `images`, and the logits."""
    found: Outputs = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: found.update({name: output})

    hooks = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    found["logits"] = network(images)
    for hook in hooks:
        hook.remove()
    return found


def images_for(peer: nn.Module, photos: Sequence[np.ndarray]) -> Iterator[Tensor]:
    """Yield a photograph and noise at sides where the maps are even, and where they are odd.

    "Same" and symmetric padding differ on even maps and coincide on odd ones. Before the five strides the maps of 48
    pixels are even but for the last, those of 49 odd but for the last. A large network sees three even ones and two
    odd ones in one pass, at 40 pixels, to save the other.
    """
    large = sum(tensor.numel() for tensor in peer.parameters()) > 10_000_000
    for side in (40,) if large else (48, 49):
        yield mixed_images(photos, count=2, side=side, seed=side)


def differences(network: Network, peer: nn.Module, stages: Mapping[str, nn.Module], images: Tensor) -> dict[str, float]:
    """Return how far the network's stages and logits are from those of the peer."""
    return apart(outputs(network, stages_of(network), images), outputs(peer, stages, images))


def stages_of(network: Network) -> dict[str, nn.Module]:
    """Return the stages of effnet's network by name."""
    return {f"stages.{i}": stage for i, stage in enumerate(network.stages)}


def apart(found: Outputs, expected: Outputs) -> dict[str, float]:
    """Return the largest difference in each map as a part of its scale; checks that each map says something."""
    assert found.keys() == expected.keys()
    result = {}
    for name, theirs in expected.items():
        ours, scale = found[name], theirs.abs().max().item()
        assert ours.shape == theirs.shape, name
        assert math.isfinite(scale), f"{name} has exploded; nothing can be compared"
        between = (theirs[0] - theirs[1]).abs().max().item()
        assert between > 50 * TOLERANCE * scale, f"{name} is the same for different images; nothing can be compared"
        result[name] = (ours - theirs).abs().max().item() / scale
    return result


def assert_none(differences: Mapping[str, float]) -> None:
    """Check that all are within the tolerance."""
    assert {name: value for name, value in differences.items() if not value <= TOLERANCE} == {}
