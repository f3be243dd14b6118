"""Tables of trained networks as spaces of effnet's own search: what a search would find, without any training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, BlockSpec, Scaling, StemSpec, stage
from effnet.nas.history import Propose, Trained
from effnet.nas.space import Decision, Genome

MACRO_FILE = "nas-bench-macro_cifar10.json"
# The stem's channels, the layers of each stage and the head's channels. Source: github.com/xiusu/NAS-Bench-Macro,
# train/model.py.
_STEM, _STAGES, _HEAD = 32, (2, 3, 3), 1280
_LAYERS = ("identity", "mbconv k3 e3", "mbconv k5 e6")
_BATCH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The trained networks of one benchmark: accuracies in percent, a row a network, a column a training.

    `costs` is what the search limits, of every network, and `features` describe them.
    """

    decisions: tuple[Decision, ...]
    rows: Mapping[Genome, int]
    accuracies: np.ndarray
    costs: np.ndarray
    features: np.ndarray


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
        decisions=tuple(
            Decision(name=f"layer {n}", choices=_LAYERS, group="layer") for n in range(1, sum(_STAGES) + 1)
        ),
        rows={genome: row for row, genome in enumerate(genomes)},
        accuracies=np.array([row["test_acc"] for row in found]),
        costs=macs,
        features=np.stack([np.log(macs), np.log([row["params"] for row in found]), depth], axis=1),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableSpace:
    """The networks of a table whose cost is at most `limit`."""

    table: Table
    limit: float
    baselines: tuple[Genome, ...] = ()
    _networks: dict[Genome, ArchSpec] = field(default_factory=dict, repr=False)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The choices of the table."""
        return self.table.decisions

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return a spec that stands for this network; None if it exceeds the limit."""
        if self.table.costs[self.table.rows[genome]] > self.limit:
            return None
        if genome not in self._networks:
            self._networks[genome] = macro_network(genome)
        return self._networks[genome]

    def features(self, genome: Genome) -> np.ndarray:
        """Return the logs of MACs and parameters, and the number of layers."""
        return self.table.features[self.table.rows[genome]]


def macro_network(genome: Genome) -> ArchSpec:
    """Return a network of NAS-Bench-Macro.

    An identity that changes width and stride is a 1 x 1 convolution without an activation there, which no block is; here
    it has one, with the same cost. The 1,944 networks without one are exact.
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


def search(propose: Propose, space: TableSpace, scores: np.ndarray, *, number: int, seed: int) -> list[Trained]:
    """Return the history of a search of `number` trainings in batches of five; `scores` has one of every network."""
    history: list[Trained] = []
    while len(history) < number:
        generation = len(history) // _BATCH
        found = propose(history, space, number=min(_BATCH, number - len(history)), seed=seed)
        if not found:
            break
        history += [
            Trained(
                genome=genome, generation=generation, slot=slot, seed=0, score=float(scores[space.table.rows[genome]])
            )
            for slot, genome in enumerate(found)
        ]
    return history
