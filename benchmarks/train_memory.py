"""`python -m benchmarks.train_memory`: the peak memory of training B0 at 224 pixels in batches of 16, against timm.

Each side trains in its own process: the figure is the peak memory of effnet's process beyond its memory before the
first step, over that of timm's default loop. It counts as infinite if effnet's step takes more than 1.1 times as long.
timm with channels last, and effnet with recomputation by stages, are measured too.
"""

import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

from benchmarks.harness import ROOT, finish, options
from benchmarks.train_steps import batch, effnet_step, timm_step
from effnet.system.machine import peak_mb
from effnet.training.device import fast_arithmetic

GOAL, MOST_TIME = 0.75, 1.1
SIDE, SIZE, STEPS = 224, 16, 4
SIDES = {
    "effnet": lambda images: effnet_step(*images),
    "timm": lambda images: timm_step(*images),
    "timm_channels_last": lambda images: timm_step(*images, channels_last=True),
    "effnet_plain": lambda images: effnet_step(*images, fused=False),
}


def main() -> None:
    """Measure every side in turn, each time in a new process."""
    args = options(__doc__ or "", n=3)
    samples: dict[str, list[float]] = {}
    for _ in range(args.n):
        for name in SIDES:
            command = [sys.executable, "-m", "benchmarks.train_memory", name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            for key, value in found.items():
                samples.setdefault(f"{name}_{key}", []).append(value)
    middle = {key: statistics.median(values) for key, values in samples.items()}
    for name in SIDES:
        print(f"{name}: {middle[f'{name}_mb']:.0f} MB, {middle[f'{name}_seconds']:.2f} s a step")
    ratio = middle["effnet_mb"] / middle["timm_mb"]
    time_ratio = middle["effnet_seconds"] / middle["timm_seconds"]
    finish(
        "train_memory", args, figure=ratio if time_ratio <= MOST_TIME else float("inf"), goal=GOAL,
        unit="of timm's memory", better="lower", samples=samples, details={"time_ratio": time_ratio},
    )  # fmt: skip


def measure(name: str) -> None:
    """Print the memory and time of one side, as JSON."""
    step = SIDES[name](batch(SIZE, SIDE))
    before = peak_mb()
    laps = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        laps.append(time.perf_counter() - start)
    print(json.dumps({"mb": peak_mb() - before, "seconds": min(laps)}))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        # effnet's process settings apply to its side only.
        with fast_arithmetic() if sys.argv[1].startswith("effnet") else nullcontext():
            measure(sys.argv[1])
    else:
        main()
