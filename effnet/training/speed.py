"""The training throughput of a network on this machine, measured on a few real steps."""

import contextlib
import time

import numpy as np
import torch

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import EffnetError
from effnet.nn.network import build, fuse_
from effnet.training.device import fast_arithmetic, pick_device, to_input
from effnet.training.distributed.ranks import ALONE
from effnet.training.input.shares import Portions
from effnet.training.learning import learning_of, own_input
from effnet.training.losses import Batch, cross_entropy
from effnet.training.optim.ema import move_average_, update_average_
from effnet.training.optim.optimisers import make_optimizer
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe, Train
from effnet.training.state.position import Position
from effnet.training.state.state import any_network_for, make_state
from effnet.training.step import Stepper
from effnet.training.transfer.kept import front_of, tail_of

_MIN_SECONDS, _MAX_STEPS = 0.4, 6
# The batch shrinks for large networks, so that a step ends within seconds.
_MACS_A_STEP = 4e9


def train_speed(spec: ArchSpec, *, device: torch.device | None = None, kept_stages: int = 0) -> float:
    """Return training images per second of `spec`: forward, backward, optimiser and averaging, without decoding.

    With `kept_stages` it is the speed of what follows that many stages, on their feature maps.
    """
    device = device or pick_device()
    batch_size = max(2, min(32, int(_MACS_A_STEP / cost(spec).macs)))
    channels = spec.in_channels
    preprocess = Preprocess(resolution=spec.resolution, mean=(0.5,) * channels, std=(0.5,) * channels)
    recipe = Recipe(train=Train(batch_size=batch_size))
    model = build(spec, seed=0).to(device, memory_format=torch.channels_last)
    average = build(spec, seed=0).to(device, memory_format=torch.channels_last).requires_grad_(False)
    optimizer, loss_fn = make_optimizer(model, recipe), cross_entropy()
    shape = (batch_size, spec.resolution, spec.resolution, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if kept_stages:
        with torch.no_grad():
            maps = front_of(model.eval(), kept_stages)(to_input(images, preprocess, device))
        images = maps.permute(0, 2, 3, 1).half().cpu().numpy()
        model, average = tail_of(model.train(), kept_stages), tail_of(average, kept_stages)
    if device.type == "cpu":
        fuse_(model)
    labels = torch.arange(batch_size, device=device) % spec.num_classes

    def seconds(count: int) -> float:
        start = time.perf_counter()
        loss = loss_fn(model, Batch(images=to_input(images[:count], preprocess, device), labels=labels[:count]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_average_(average, model, step=0, decay=0.99)
        loss.item()  # waits for the device
        return time.perf_counter() - start

    with fast_arithmetic():
        seconds(2)  # warm-up: allocates memory and triggers torch's lazy imports
        laps = [seconds(batch_size)]
        while sum(laps) < _MIN_SECONDS and len(laps) < _MAX_STEPS:
            laps.append(seconds(batch_size))
    if not any(lap > 0 for lap in laps):
        raise EffnetError("the clock must run while training is timed; it stood still: check the machine's clock")
    return batch_size / min(lap for lap in laps if lap > 0)


def run_speed(
    spec: ArchSpec, dataset: Dataset, recipe: Recipe, preprocess: Preprocess, *, seconds: float = 1.0
) -> float:
    """Return training images per second of a run's first steps, with reading and augmentation; the run is discarded.

    It takes `seconds`, or two steps if these take longer.
    """
    device = pick_device()
    state = make_state(any_network_for(spec, recipe), recipe, device)
    learning = learning_of(dataset)
    own = own_input(learning)
    loss_fn = cross_entropy()
    if own is not None:  # whose targets are no classes
        loss_fn = learning.loss_of(dataset, recipe, preprocess=preprocess, device=device)
    stepper = Stepper(state, recipe, preprocess, loss_fn, device)
    portions, position = Portions(dataset, recipe, preprocess, ALONE, own), Position()
    first, images_seen, start, began = recipe_at(recipe, 0), 0, 0.0, time.perf_counter()
    with fast_arithmetic(), contextlib.closing(portions.batches(first, position)) as batches:
        for number, (images, labels) in enumerate(batches):
            stepper.step(images, labels, first, number=number, rate=0.0)
            move_average_(state.average, state.model, recipe.train, step=number, batch=number)
            if number == 0:  # warm-up
                start = time.perf_counter()
                continue
            images_seen += len(labels)
            if time.perf_counter() - start > seconds:
                break
    taken = time.perf_counter() - start
    if images_seen and taken > 0:
        return images_seen / taken
    # One batch, in which the warm-up is included.
    return len(labels) / max(1e-9, time.perf_counter() - began) if own else train_speed(spec, device=device)
