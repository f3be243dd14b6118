"""`python -m benchmarks.train_speed`: training images per second of B0 on a CPU, against timm's efficientnet_b0.

At 128 pixels in batches of 32 and at 224 in batches of 16: effnet's step, the plain step without its kernels, and
timm's by default, with channels last, and with channels last and torch.compile; in turn, on the same images. The
figure is effnet's speed over that of timm's default loop, the lower of the two sizes; it counts as 0 if effnet
is less than 1.1 times as fast as the fastest of timm's settings.
"""

import statistics
import time

from benchmarks.harness import finish, options
from benchmarks.train_steps import Step, batch, effnet_step, timm_step
from effnet.training.device import fast_arithmetic

GOAL, LEAST_OVER_BEST = 1.5, 1.1
SIZES = ((128, 32), (224, 16))
_TIMM = ("timm_default", "timm_channels_last", "timm_compiled")


def main() -> None:
    """Time all sides in turn at both sizes."""
    args = options(__doc__ or "", n=7)
    samples: dict[str, list[float]] = {}
    ratios, over_best = [], []
    for side, size in SIZES:
        steps = make_steps(side, size)
        found: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.n):
            for name, step in steps.items():
                found[name].append(size / seconds(step))
        middle = {name: statistics.median(rates) for name, rates in found.items()}
        for name, rates in found.items():
            print(f"{side} px, batch {size}: {name} {middle[name]:.1f} images/s ({min(rates):.1f} to {max(rates):.1f})")
            samples[f"{name}_{side}"] = rates
        ratios.append(middle["effnet"] / middle["timm_default"])
        over_best.append(middle["effnet"] / max(middle[name] for name in _TIMM))
        print(f"{side} px: {ratios[-1]:.2f} times timm's default, {over_best[-1]:.2f} times its best")
    finish(
        "train_speed", args, figure=min(ratios) if min(over_best) >= LEAST_OVER_BEST else 0.0, goal=GOAL,
        unit="times faster", better="higher", samples=samples,
        details={"over_default": ratios, "over_best": over_best, "sizes": [list(pair) for pair in SIZES]},
    )  # fmt: skip


def make_steps(side: int, size: int) -> dict[str, Step]:
    """Return every side's step at this size, each run twice to exclude compilation and allocation from the timing."""
    images = batch(size, side)
    steps = {
        "effnet": effnet_step(*images),
        "timm_default": timm_step(*images),
        "timm_channels_last": timm_step(*images, channels_last=True),
        "timm_compiled": timm_step(*images, channels_last=True, compiled=True),
        "effnet_plain": effnet_step(*images, fused=False),
    }
    for step in steps.values():
        step()
        step()
    return steps


def seconds(step: Step) -> float:
    """Return the time of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    with fast_arithmetic():
        main()
