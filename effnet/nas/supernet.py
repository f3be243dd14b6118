"""A supernet: one network whose parts are trained together, so that each can be scored without a training of its own.

Sources: Yu & Huang 2019, "Universally slimmable networks" (sandwich rule, in-place distillation); Yu et al. 2020,
"BigNAS", arXiv 2003.11142, sections 3.1 and 3.2 (elastic kernels and depths, dropout for the largest part only).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import state_arrays
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.nas.spaces.elastic import Elastic, Slice, slices_of, subnet, take
from effnet.nas.spaces.space import Genome
from effnet.nn.network import Network, build
from effnet.progress import Listener
from effnet.system.machine import usable_cores
from effnet.tasks.registry import find_task
from effnet.training.device import to_input
from effnet.training.distributed.ranks import ALONE
from effnet.training.input.batches import held_out
from effnet.training.learning import learning_of
from effnet.training.loop import train
from effnet.training.losses import Batch, LossFn, labels_loss, make_terms
from effnet.training.optim.norms import precise_norms
from effnet.training.recipe.schema import LossName, Recipe
from effnet.training.state.state import network_for
from effnet.weights.folding import Arrays

# Random parts of a step, beside the largest and the smallest.
_RANDOM = 2
# Parts whose module is kept for their next step.
_KEPT = 64
# Training images from which the BatchNorm statistics of a part are re-estimated, and the batch size of scoring.
_NORM_IMAGES, _BATCH = 1024, 128


def check_device() -> torch.device:
    """Return the CUDA device; raise InputError on a machine without one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    raise InputError(
        f"a supernet needs a CUDA device; this machine has none, only {usable_cores()} CPU cores. Each of its steps "
        f"trains {2 + _RANDOM} networks, and all parts must be trained for long before any two can be compared: hours "
        "to days on a CPU. Use --algorithm surrogate or, with pretrained weights, --algorithm assemble"
    )


class Parts:
    """Runs parts of a network in training, with the network's own weights and the statistics of the batch."""

    def __init__(self, space: Elastic) -> None:
        self.space = space
        self._made: dict[Genome, tuple[nn.Module, dict[str, Slice]]] = {}

    def logits(self, network: nn.Module, genome: Genome, images: Tensor) -> Tensor:
        """Return the logits of a part for normalised images; gradients reach the weights of `network`.

        Neither dropout nor drop-path applies, and the running statistics of `network` stay as they are.
        """
        module, places = self._make(genome)
        tensors = dict(network.named_parameters())
        own = {name: take(tensors[where.source], where) for name, where in places.items() if where.source in tensors}
        logits: Tensor = functional_call(module, own, (images,))
        return logits

    def _make(self, genome: Genome) -> tuple[nn.Module, dict[str, Slice]]:
        if genome not in self._made:
            if len(self._made) >= _KEPT:
                self._made.pop(next(iter(self._made)))
            part = self.space.part(genome)
            with torch.device("meta"):
                module = build(part.spec).train()
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.track_running_stats, norm.num_batches_tracked = False, None
                    norm.running_mean = norm.running_var = None
            self._made[genome] = module, slices_of(self.space, part)
        return self._made[genome]


def sandwich_loss(space: Elastic, dataset: Dataset, recipe: Recipe, *, device: torch.device) -> LossFn:
    """Return the loss of a step: the mean over the whole network, the smallest part and two random ones.

    The whole network learns the labels, with the loss of the recipe; the parts learn its answers as soft targets,
    through which no gradient flows. Parts are drawn from torch's generator, which each step seeds.
    """
    terms = make_terms(recipe, dataset.train.labels, num_classes=len(dataset.class_names), device=device)
    parts, plan = Parts(space), recipe.loss

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.images)
        total = labels_loss(logits, batch, name=plan.name, smoothing=plan.label_smoothing, terms=terms)
        genomes = [space.smallest, *(_draw(space) for _ in range(_RANDOM))]
        for genome in genomes:
            total = total + _taught(parts.logits(model, genome, batch.images), logits.detach(), name=plan.name)
        return total / (1 + len(genomes))

    return loss


