"""How whole batches vary on the model's device: turns, colours, a published policy, erased rectangles."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effnet.errors import DataError
from effnet.training.draws import Draws
from effnet.training.operations import GREY, operate
from effnet.training.policies import Slot, draw_policy
from effnet.training.recipe import Augment

# Of the picture's area, and height to width. Source: Zhong et al. 2017 (1708.04896), section 4; as timm's RandomErasing.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASE_TRIES = 10

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done to each picture of a batch: `slots` in order, then rectangles `erased`.

    A rectangle is (top, left, height, width) in pixels, None where nothing is erased; `noise` makes the generator of
    what a picture shows there.
    """

    slots: tuple[Slot, ...]
    erased: tuple[Rectangle | None, ...]
    noise: Draws
    first: int


def augment_batch(images: Tensor, augment: Augment, *, seed: int, step: int, first: int = 0) -> Tensor:
    """Returns the pictures varied, uint8 [batch, channels, R, R] as they came, on their device.

    Chance depends on `seed`, `step` and a picture's place in the step alone: `first` is that of the first picture
    where a step is divided. No other randomness is touched. Where `augment` does nothing, `images` are returned. What
    views and mirrors do has been done to each picture before, and mixing comes after.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"pictures must be uint8 [batch, channels, R, R]; got {images.dtype} {list(images.shape)}")
    size, height, width = len(images), *images.shape[-2:]
    plan = draw_plan(augment, size=size, height=height, width=width, seed=seed, step=step, first=first)
    return apply_plan(images, plan)


def draw_plan(augment: Augment, *, size: int, height: int, width: int, seed: int, step: int, first: int = 0) -> Plan:
    """Returns what augment_batch does to `size` pictures: turning, the policy, colours, erasing."""
    slots: list[Slot] = []
    if augment.rotation:
        turns = Draws(seed=seed, step=step, purpose="rotation").rows(size, 1, first=first)[:, 0]
        slots.append(_slot(np.full(size, "rotate"), (2 * turns - 1) * augment.rotation))
    policy = Draws(seed=seed, step=step, purpose="policy")
    slots += draw_policy(augment, size=size, side=width, draws=policy, first=first)
    if augment.jitter:
        slots += _jitter(augment.jitter, Draws(seed=seed, step=step, purpose="jitter").rows(size, 6, first=first))
    erasing = Draws(seed=seed, step=step, purpose="erasing")
    erased: tuple[Rectangle | None, ...] = (None,) * size
    if augment.erasing:
        numbers = erasing.rows(size, 1 + 4 * _ERASE_TRIES, first=first)
        erased = tuple(_rectangle(row[1:], height, width) if row[0] < augment.erasing else None for row in numbers)
    return Plan(slots=tuple(slots), erased=erased, noise=erasing, first=first)


def apply_plan(images: Tensor, plan: Plan) -> Tensor:
    """Returns the pictures after all that was planned; `images` themselves where that is nothing."""
    busy = [slot for slot in plan.slots if np.any(slot.names != "identity")]
    if not busy and not any(plan.erased):
        return images
    images = images.clone()
    for slot in busy:
        for name in np.unique(slot.names):
            if name != "identity":
                _apply_(images, slot, str(name))
    for place, rectangle in enumerate(plan.erased):
        if rectangle is not None:
            top, left, height, width = rectangle
            generator = plan.noise.generator(2, plan.first + place)
            noise = generator.integers(0, 256, (images.shape[1], height, width), dtype=np.uint8)
            images[place, :, top : top + height, left : left + width] = torch.from_numpy(noise).to(images.device)
    return images


def _apply_(images: Tensor, slot: Slot, name: str) -> None:
    """Changes those pictures that the slot has this operation for, all at once."""
    rows = np.flatnonzero(slot.names == name)
    if name == "cutout":
        for row in rows:
            _cut_out_(images[row], slot.values[row], slot.places[row])
        return
    at = torch.from_numpy(rows).to(images.device)
    values = torch.from_numpy(slot.values[rows].astype(np.float32)).to(images.device)
    images[at] = operate(images[at], name, values)


def _cut_out_(image: Tensor, half: float, place: np.ndarray) -> None:
    """Makes a square grey, its middle anywhere; `half` its side is a share of the picture's.

    Source: DeVries & Taylor 2017 (1708.04552), as google/automl, efficientnetv2/autoaugment.py, cutout.
    """
    height, width = image.shape[-2:]
    reach = int(half * width)
    down, across = int(place[0] * height), int(place[1] * width)
    image[:, max(0, down - reach) : down + reach, max(0, across - reach) : across + reach] = GREY


def _jitter(spread: float, numbers: np.ndarray) -> list[Slot]:
    """Changes brightness, contrast and colour by factors in 1 - spread .. 1 + spread, in an order by chance."""
    names = np.array(["brightness", "contrast", "color"])
    factors = 1 + spread * (2 * numbers[:, :3] - 1)
    order = np.argsort(numbers[:, 3:], axis=1)
    return [_slot(names[which], np.take_along_axis(factors, which[:, None], 1)[:, 0]) for which in order.T]


def _slot(names: np.ndarray, values: np.ndarray) -> Slot:
    return Slot(names=names, values=values, places=np.zeros((len(names), 2)))


def _rectangle(numbers: np.ndarray, height: int, width: int) -> Rectangle | None:
    """Returns the first of ten random rectangles that fits, or none."""
    for area, aspect, down, across in numbers.reshape(_ERASE_TRIES, 4):
        share = _ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0])
        low, high = (math.log(bound) for bound in _ERASED_ASPECT)
        ratio = math.exp(low + aspect * (high - low))
        tall, wide = round(math.sqrt(share * height * width * ratio)), round(math.sqrt(share * height * width / ratio))
        if 0 < tall < height and 0 < wide < width:
            return (int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide)
    return None
