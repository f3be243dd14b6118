"""A contact sheet of augmented training images, to check an augmentation by eye."""

import dataclasses
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.training.input.augment import Plan, draw_plan
from effnet.training.input.batches import Load, train_batches
from effnet.training.input.policies import VALUELESS
from effnet.training.input.prepare import prepare
from effnet.training.losses import Batch
from effnet.training.recipe.schema import Recipe

_GAP, _LINE, _LINES, _LEAST_SIDE = 4, 12, 4, 96


def render_sheet(load: Load, count: int, recipe: Recipe, preprocess: Preprocess, *, columns: int = 6) -> Image.Image:
    """Return a sheet with a row per image, `count` in all: the evaluation view, then `columns` training views.

    The views are those of the first epochs if the images were the whole data set; captions name the augmentations.
    `load` gives an image by its number, uint8 [height, width, C] with C 1 or 3.
    """
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=max(2, count)))
    zoom = max(1, -(-_LEAST_SIDE // preprocess.resolution))
    side, below = preprocess.resolution * zoom, _LINE * _LINES
    size = ((columns + 1) * (side + _GAP) + _GAP, count * (side + below + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for row, column, image, lines in _tiles(load, count, recipe, preprocess, columns):
        left, top = _GAP + column * (side + _GAP), _GAP + row * (side + below + _GAP)
        colours = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        sheet.paste(Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST), (left, top))
        for number, line in enumerate(lines[:_LINES]):
            draw.text((left, top + side + number * _LINE), line, fill="black", font=font)
    return sheet


def _tiles(
    load: Load, count: int, recipe: Recipe, preprocess: Preprocess, columns: int
) -> Iterator[tuple[int, int, np.ndarray, list[str]]]:
    """Yield row, column, pixels and the lines of the caption."""
    for row in range(count):
        yield row, 0, resize_and_crop(load(row), preprocess), ["original"]
    for column in range(columns):
        with closing(train_batches(load, np.arange(count), recipe, preprocess, epoch=column)) as batches:
            images, rows = next(batches)
        batch = prepare(images, rows, recipe, preprocess, device=torch.device("cpu"), step=column)
        plan = draw_plan(recipe.augment, size=count, side=preprocess.resolution, seed=recipe.train.seed, step=column)
        seen = _pixels(batch, preprocess)
        for place, row in enumerate(rows):
            yield int(row), column + 1, seen[place], _said(plan, batch, place)


def _pixels(batch: Batch, preprocess: Preprocess) -> np.ndarray:
    """Return the input of a network converted back to images, uint8 [batch, R, R, C]."""
    scaled = batch.images.permute(0, 2, 3, 1).numpy() * np.array(preprocess.std) + np.array(preprocess.mean)
    return np.round(255 * scaled).clip(0, 255).astype(np.uint8)


def _said(plan: Plan, batch: Batch, place: int) -> list[str]:
    """Return the augmentations of the image at this place, a line each."""
    done = [(str(slot.names[place]), float(slot.values[place])) for slot in plan.slots]
    lines = [name if name in VALUELESS else f"{name} {value:.3g}" for name, value in done if name != "identity"]
    if plan.erased[place] is not None:
        lines.append("erased")
    if batch.mixed is not None:
        own, partner = float(batch.mixed.weight[place]), int(batch.mixed.partner[place])
        lines.append(f"{own:.2f} own, rest row {partner + 1}")
    return lines
