"""`fit.batch=auto` on this machine: the available memory, and trial steps."""

import numpy as np
import torch

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.nn.kernels.library import load_kernels
from effnet.nn.network import build
from effnet.system.available_memory import available_bytes
from effnet.system.machine import peak_mb
from effnet.system.memory import is_shortage
from effnet.training.device import autocast_dtype, pick_device
from effnet.training.input.batches import CACHE_BYTES
from effnet.training.losses import cross_entropy
from effnet.training.memory.batch_size import SHARE, Attempt, Fitted, fit_batch
from effnet.training.memory.predict import largest_part, training_memory
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.state.state import make_state
from effnet.training.step import Stepper

# A trial step on a CPU uses only a part of the images: if memory runs out, the system kills the process.
_TRIED_SHARE = 4


def fit_batch_here(
    spec: ArchSpec, recipe: Recipe, dataset: Dataset, *, device: torch.device | None = None
) -> Fitted | None:
    """Return `recipe` with micro-batches that fit in the available memory, None if that is unknown.

    On CUDA, trial steps of the sizes that were found are run; on a CPU smaller ones, whose measured memory is compared
    with the prediction.
    """
    device = device or pick_device()
    heap = device.type == "cpu"
    available = _available(spec, recipe, dataset, device)
    if available is None:
        return None
    fused = heap and recipe.train.fused and load_kernels() is not None
    element_bytes = 4 if autocast_dtype(recipe.train.precision, device) is None else 2
    attempt = cpu_attempt(spec, fused=fused, available=available) if heap else device_attempt(spec, device)
    return fit_batch(
        spec, recipe, available=available, fused=fused, element_bytes=element_bytes, heap=heap, attempt=attempt
    )


def _available(spec: ArchSpec, recipe: Recipe, dataset: Dataset, device: torch.device) -> int | None:
    """Return the bytes available to steps: the free memory less that of the data set's images."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = available_bytes()
    if free is None:
        return None
    image = spec.in_channels * spec.resolution**2
    # Cached at up to twice the side (batches.py), about four to three; a few batches are queued.
    images = min(CACHE_BYTES, 6 * image * len(dataset.train)) + min(CACHE_BYTES // 2, image * len(dataset.val))
    return max(0, free - images - 6 * recipe.train.batch_size * image)


def device_attempt(spec: ArchSpec, device: torch.device) -> Attempt:
    """Return a function that runs one step of a recipe on `device` and raises MemoryError if memory runs out."""

    def attempt(recipe: Recipe, side: int) -> None:
        try:
            _step(spec, recipe, side, device)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise MemoryError(str(error)) from None
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()

    return attempt


def cpu_attempt(spec: ArchSpec, *, fused: bool, available: int) -> Attempt:
    """Return a function that runs a step of a quarter of the images and raises MemoryError if all would not fit."""

    def attempt(recipe: Recipe, side: int) -> None:
        few = max(2, largest_part(recipe) // _TRIED_SHARE)
        small = with_values(recipe, {"train.batch_size": few, "train.micro_batch": 0})
        before = peak_mb()
        _step(spec, small, side, torch.device("cpu"))
        took = 1e6 * (peak_mb() - before)
        expected, whole = (training_memory(spec, r, resolution=side, fused=fused).total for r in (small, recipe))
        if whole * max(1.0, took / expected) > (1 + SHARE) / 2 * available:
            raise MemoryError("the trial step took more memory than predicted")

    return attempt


def _step(spec: ArchSpec, recipe: Recipe, side: int, device: torch.device) -> None:
    """Run a training step on random images, including the first update of the optimiser."""
    state, middle = make_state(build(spec, seed=0), recipe, device), (0.5,) * spec.in_channels
    preprocess = Preprocess(resolution=side, mean=middle, std=middle)
    stepper = Stepper(state, recipe, preprocess, cross_entropy(), device)
    count = recipe.train.batch_size
    shape = (count, side, side, spec.in_channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stepper.step(images, np.arange(count, dtype=np.int64) % spec.num_classes, recipe, number=0, rate=1e-6)
