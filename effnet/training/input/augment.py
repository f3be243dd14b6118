"""Augmentation of batches on the model's device: rotation, jitter, a published policy, degradation, random erasing."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effnet.errors import DataError
from effnet.training.input.degrade import Degradation, degraded, draw_degradations
from effnet.training.input.draws import Draws
from effnet.training.input.operations import GREY, operate
from effnet.training.input.policies import Slot, draw_policy
from effnet.training.recipe.augment import Augment, ErasingFill

# Share of the image's area, and height over width. Source: Zhong et al. 2017 (1708.04896); bounds as in timm.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASE_TRIES = 10

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The augmentations of each image of a batch: `slots` in order, then `degraded`, then rectangles `erased`.

    A rectangle is (top, left, height, width) in pixels, None if nothing is erased.
    """

    slots: tuple[Slot, ...]
    erased: tuple[Rectangle | None, ...]
    degraded: tuple[Degradation, ...] = ()


def augment_batch(
    images: Tensor, augment: Augment, *, mean: tuple[float, ...], seed: int, step: int, first: int = 0
) -> Tensor:
    """Return the augmented images, uint8 [batch, channels, R, R] like the input, on the same device.

    Randomness depends only on `seed`, `step` and an image's place in the step: `first` is the place of the first image
    if the step is divided over processes. No other random state is touched. If `augment` does nothing, `images` are
    returned. Random views and flips were applied to each image before; mixing comes after. `mean` is that of the
    preprocessing, a number in 0..1 per channel.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"images must be uint8 [batch, channels, R, R]; got {images.dtype} {list(images.shape)}")
    plan = draw_plan(augment, size=len(images), side=images.shape[-1], seed=seed, step=step, first=first)
    busy = [slot for slot in plan.slots if np.any(slot.names != "identity")]
    if not busy and not any(plan.erased) and not plan.degraded:
        return images
    images = images.clone()
    for slot in busy:
        for name in np.unique(slot.names):
            _apply_(images, slot, str(name))
    for row, how in enumerate(plan.degraded):
        chance = Draws(seed=seed, step=step, purpose="degradation").generator(2, first + row)
        images[row] = degraded(images[row], how, chance)
    for row, rectangle in enumerate(plan.erased):
        if rectangle is not None:
            chance = Draws(seed=seed, step=step, purpose="erasing").generator(2, first + row)
            _erase_(images[row], rectangle, augment.erasing_fill, mean, chance)
    return images


def draw_plan(augment: Augment, *, size: int, side: int, seed: int, step: int, first: int = 0) -> Plan:
    """Return the plan of augment_batch for `size` images of `side` pixels, from the step's image `first` on."""
    slots: list[Slot] = []
    if augment.rotation:
        turns = Draws(seed=seed, step=step, purpose="rotation").rows(size, 1, first=first)[:, 0]
        slots.append(_slot(np.full(size, "rotate"), (2 * turns - 1) * augment.rotation))
    policy = Draws(seed=seed, step=step, purpose="policy")
    slots += draw_policy(augment, size=size, side=side, draws=policy, first=first)
    if augment.jitter:
        slots += _jitter(augment.jitter, Draws(seed=seed, step=step, purpose="jitter").rows(size, 6, first=first))
    worse: list[Degradation] = []
    if augment.noise or augment.blur or augment.jpeg:
        draws = Draws(seed=seed, step=step, purpose="degradation")
        worse = draw_degradations(augment, size=size, side=side, draws=draws, first=first)
    erased: tuple[Rectangle | None, ...] = (None,) * size
    if augment.erasing:
        numbers = Draws(seed=seed, step=step, purpose="erasing").rows(size, 1 + 4 * _ERASE_TRIES, first=first)
        erased = tuple(_rectangle(row[1:], side) if row[0] < augment.erasing else None for row in numbers)
    return Plan(slots=tuple(slots), erased=erased, degraded=tuple(worse))


def _apply_(images: Tensor, slot: Slot, name: str) -> None:
    """Apply this operation, in one call, to the images for which the slot has it."""
    rows = np.flatnonzero(slot.names == name)
    if name == "identity":
        return
    if name == "cutout":
        for row in rows:
            _cut_out_(images[row], slot.values[row], slot.places[row])
        return
    at = torch.from_numpy(rows).to(images.device)
    values = torch.from_numpy(slot.values[rows].astype(np.float32)).to(images.device)
    images[at] = operate(images[at], name, values)


def _cut_out_(image: Tensor, half: float, place: np.ndarray) -> None:
    """Fill a square with grey, its centre anywhere; `half` its side is a share of the image's.

    Source: DeVries & Taylor 2017 (1708.04552), as google/automl, efficientnetv2/autoaugment.py, cutout.
    """
    side = image.shape[-1]
    reach, down, across = int(half * side), int(place[0] * side), int(place[1] * side)
    image[:, max(0, down - reach) : down + reach, max(0, across - reach) : across + reach] = GREY


def _erase_(
    image: Tensor, rectangle: Rectangle, fill: ErasingFill, mean: tuple[float, ...], chance: np.random.Generator
) -> None:
    top, left, height, width = rectangle
    shape = (len(image), height, width) if fill == "noise" else (len(image), 1, 1)
    shown = chance.integers(0, 256, shape, dtype=np.uint8)
    if fill == "mean":
        shown = np.round(255 * np.array(mean)).clip(0, 255).astype(np.uint8).reshape(shape)
    image[:, top : top + height, left : left + width] = torch.from_numpy(shown).to(image.device)


def _jitter(spread: float, numbers: np.ndarray) -> list[Slot]:
    """Change brightness, contrast and colour by factors in 1 - spread .. 1 + spread, in a random order."""
    names = np.array(["brightness", "contrast", "color"])
    factors = 1 + spread * (2 * numbers[:, :3] - 1)
    order = np.argsort(numbers[:, 3:], axis=1)
    return [_slot(names[which], np.take_along_axis(factors, which[:, None], 1)[:, 0]) for which in order.T]


def _slot(names: np.ndarray, values: np.ndarray) -> Slot:
    return Slot(names=names, values=values, places=np.zeros((len(names), 2)))


def _rectangle(numbers: np.ndarray, side: int) -> Rectangle | None:
    """Return the first of ten random rectangles that fits, or None."""
    for area, aspect, down, across in numbers.reshape(_ERASE_TRIES, 4):
        pixels = side**2 * (_ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0]))
        low, high = (math.log(bound) for bound in _ERASED_ASPECT)
        ratio = math.exp(low + aspect * (high - low))
        height, width = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < height < side and 0 < width < side:
            return (int(down * (side - height + 1)), int(across * (side - width + 1)), height, width)
    return None