def _taught(logits: Tensor, answers: Tensor, *, name: LossName) -> Tensor:
    """Return the loss `name` of a part's logits [batch, classes] against the logits of the whole network."""
    if name == "bce":
        return functional.binary_cross_entropy_with_logits(logits.float(), answers.float().sigmoid())
    return functional.cross_entropy(logits.float(), answers.float().softmax(1))


def _draw(space: Elastic) -> Genome:
    return tuple(int(torch.randint(len(decision.choices), ())) for decision in space.decisions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supernet:
    """A trained supernet: its averaged weights, and the preprocessing and the device that they were trained with."""

    space: Elastic
    network: Network
    preprocess: Preprocess
    device: torch.device


def train_supernet(
    space: Elastic,
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    folder: Path,
    device: torch.device | None = None,
    listener: Listener | None = None,
    deadline_seconds: float | None = None,
) -> Supernet:
    """Train all parts of `space.base` together in `folder`, or resume the training there.

    The weights are those of the epoch in which the whole network was best. `device` overrides `check_device`. Raises
    InputError without a CUDA device, and for a recipe with a teacher: the whole network is that of its parts.
    """
    device = device or check_device()
    if recipe.loss.teacher:
        raise InputError(
            f"a supernet teaches its parts itself; got loss.teacher={recipe.loss.teacher!r}: leave it out of the recipe"
        )
    found = train(
        network_for(space.base, recipe),
        dataset,
        recipe,
        preprocess,
        folder=folder,
        loss_fn=sandwich_loss(space, dataset, recipe, device=device),
        listener=listener,
        device=device,
        deadline_seconds=deadline_seconds,
    )
    assert isinstance(found.model, Network)
    return Supernet(space=space, network=found.model, preprocess=preprocess, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The score of a part on the validation images, larger for a better one, such as accuracy; and the mean loss."""

    score: float
    nll: float


class Scorer:
    """Scores the parts of a trained supernet, each with BatchNorm statistics of its own."""

    def __init__(self, supernet: Supernet, dataset: Dataset, *, images: int = _NORM_IMAGES, seed: int = 0) -> None:
        self.supernet, self.dataset = supernet, dataset
        self._learning, self._figure = learning_of(dataset), find_task(dataset.task).figure
        chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:images]
        some = Split(sources=[dataset.train.sources[i] for i in chosen], labels=dataset.train.labels[chosen])
        held = dataset.val if len(dataset.val) else dataset.train
        self._some, self._held = (held_out(split, supernet.preprocess, batch_size=_BATCH) for split in (some, held))

    def score(self, genome: Genome) -> Scored:
        """Return the score of the network of these choices."""
        supernet = self.supernet
        with self._settled(genome) as network:
            found = self._learning.validate(network, self._held(), supernet.preprocess, supernet.device, ALONE)
        return Scored(score=self._figure.better(found.figures[f"val_{self._figure.key}"]), nll=found.loss)

    def weights(self, genome: Genome) -> tuple[ArchSpec, Arrays]:
        """Return the network of these choices and its weights as arrays, with the statistics that its score has."""
        with self._settled(genome) as network:
            return network.spec, {name: array.copy() for name, array in state_arrays(network).items()}

    @contextmanager
    def _settled(self, genome: Genome) -> Iterator[Network]:
        supernet = self.supernet
        spec, state = subnet(supernet.space, genome=genome, state=supernet.network.state_dict())
        network = build(spec).to(supernet.device, memory_format=torch.channels_last)
        network.load_state_dict(state, strict=False)
        batches = (to_input(images, supernet.preprocess, supernet.device) for images, _ in self._some())
        with precise_norms(network, batches):
            yield network
