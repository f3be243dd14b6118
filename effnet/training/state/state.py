"""The mutable state of training, set up by a recipe."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from effnet.arch.spec import ArchSpec
from effnet.nn.dense import DenseNetwork, build_network
from effnet.nn.network import Network, Trunk, fuse_
from effnet.training.adversarial.auxiliary import AuxiliaryNorms
from effnet.training.device import autocast_dtype, make_scaler
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.distributed.sync import sync_norms_
from effnet.training.optim.norms import backbone_parts
from effnet.training.optim.optimisers import make_optimizer
from effnet.training.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The network, the average of its weights, the optimiser, the gradient scaler, and BatchNorm of attacked images."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    auxiliary: AuxiliaryNorms | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: the parameters of the network, and those of the auxiliary BatchNorm."""
        more = () if self.auxiliary is None else self.auxiliary.parameters()
        return [*self.model.parameters(), *more]


def network_for(spec: ArchSpec, recipe: Recipe) -> Network:
    """Return the network of a spec without a decoder as `recipe` trains it, initialised from the recipe's seed."""
    found = any_network_for(spec, recipe)
    assert isinstance(found, Network)
    return found


def any_network_for(spec: ArchSpec, recipe: Recipe) -> Network | DenseNetwork:
    """Return the network of any spec as `recipe` trains it, initialised from the recipe's seed."""
    extra = recipe.model
    return build_network(
        spec,
        dropout=extra.dropout,
        drop_path=extra.drop_path,
        norm_momentum=extra.norm_momentum,
        seed=recipe.train.seed,
    )


def make_state(model: nn.Module, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE) -> State:
    """Return the initial state of a run; move `model` to the device and set it up for the recipe.

    The average's BatchNorm layers are not synchronised: each process validates it on its own.
    """
    model.to(device, memory_format=torch.channels_last)
    for part in backbone_parts(model, recipe.train.frozen_stages) if recipe.train.frozen_stages else ():
        part.requires_grad_(False)
    if isinstance(model, Trunk):
        model.recompute = recipe.train.recompute == "stages"
        if wants_kernels(model, recipe, device, ranks):
            fuse_(model)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    if _synced(recipe, ranks):
        sync_norms_(model, ranks)
    auxiliary = AuxiliaryNorms(model) if recipe.augment.adversarial else None
    optimizer = make_optimizer(model, recipe)
    if auxiliary is not None:
        optimizer.add_param_group({"params": list(auxiliary.parameters()), "weight_decay": 0.0, "lr_scale": 1.0})
    return State(
        model=model,
        average=average,
        optimizer=optimizer,
        scaler=make_scaler(autocast_dtype(recipe.train.precision, device), device),
        auxiliary=auxiliary,
    )


def wants_kernels(model: nn.Module, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE) -> bool:
    """Return whether a run trains with the fused kernels, if they can be compiled."""
    # They do not support synchronised BatchNorm, nor the gradient of the images, which attacks follow.
    plain = not _synced(recipe, ranks) and not recipe.augment.adversarial
    return isinstance(model, Trunk) and recipe.train.fused and device.type == "cpu" and plain


def _synced(recipe: Recipe, ranks: Ranks) -> bool:
    return recipe.train.sync_norms and ranks.size > 1


def set_dropout_(model: nn.Module, rate: float) -> None:
    """Set the rate of every dropout layer in place."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
