"""The library: the alternatives of every part of a network, and the score of each alone.

An alternative is scored by the rise of the student's divergence from the teacher if it is the only one that is changed:
its weights are fitted in closed form on some images, and scored on others. What is finished of a library is kept, part
by part, so that an interrupted search continues with the same figures.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch.channels import Indices
from effnet.arch.layers import layer_widths, named_layers
from effnet.bundle.config import write_text
from effnet.bundle.weights import state_arrays
from effnet.compression.importance import weight_importance
from effnet.compression.reconstruct import Sums, rows_of, taken
from effnet.nas.assemble.alternatives import HEAD, Alternative
from effnet.nas.assemble.edit import Order, refitted_part
from effnet.nas.assemble.order import gradient_moments, removal_order
from effnet.nas.assemble.score import divergence, logits_of
from effnet.nn.network import Network
from effnet.system.files import read_json
from effnet.system.records import from_data, to_data

Counter = Callable[[int, int], None]
"""Is given the number of finished parts and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The calibration images, normalised and in batches: to `fit` weights, and to `score`.

    `fit_logits` and `score_logits` [images, classes] are the teacher's for them.
    """

    fit: Sequence[Tensor]
    fit_logits: Tensor
    score: Sequence[Tensor]
    score_logits: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The alternatives of one part, in their order, with their scores: the rise of the divergence, in nats.

    `order` has the channels of its middle, the most important first.
    """

    part: str
    order: Indices
    alternatives: tuple[Alternative, ...]
    scores: tuple[float, ...]


def order_of(library: Sequence[Shelf]) -> Order:
    """Return the channels of every part's middle, the most important first."""
    return {shelf.part: shelf.order for shelf in library}


def make_library(
    network: Network,
    wanted: Mapping[str, Sequence[Alternative]],
    images: Images,
    *,
    folder: Path,
    seed: int,
    count: Counter,
) -> list[Shelf]:
    """Return the library of `network` with the `wanted` alternatives of each part, the first of which keeps it.

    Each part is written to `folder` when it is finished, and read from there if it is.
    """
    network.eval()
    folder.mkdir(parents=True, exist_ok=True)
    shelves = {part: _read(folder / f"{part}.json", part, wanted[part]) for part in wanted}
    if all(shelves.values()):
        return [shelf for shelf in shelves.values() if shelf is not None]
    orders = _Orders(network, images, seed=seed)
    with torch.no_grad():
        for bench in _benches(network, images):
            part = bench.part
            if part not in wanted:
                continue
            if shelves[part] is None:
                found = bench.shelf(wanted[part], orders.of(part, bench.fit))
                write_text(folder / f"{part}.json", json.dumps(to_data(found)) + "\n")
                shelves[part] = found
            count(sum(shelf is not None for shelf in shelves.values()), len(shelves))
    return [shelf for shelf in shelves.values() if shelf is not None]


def _benches(network: Network, images: Images) -> Iterator["_Bench"]:
    """Yield every part in order, with its inputs."""
    before = divergence(images.score_logits, logits_of(network, images.score))
    fit, score = ([network.stem(batch) for batch in batches] for batches in (images.fit, images.score))
    modules = _in_order(network)
    for number, (part, module) in enumerate(modules):
        after = [module for _, module in modules[number + 1 :]]
        yield _Bench(network, part, after, fit, score, images.score_logits, before)
        if part != HEAD:
            fit, score = ([module(batch) for batch in batches] for batches in (fit, score))


def _in_order(network: Network) -> list[tuple[str, nn.Module]]:
    """Return the blocks of a network by their names, and after them the head with pooling and classifier."""
    blocks = [(f"stages.{i}.{j}", block) for i, stage in enumerate(network.stages) for j, block in enumerate(stage)]
    return [*blocks, (HEAD, nn.Sequential(network.head, network.pool, nn.Flatten(), network.classifier))]


def _read(path: Path, part: str, wanted: Sequence[Alternative]) -> Shelf | None:
    """Return the finished part of a library; None if it is absent, damaged or has other alternatives."""
    try:
        found = from_data(Shelf, read_json(path), where=str(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, Shelf) and found.alternatives == tuple(wanted) else None


@dataclass(frozen=True, slots=True)
class _Bench:
    """One part of the network, the parts after it, and its inputs for both groups of images.

    `teacher` are the teacher's logits for the images to score, `before` the divergence of the unchanged network.
    """

    network: Network
    part: str
    after: Sequence[nn.Module]
    fit: Sequence[Tensor]
    score: Sequence[Tensor]
    teacher: Tensor
    before: float

    def shelf(self, wanted: Sequence[Alternative], order: Indices) -> Shelf:
        """Return the part's shelf, for the order of its channels."""
        rises = [0.0, *(self._divergence(each, order) - self.before for each in wanted[1:])]
        return Shelf(part=self.part, order=order, alternatives=tuple(wanted), scores=tuple(rises))

    def _divergence(self, found: Alternative, order: Indices) -> float:
        maps = [(x, x) for x in self.fit]
        module = refitted_part(self.network, self.part, {self.part: found}, {self.part: order}, maps)
        parts = [*([] if module is None else [module]), *self.after]
        return divergence(self.teacher, logits_of(nn.Sequential(*parts), self.score))


class _Orders:
    """The order of the channels of each part, from the inputs and gradients of the layer that reads them."""

    def __init__(self, network: Network, images: Images, *, seed: int) -> None:
        self.network, self.layers = network, _reading(network)
        self.importance = weight_importance(network.spec, state_arrays(network)).channels
        modules = {part: network.get_submodule(layer) for part, layer in self.layers.items()}
        self.moments = gradient_moments(network, modules, images.fit, seed=seed)

    def of(self, part: str, inputs: Sequence[Tensor]) -> Indices:
        """Return the channels of the middle of a part, for its inputs, the most important first."""
        if part not in self.layers:
            values = self.importance.get("head" if part == HEAD else f"{part}.mid")
            return () if values is None else tuple(np.argsort(-values, kind="stable").tolist())
        layer, sums = self.network.get_submodule(self.layers[part]), Sums()
        generator = torch.Generator().manual_seed(0)
        for x in inputs:
            if part == HEAD:
                given = self.network.pool(self.network.head(x)).flatten(1)
            else:
                given = taken(self.network.get_submodule(part), layer, x, output=False)
            (rows,) = rows_of(given, generator=generator)
            sums.add(rows, rows[:, :0])
        return removal_order(sums, layer.weight.flatten(1), self.moments[part])


def _reading(network: Network) -> dict[str, str]:
    """Return the pointwise layer that reads the middle of each part, if there is one, by the part's name."""
    layers, found = dict(named_layers(network.spec)), {}
    for name, (reads, writes) in layer_widths(network.spec).items():
        layer = layers[name]
        pointwise = layer.op == "linear" or (layer.op == "conv" and layer.kernel_size == 1 and layer.groups == 1)
        if pointwise and writes != reads and not name.endswith((".se.reduce", ".se.expand")):
            if reads == "head":
                found[HEAD] = name
            elif reads.endswith(".mid"):
                found[reads.removesuffix(".mid")] = name
    return found
