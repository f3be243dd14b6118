"""Training steps of B0 with effnet and with timm, on the same random images.

A step is forward, backward and AdamW, without EMA and without clipping, the default of timm's loop.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Step = Callable[[], None]


def batch(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Return random images [size, 3, side, side] and labels."""
    images = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(size) % 1000


def timm_step(images: Tensor, labels: Tensor, *, channels_last: bool = False, compiled: bool = False) -> Step:
    """Return a step of timm's efficientnet_b0: by default, or in its faster settings."""
    from benchmarks.peers import import_timm

    timm = import_timm()
    from timm.optim import create_optimizer_v2

    torch.manual_seed(0)
    model = timm.create_model("efficientnet_b0").train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        loss = functional.cross_entropy(forward(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def effnet_step(images: Tensor, labels: Tensor, *, fused: bool = True, recompute: str = "none") -> Step:
    """Return a step of effnet's b0 as in `effnet train`; `fused` False is without kernels."""
    from effnet.arch.catalog import get_spec
    from effnet.nn.network import build, fuse_
    from effnet.training.losses import Batch, cross_entropy
    from effnet.training.optim.optimisers import make_optimizer
    from effnet.training.recipe.file import with_values
    from effnet.training.recipe.schema import Recipe

    recipe = with_values(Recipe(), {"train.lr": 1e-4, "train.recompute": recompute})
    model = build(get_spec("b0"), seed=0).to(memory_format=torch.channels_last).train()
    if fused and not fuse_(model):
        raise RuntimeError("the kernels cannot be compiled here: a C compiler with OpenMP is needed")
    images = images.to(memory_format=torch.channels_last)
    optimizer, loss_fn = make_optimizer(model, recipe), cross_entropy()

    def step() -> None:
        loss = loss_fn(model, Batch(images=images, labels=labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step
