"""The weights of alternatives: those of the network, sliced, and re-fitted in closed form to its outputs."""

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor, nn

from effnet.arch.channels import Indices, Keep, kept_spec
from effnet.arch.layers import Layer, named_layers
from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.compression.reconstruct import Maps, Refit, reconstructed
from effnet.nas.assemble.alternatives import HEAD, Choice, changed_spec, keep_of
from effnet.nn.network import Network, build
from effnet.weights.adapt import Arrays
from effnet.weights.morph import transfer

Order = Mapping[str, Indices]
"""The channels of each part's middle, the most important first."""


def edited(network: Network, choice: Choice, order: Order) -> tuple[Network, Keep]:
    """Return the network of a choice with the sliced weights of `network`, and what it keeps of it.

    Of a larger kernel the centre stays; squeeze-and-excitation that an alternative lacks is left out.
    """
    spec = network.spec
    keep = keep_of(spec, choice, order)
    left = kept_spec(spec, keep)
    target = changed_spec(left, spec, choice)
    moved = transfer(state_arrays(network), source=spec, target=left, keep=keep)
    found = build(target)
    load_arrays_(found, _cut(moved, target), where=f"the alternatives of {spec.name}")
    return found.eval(), keep


def _cut(state: Mapping[str, np.ndarray], target: ArchSpec) -> Arrays:
    layers = dict(named_layers(target))
    return {
        name: np.ascontiguousarray(_centre(array, layers[layer]))
        for name, array in state.items()
        if (layer := name.rpartition(".")[0]) in layers
    }


def _centre(array: np.ndarray, layer: Layer) -> np.ndarray:
    """Return the middle of a kernel [out, in, k, k] as large as that of `layer`; other arrays as they are."""
    if array.ndim < 4 or array.shape[-1] == layer.kernel_size:
        return array
    start = (array.shape[-1] - layer.kernel_size) // 2
    middle = slice(start, start + layer.kernel_size)
    return array[:, :, middle, middle]


def refitted(network: Network, choice: Choice, order: Order, batches: Iterable[Tensor]) -> Network:
    """Return the network of a choice, each layer re-fitted to the outputs of `network` for normalised images."""
    found, keep = edited(network, choice, order)
    reconstructed(network, found, keep, batches)
    return found


def refitted_part(network: Network, part: str, choice: Choice, order: Order, maps: Maps) -> nn.Module | None:
    """Return the module that replaces one part of `network`, re-fitted for the part's inputs; None if it is dropped.

    `choice` changes this part alone. Of a head the module also pools and classifies: it maps to logits.
    """
    if choice[part].dropped:
        return None
    found, keep = edited(network, choice, order)
    refit = Refit(network, keep)
    if part == HEAD:
        pooled = refit.through(HEAD, network.head, found.head, maps)
        pooled = [(network.pool(x).flatten(1), found.pool(y).flatten(1)) for x, y in pooled]
        refit.fit_("classifier", network.classifier, found.classifier, pooled)
        return nn.Sequential(found.head, found.pool, nn.Flatten(), found.classifier)
    module = found.get_submodule(part)
    refit.fit_(part, network.get_submodule(part), module, maps)
    return module
