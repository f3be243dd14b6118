"""`python -m benchmarks.augment_speed`: the cost of batch augmentation in a training step on two CPU cores.

B0 at 128 pixels, 16 images a step, two threads. The plain step and a step with each policy (and with rotation,
jitter and erasing, and with mixing) are interleaved for several rounds; the figure is the speed of the slowest as a
fraction of the plain step's, medians of all rounds. Also recorded: the time of augmentation alone, in milliseconds per
batch, and kornia's policies for comparison if kornia is installed.
"""

import dataclasses
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import effnet
from benchmarks.harness import finish, options
from effnet.data.preprocess import Preprocess
from effnet.nn.network import build
from effnet.training.device import fast_arithmetic
from effnet.training.input.prepare import prepare
from effnet.training.losses import cross_entropy
from effnet.training.optim.optimisers import make_optimizer
from effnet.training.recipe.schema import Augment, Recipe

GOAL, BATCH, RESOLUTION, STEPS, THREADS = 0.5, 16, 128, 3, 2
VARIED = {
    "plain": Augment(),
    "autoaugment": Augment(policy="autoaugment"),
    "autoaugment_cifar10": Augment(policy="autoaugment_cifar10"),
    "randaugment": Augment(policy="randaugment", magnitude=10.0),
    "randaugment_timm": Augment(policy="randaugment_timm", magnitude=9.0, magnitude_std=0.5),
    "trivialaugment": Augment(policy="trivialaugment"),
    "rotation_jitter_erasing": Augment(rotation=20.0, jitter=0.4, erasing=0.5, erasing_fill="noise"),
    "mixup_and_cutmix": Augment(mixup=0.2, cutmix=1.0),
}
_KORNIA = {"AutoAugment": {}, "RandAugment": {"n": 2, "m": 9}, "TrivialAugment": {}}


def main() -> None:
    """Train with each in turn and compare speeds."""
    args = options(__doc__ or "", n=5)
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    labels = rng.integers(0, 1000, BATCH)
    step = make_step(images, labels)
    samples: dict[str, list[float]] = {f"{name}_images_per_second": [] for name in VARIED}
    alone: dict[str, list[float]] = {f"{name}_ms": [] for name in VARIED}
    with fast_arithmetic():
        step(Augment(), 0)
        for turn in range(args.n):
            for name, augment in VARIED.items():
                numbers = range(turn * STEPS, (turn + 1) * STEPS)
                took = statistics.median(seconds(step, augment, number) for number in numbers)
                samples[f"{name}_images_per_second"].append(BATCH / took)
                only = statistics.median(seconds(make_prepared(images, labels), augment, number) for number in numbers)
                alone[f"{name}_ms"].append(1000 * only)
    speeds = {name: statistics.median(samples[f"{name}_images_per_second"]) for name in VARIED}
    shares = {name: speed / speeds["plain"] for name, speed in speeds.items() if name != "plain"}
    print("shares", {name: round(share, 3) for name, share in shares.items()}, flush=True)
    print("ms a batch", {name: round(statistics.median(took), 1) for name, took in alone.items()}, flush=True)
    finish(
        "augment_speed", args, figure=min(shares.values()), goal=GOAL, unit="of the plain step's speed",
        better="higher", samples=samples | alone,
        details={"shares": shares, "batch": BATCH, "resolution": RESOLUTION, "kornia_ms": kornia_ms(images)},
    )  # fmt: skip


def seconds(act: Callable[[Augment, int], None], augment: Augment, number: int) -> float:
    """Return the time of one step."""
    start = time.perf_counter()
    act(augment, number)
    return time.perf_counter() - start


def make_prepared(images: np.ndarray, labels: np.ndarray) -> Callable[[Augment, int], None]:
    """Return a function that prepares a batch for the loss."""

    def prepared(augment: Augment, number: int) -> None:
        recipe = dataclasses.replace(Recipe(), augment=augment)
        prepare(images, labels, recipe, Preprocess(resolution=RESOLUTION), device=torch.device("cpu"), step=number)

    return prepared


def make_step(images: np.ndarray, labels: np.ndarray) -> Callable[[Augment, int], None]:
    """Return a training step of B0 on these images."""
    model = build(effnet.get_spec("b0"), dropout=0.2, drop_path=0.2, seed=0).to(memory_format=torch.channels_last)
    optimizer, loss_fn = make_optimizer(model, Recipe()), cross_entropy(0.1)

    def step(augment: Augment, number: int) -> None:
        recipe = dataclasses.replace(Recipe(), augment=augment)
        preprocess = Preprocess(resolution=RESOLUTION)
        batch = prepare(images, labels, recipe, preprocess, device=torch.device("cpu"), step=number)
        optimizer.zero_grad(set_to_none=True)
        loss_fn(model, batch).backward()
        optimizer.step()

    return step


def kornia_ms(images: np.ndarray) -> dict[str, float]:
    """Return the milliseconds per batch of kornia's policies, which apply one operation to all images of a batch."""
    if importlib.util.find_spec("kornia") is None:
        return {}
    auto = importlib.import_module("kornia.augmentation.auto")
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous()
    found = {}
    for name, values in _KORNIA.items():
        policy = getattr(auto, name)(**values)
        took = []
        for _ in range(15):
            start = time.perf_counter()
            policy(batch)
            took.append(1000 * (time.perf_counter() - start))
        found[name] = statistics.median(took)
    return found


if __name__ == "__main__":
    main()
