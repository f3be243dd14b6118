"""`python -m benchmarks.memory_prediction`: predicted against measured memory of training.

Every case trains a few steps of `effnet train` in its own process. Its memory is the peak of the process, less the
memory before the network was built. The figure is the median, over all cases, of the relative error of the prediction;
the largest error is printed and recorded too. No case was used to fit the prediction's constants.
"""

import json
import statistics
import subprocess
import sys

import numpy as np
import torch

from benchmarks.harness import ROOT, finish, options
from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess
from effnet.nn.network import build
from effnet.system.machine import peak_mb
from effnet.training.device import fast_arithmetic
from effnet.training.losses import cross_entropy
from effnet.training.memory.predict import training_memory
from effnet.training.optim.ema import move_average_
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.state.state import make_state
from effnet.training.step import Stepper

GOAL, STEPS = 0.1, 3
# network, resolution, batch, micro-batch, fused kernels, recomputation
CASES = (
    ("lite1", 224, 8, 8, True, False),
    ("lite1", 160, 16, 16, False, False),
    ("lite2", 192, 16, 16, True, True),
    ("b1", 192, 12, 12, True, False),
    ("b1", 160, 12, 6, False, False),
    ("b1", 224, 16, 16, False, True),
    ("b0", 288, 6, 6, True, False),
    ("b0", 96, 32, 32, True, False),
    ("v2_b1", 192, 12, 12, True, False),
    ("v2_b1", 224, 8, 8, False, False),
    ("v2_b2", 192, 12, 12, True, True),
    ("edgetpu_s", 192, 12, 12, True, False),
    ("edgetpu_s", 224, 12, 12, True, True),
    ("b3", 224, 6, 6, True, False),
    ("resnet34", 160, 12, 12, False, False),
    ("resnet50", 128, 12, 12, False, False),
    ("resnet50", 160, 12, 12, False, True),
)  # fmt: skip


def main() -> None:
    """Measure every case, each time in a new process."""
    args = options(__doc__ or "", n=1)
    samples: dict[str, list[float]] = {}
    errors = []
    for number, case in enumerate(CASES):
        command = [sys.executable, "-m", "benchmarks.memory_prediction", str(number)]
        for _ in range(args.n):
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            samples.setdefault(_name(case), []).append(found["mb"])
        measured = statistics.median(samples[_name(case)])
        errors.append(found["predicted_mb"] / measured - 1)
        print(f"{_name(case)}: {found['predicted_mb']:.0f} MB predicted, {measured:.0f} MB measured, {errors[-1]:+.1%}")
    worst = max(errors, key=abs)
    print(f"The largest error is {worst:+.1%}")
    finish(
        "memory_prediction", args, figure=statistics.median(map(abs, errors)), goal=GOAL, unit="of the memory",
        better="lower", samples=samples, details={"worst_error": worst, "errors": errors},
    )  # fmt: skip


def _name(case: tuple) -> str:
    name, side, batch, micro, fused, recompute = case
    way = ("fused" if fused else "plain") + (", recomputed" if recompute else "")
    return f"{name} at {side}, {micro} of {batch}, {way}"


def _recipe(case: tuple) -> Recipe:
    _, _, batch, micro, fused, recompute = case
    sizes = {"train.batch_size": batch, "train.micro_batch": micro, "train.lr": 1e-4}
    return with_values(Recipe(), {**sizes, "train.fused": fused, "train.recompute": "stages" if recompute else "none"})


def measure(case: tuple) -> None:
    """Print the measured and the predicted memory of one case, as JSON."""
    spec, recipe = get_spec(case[0]), _recipe(case)
    _train(scale(spec, phi=-16), 32, recipe, steps=1)  # torch loads its lazy parts
    before = peak_mb()
    _train(spec, case[1], recipe, steps=STEPS)
    predicted = training_memory(spec, recipe, resolution=case[1], fused=case[4]).total / 1e6
    print(json.dumps({"mb": peak_mb() - before, "predicted_mb": predicted}))


def _train(spec: ArchSpec, side: int, recipe: Recipe, *, steps: int) -> None:
    device, average = torch.device("cpu"), (0.5, 0.5, 0.5)
    state = make_state(build(spec, seed=0), recipe, device)
    preprocess = Preprocess(resolution=side, mean=average, std=average)
    stepper = Stepper(state, recipe, preprocess, cross_entropy(), device)
    size = recipe.train.batch_size
    images = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    labels = np.arange(size, dtype=np.int64)
    for number in range(steps):
        stepper.step(images, labels, recipe, number=number, rate=1e-4)
        move_average_(state.average, state.model, recipe.train, step=number, batch=number)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isdigit():
        with fast_arithmetic():
            measure(CASES[int(sys.argv[1])])
    else:
        main()
