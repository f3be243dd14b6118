"""Augmentation policies: draws the operations and magnitudes of each image; touches no pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from effnet.training.input.draws import Draws
from effnet.training.input.policy_tables import CIFAR10, IMAGENET, V0, Table
from effnet.training.recipe.augment import Augment, Policy

# The EfficientNets' own list (google/automl, efficientnetv2/autoaugment.py, distort_image_with_randaugment).
RANDAUGMENT = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "color", "contrast", "brightness",
    "sharpness", "shear_x", "shear_y", "translate_x", "translate_y", "cutout", "solarize_add",
)  # fmt: skip
# Müller & Hutter 2021 (2103.10158), the wide space.
TRIVIALAUGMENT = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
_TABLES: dict[Policy, Table] = {"autoaugment": V0, "autoaugment_imagenet": IMAGENET, "autoaugment_cifar10": CIFAR10}
VALUELESS = ("identity", "autocontrast", "equalize", "invert")
_SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_ENHANCED = ("brightness", "color", "contrast", "sharpness")
# The share of the side by which an image is shifted at level 10, and half the side of a cut-out square. tensorflow/tpu
# shifts by 100 pixels and AutoAugment's v0 even by 250, more than the whole image at 224; the share is timm's.
_TRANSLATE, _CUTOUT = 0.45, 40 / 224
_TRIVIAL_LEVELS, _TRIVIAL_PIXELS = 31, 32

# Random numbers per operation and image: which operation, whether it is applied, two for its magnitude, the sign, two
# for the place.
_COLUMNS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One operation for each image of a batch.

    `names` [batch] are names of operations, "identity" for none; `values` [batch] the arguments of operations.py:
    degrees, a shear, a share of the side, a factor, bits, a threshold or an addition. `places` [batch, 2] in 0..1 are
    the centres of cut-out squares, down and across.
    """

    names: np.ndarray
    values: np.ndarray
    places: np.ndarray


def draw_policy(augment: Augment, *, size: int, side: int, draws: Draws, first: int = 0) -> tuple[Slot, ...]:
    """Return the operations of the policy, in order, for `size` images of `side` pixels, from the step's `first` on."""
    if augment.policy == "none":
        return ()
    num_ops = {"trivialaugment": 1, "randaugment": augment.num_ops, "randaugment_timm": augment.num_ops}
    count = num_ops.get(augment.policy, 2)
    numbers = draws.rows(size, count * _COLUMNS, first=first).reshape(size, count, _COLUMNS)
    if augment.policy in _TABLES:
        return _autoaugment(_TABLES[augment.policy], numbers, low_bits=0 if augment.policy == "autoaugment" else 4)
    if augment.policy == "trivialaugment":
        return (_trivialaugment(numbers[:, 0], side=side),)
    return tuple(_randaugment(numbers[:, i], augment) for i in range(count))


def level_value(name: str, level: np.ndarray, *, low_bits: int = 0) -> np.ndarray:
    """Return an operation's values at levels on AutoAugment's scale, on which 10 is the end of the searched range.

    Source: level_to_arg of the file named above. There posterize keeps 0 to 4 bits; in AutoAugment's paper 4 to 8,
    `low_bits` more. A higher level is not always a stronger change: posterize and solarize weaken.
    """
    share = level / 10
    if name in _ENHANCED:
        return 0.1 + 1.8 * share
    if name == "posterize":
        return low_bits + np.floor(4 * share)
    if name in ("solarize", "solarize_add"):
        return np.floor((256 if name == "solarize" else 110) * share)
    ends = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "cutout": _CUTOUT}
    ends |= {"translate_x": _TRANSLATE, "translate_y": _TRANSLATE}
    return ends.get(name, 0.0) * share


def _autoaugment(table: Table, numbers: np.ndarray, *, low_bits: int) -> tuple[Slot, ...]:
    rows = (numbers[:, 0, 0] * len(table)).astype(int)
    slots = []
    for place in range(2):
        chosen = [table[row][place] for row in rows]
        applied = numbers[:, place, 1] < [probability for _, probability, _ in chosen]
        names = np.where(applied, [name for name, _, _ in chosen], "identity")
        levels = np.array([float(level) for _, _, level in chosen])
        slots.append(_slot(names, numbers[:, place], partial(level_value, low_bits=low_bits), levels))
    return tuple(slots)


def _randaugment(numbers: np.ndarray, augment: Augment) -> Slot:
    """Draw a RandAugment operation; timm's has no cutout, applies each with probability 1/2 and stops at level 10."""
    timm = augment.policy == "randaugment_timm"
    known = tuple(name for name in RANDAUGMENT if name != "cutout") if timm else RANDAUGMENT
    names = np.array(known)[(numbers[:, 0] * len(known)).astype(int)]
    if timm:
        names = np.where(numbers[:, 1] < 0.5, names, "identity")
    # Box and Muller 1958: a normal number from two uniform ones.
    normal = np.sqrt(-2 * np.log1p(-numbers[:, 2])) * np.cos(2 * np.pi * numbers[:, 3])
    levels = np.maximum(0, augment.magnitude + augment.magnitude_std * normal)
    return _slot(names, numbers, level_value, np.minimum(levels, 10) if timm else levels)


def _trivialaugment(numbers: np.ndarray, *, side: int) -> Slot:
    names = np.array(TRIVIALAUGMENT)[(numbers[:, 0] * len(TRIVIALAUGMENT)).astype(int)]
    shares = np.floor(numbers[:, 2] * _TRIVIAL_LEVELS) / (_TRIVIAL_LEVELS - 1)
    signs = np.where(numbers[:, 4] < 0.5, -1, 1)

    def value(name: str, share: np.ndarray) -> np.ndarray:
        if name in _ENHANCED:
            return 1 + 0.99 * share * signs[names == name]
        most = {"rotate": 135.0, "shear_x": 0.99, "shear_y": 0.99}
        most |= dict.fromkeys(("translate_x", "translate_y"), _TRIVIAL_PIXELS / side)
        falling = {"posterize": 8 - np.round(6 * share), "solarize": 255 * (1 - share)}
        return falling[name] if name in falling else most.get(name, 0.0) * share

    return _slot(names, numbers, value, shares)


def _slot(
    names: np.ndarray, numbers: np.ndarray, value: Callable[[str, np.ndarray], np.ndarray], levels: np.ndarray
) -> Slot:
    values = np.zeros(len(names))
    for name in np.unique(names):
        values[names == name] = value(str(name), levels[names == name])
    turned = np.isin(names, _SIGNED) & (numbers[:, 4] < 0.5)
    return Slot(names=names, values=np.where(turned, -values, values), places=numbers[:, 5:7])
