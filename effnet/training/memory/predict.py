"""The memory of a training step, predicted from the spec alone, without torch."""

import functools
import math
from dataclasses import dataclass

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError
from effnet.training.memory.graph import step_graph
from effnet.training.memory.walk import Peak
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import OptimizerName, Recipe

# Copies of the weights that an optimiser keeps, and temporary copies that its step makes.
_MOMENTS: dict[OptimizerName, int] = {"adamw": 2, "sgd": 1, "rmsprop_tf": 2, "lamb": 2}
_STEP_COPIES: dict[OptimizerName, int] = {"adamw": 0, "sgd": 0, "rmsprop_tf": 2, "lamb": 2}
_FLOAT = 4
# Heap fragmentation per byte that stays (weights and their copies), that is kept from the forward to the backward pass,
# and that is temporary. Fitted to lite0, b0, v2_b0, b2 and resnet18 in 18 settings with glibc;
# benchmarks/memory_prediction.py tests them on other networks.
_LOST_FIXED, _LOST_KEPT, _LOST_TEMPORARY = 0.27, 0.18, 0.9
# The largest batch of validation.
_MOST_EVALUATED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """The peak memory of training, in bytes.

    `weights` are those of the network and its buffers, `average` their moving average, `batch` the images of a
    whole step. `activations` are kept per image until the backward pass; `images` are in the network at once.
    `temporary` memory comes on top for a moment of a step; `lost` is heap fragmentation.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    batch: int
    activations: int
    images: int
    temporary: int
    lost: int

    @property
    def fixed(self) -> int:
        """The part that does not depend on the number of images."""
        return self.weights + self.gradients + self.optimizer + self.average

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.fixed + self.batch + self.images * self.activations + self.temporary + self.lost


def training_memory(
    spec: ArchSpec,
    recipe: Recipe,
    *,
    resolution: int | None = None,
    fused: bool = False,
    element_bytes: int = _FLOAT,
    heap: bool = True,
) -> MemoryNeed:
    """Return the memory that `recipe` needs to train `spec`, with its train.micro_batch and train.recompute.

    `fused` says whether the fused CPU kernels run, `element_bytes` is the size of an element of a feature map: 2 under
    automatic mixed precision. `heap` says whether feature maps lie in the heap of the process, as on a CPU.
    `resolution` is the spec's own by default; stages of the recipe are ignored (see `recipe_at`). Queued decoded images
    and the memory of Python and torch themselves are not counted.

    Raises SpecError for an impossible resolution, InputError for an impossible element size.
    """
    if element_bytes not in (2, _FLOAT):
        raise InputError(f"element_bytes must be 2 or 4; got {element_bytes!r}")
    side = spec.resolution if resolution is None else resolution
    total, images = cost(spec, resolution=side), largest_part(recipe)
    step, evaluated = _peaks(spec, side, fused, recipe.train.recompute == "stages")
    params, rule = _FLOAT * total.params, recipe.optimizer.name
    weights = params + _FLOAT * total.buffers
    kept = element_bytes * images * step.kept
    # On top of the feature maps: the BatchNorm statistics of a batch, and a half-precision copy of the weights.
    cast = 0 if element_bytes == _FLOAT else element_bytes * total.params
    temporary = max(
        element_bytes * images * (step.most - step.kept) + _FLOAT * total.buffers + cast,
        _STEP_COPIES[rule] * params - kept,
        _FLOAT * evaluation_batch(recipe) * evaluated - kept,
    )
    fixed = 2 * weights + (1 + _MOMENTS[rule]) * params
    lost = round(_LOST_FIXED * fixed + _LOST_KEPT * kept + _LOST_TEMPORARY * temporary) if heap else 0
    return MemoryNeed(
        weights=weights,
        gradients=params,
        optimizer=_MOMENTS[rule] * params,
        average=weights,
        # As bytes, as floats, and as floats once more if images are mixed.
        batch=recipe.train.batch_size * spec.in_channels * side**2 * (1 + (2 if _mixes(recipe) else 1) * _FLOAT),
        activations=element_bytes * step.kept,
        images=images,
        temporary=temporary,
        lost=lost,
    )


@functools.lru_cache(maxsize=64)  # the search for a batch that fits makes many calls
def _peaks(spec: ArchSpec, resolution: int, fused: bool, recompute: bool) -> tuple[Peak, int]:
    """Return the peak of an image in a training step, and its peak in validation, in elements."""
    step = step_graph(spec, resolution=resolution, fused=fused, recompute=recompute)
    return step.training_peak(recompute=recompute), step_graph(spec, resolution=resolution, fused=False).forward_peak()


def evaluation_batch(recipe: Recipe) -> int:
    """Return the batch size of validation: at most twice the micro-batch of training.

    Without gradients an image takes less than half of the memory.
    """
    epochs = range(recipe.train.epochs) if recipe.stages else (0,)
    return min(_MOST_EVALUATED, *(2 * largest_part(recipe_at(recipe, epoch)) for epoch in epochs))


def largest_part(recipe: Recipe) -> int:
    """Return the largest micro-batch that step.split_batch makes."""
    count, most = recipe.train.batch_size, recipe.train.micro_batch
    parts = 1 if not most else math.ceil(count / most)
    if not recipe.train.frozen_norms:
        parts = max(1, min(parts, count // 2))
    return math.ceil(count / parts)


def _mixes(recipe: Recipe) -> bool:
    return bool(recipe.augment.mixup or recipe.augment.cutmix)
