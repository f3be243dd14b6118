"""Training batches: decoded in part or cached, augmented in threads, reproducible from seed, epoch and position."""

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from effnet.data.datasets import Split
from effnet.data.order import Blocks, epoch_order
from effnet.data.preprocess import Preprocess, random_flip, random_shift, resize_and_crop
from effnet.data.sound.spectrogram import random_window
from effnet.data.view.crop import RawImage, as_evaluated, decoded, open_image_at, random_part, random_view, size_at
from effnet.data.view.evaluation import eval_decoding, eval_view_at
from effnet.data.view.resample import resample
from effnet.errors import DataError, ImageError
from effnet.training.input.own import Views
from effnet.training.input.resize import resize_square
from effnet.training.recipe.balance import sampled
from effnet.training.recipe.schema import Recipe

# Decoded images are cached in memory up to this many bytes in all; other files are read again each epoch.
CACHE_BYTES = 2 * 2**30
# The shorter side of a cached image, and of a decoded crop, is at least this many times the input's if the file has as
# many pixels: resizing from there loses nothing visible.
_SHRINK = 2

# This many unreadable images in a row are no accident.
_MOST_BAD = 16
# Sample size for the estimate of how many images can be cached.
_NUM_SIZES = 64

T = TypeVar("T")
Load = Callable[[int], RawImage]


def cached_loader(split: Split, preprocess: Preprocess, *, limit: int = CACHE_BYTES) -> Load:
    """Return a function from an index of `split` to its image, uint8 [height, width, channels] or an EncodedJpeg.

    As many images as should fill `limit` bytes, spread evenly, are shrunk to the size that training can use and cached.
    The JPEG files of the others are left to be decoded in part. The cached set is fixed beforehand, and nothing depends
    on the order of the calls.
    """
    kept: dict[int, np.ndarray] = {}
    used = 0
    share = _kept_share(split, preprocess, limit)

    def load(index: int) -> RawImage:
        nonlocal used
        image = kept.get(index)
        if image is not None:
            return image
        with open_image_at(split, index, eval_decoding(preprocess)) as raw:
            if int((index + 1) * share) == int(index * share) and not isinstance(raw, np.ndarray):
                return raw
            image = _shrink(raw, preprocess)
        if used + image.nbytes <= limit:
            kept[index] = image
            used += image.nbytes
        return image

    return load


def _kept_share(split: Split, preprocess: Preprocess, limit: int) -> float:
    """Return the share of the images that `limit` bytes hold, estimated from a sample; skips unreadable images."""
    sizes = []
    for index in np.unique(np.linspace(0, len(split) - 1, _NUM_SIZES, dtype=np.int64)):
        try:
            size = size_at(split, int(index), eval_decoding(preprocess))
        except ImageError:
            continue
        height, width = _shrunk(*size, preprocess)
        sizes.append(height * width * preprocess.channels)
    return min(1.0, limit / (float(np.mean(sizes)) * len(split))) if sizes else 1.0


def _shrink(raw: RawImage, preprocess: Preprocess) -> np.ndarray:
    if preprocess.sound is not None and isinstance(raw, np.ndarray):  # windows of it are drawn
        return raw
    least, longer = _SHRINK * preprocess.resolution, preprocess.mode == "pad"
    image = decoded(raw, channels=preprocess.channels, least=least, longer=longer)
    height, width = (max(1, round(side)) for side in _shrunk(image.shape[0], image.shape[1], preprocess))
    return resample(image, width=width, height=height, interpolation="bicubic")


def _shrunk(height: int, width: int, preprocess: Preprocess) -> tuple[float, float]:
    """Return the height and width that training can use: the side that fills the input, at twice its pixels."""
    least = _SHRINK * preprocess.resolution
    if preprocess.mode == "squash":
        return min(height, least), min(width, least)
    ratio = min(1.0, least / (max if preprocess.mode == "pad" else min)(height, width))
    return height * ratio, width * ratio


def augmented(raw: RawImage, recipe: Recipe, preprocess: Preprocess, *, rng: np.random.Generator) -> np.ndarray:
    """Return one random view of `raw`, uint8 [resolution, resolution, channels].

    Raises:
        ImageError: a JPEG file that had not been decoded yet is damaged.
    """
    if preprocess.sound is not None and isinstance(raw, np.ndarray):
        raw = random_window(raw, preprocess.sound, rng=rng)
    augment, resolution, channels = recipe.augment, preprocess.resolution, preprocess.channels
    least, scale = _SHRINK * resolution, (augment.min_area, 1.0)
    if augment.view == "crop" and preprocess.mode == "pad":
        image = decoded(raw, channels=channels, least=least, longer=True)
        image = random_view(image, preprocess, rng=rng, scale=scale, interpolation=augment.interpolation)
        return random_flip(image, rng=rng) if augment.flip else image
    if augment.view == "crop":
        part = random_part(raw, least=least, rng=rng, channels=channels, scale=scale, mode=preprocess.mode)
        mirror = augment.flip and rng.random() < 0.5
        return resize_square(part, resolution=resolution, interpolation=augment.interpolation, mirror=mirror)
    image = as_evaluated(raw, preprocess)
    if augment.view == "none":
        image = resize_and_crop(image, preprocess)
    else:
        if preprocess.mode != "center":  # shift the whole image
            whole = dataclasses.replace(preprocess, crop=1.0, interpolation=augment.interpolation)
            image = resize_and_crop(image, whole)
        image = random_shift(image, resolution=resolution, rng=rng, interpolation=augment.interpolation)
    return random_flip(image, rng=rng) if augment.flip else image


def train_batches(
    load: Load,
    labels: np.ndarray,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    epoch: int,
    start: int = 0,
    own: Callable[[int], slice] = lambda count: slice(count),
    blocks: Blocks | None = None,
    workers: int = 1,
    ahead: int = 4,
    views: Views | None = None,
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield (images uint8 [batch, R, R, C], their labels [batch, ...]) of one epoch from batch number `start` on.

    `views` are those of a task whose targets move with the pixels; it then makes images and targets, without `load`.

    `own` maps the size of a batch to the slice of it that this process gets. The order depends only on seed, epoch and
    `blocks`, a view only on seed, epoch and index: the number of `workers` and of batches prepared `ahead` changes
    nothing. With a teacher and loss.teacher_views, views cycle. With balance.method sample an image may be shown
    several times in an epoch, each time in another view.
    """
    taught = recipe.loss.teacher_views if recipe.loss.teacher else 0
    order, times = _order(labels, recipe, epoch=epoch, blocks=blocks)
    numbers = np.arange(len(order))
    chunks = [numbers[i : i + recipe.train.batch_size] for i in range(0, len(order), recipe.train.batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:  # a batch of one has no batch statistics
        chunks[-2] = np.concatenate(chunks[-2:])
        chunks.pop()

    chunks = [chunk[own(len(chunk))] for chunk in chunks]

    def view(number: int) -> tuple[np.ndarray, np.ndarray]:
        index, time = int(order[number]), int(times[number])
        drawn = [(epoch + time) % taught, index] if taught else [epoch, index] + [time] * (time > 0)

        def make_view(place: int) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng([recipe.train.seed, *drawn])
            if views is not None:
                return views.view(place, recipe, rng)
            return augmented(load(place), recipe, preprocess, rng=rng), labels[place]

        return this_or_next(make_view, len(labels), index)

    def make(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, targets = zip(*(view(number) for number in chunk), strict=True)
        return np.stack(images), np.array(targets, dtype=labels.dtype) if views is None else views.stack(targets)

    todo = iter(chunks[start:])
    with ThreadPoolExecutor(workers, thread_name_prefix="effnet-batches") as pool:
        waiting: deque[Future] = deque(pool.submit(make, chunk) for _, chunk in zip(range(ahead), todo, strict=False))
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(make, chunk) for _, chunk in zip(range(1), todo, strict=False))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _order(labels: np.ndarray, recipe: Recipe, *, epoch: int, blocks: Blocks | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of an epoch in order, and the repeat of each within it, from 0: int64 [images] each."""
    seed = recipe.train.seed
    if recipe.balance.method != "sample":
        return epoch_order(len(labels), seed=seed, epoch=epoch, blocks=blocks), np.zeros(len(labels), np.int64)
    places, times = sampled(labels, recipe.balance, seed=seed, epoch=epoch)
    blocks = blocks and dataclasses.replace(blocks, numbers=blocks.numbers[places])
    order = epoch_order(len(places), seed=seed, epoch=epoch, blocks=blocks)
    return places[order], times[order]


def this_or_next(make: Callable[[int], tuple[np.ndarray, T]], count: int, index: int) -> tuple[np.ndarray, T]:
    """Return the view and the target that `make` gives for `index`, or for the next readable file of `count`.

    Inspection has removed bad files, but checks only a sample of a huge data set, and files can vanish.
    Raises ImageError if many files in a row cannot be read.
    """
    for offset in range(_MOST_BAD):
        place = (index + offset) % count
        try:
            return make(place)
        except ImageError as error:
            failed = error
    raise ImageError(f"{_MOST_BAD} images in a row cannot be read; the last: {failed}") from failed


def num_batches(images: int, batch_size: int) -> int:
    """Return the number of batches that `train_batches` yields for this many images."""
    if images < 2:
        raise DataError(f"training needs at least 2 images; got {images}")
    full, rest = divmod(images, batch_size)
    return full + (rest > (1 if full else 0))


def batch_images(images: int, batch_size: int, batch: int) -> int:
    """Return the number of images in batch number `batch` of an epoch."""
    last = batch == num_batches(images, batch_size) - 1
    return images - batch * batch_size if last else batch_size


def eval_batches(
    split: Split, preprocess: Preprocess, *, batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (images uint8 [batch, R, R, C], their indices [batch]) of a split in order, preprocessed for evaluation.

    Unreadable images are left out.
    """
    images: list[np.ndarray] = []
    indices: list[int] = []
    for index in range(len(split)):
        try:
            images.append(eval_view_at(split, index, preprocess))
            indices.append(index)
        except ImageError:
            continue
        if len(images) == batch_size:
            yield np.stack(images), np.array(indices)
            images, indices = [], []
    if images:
        yield np.stack(images), np.array(indices)


def held_out(
    split: Split, preprocess: Preprocess, *, batch_size: int = 64, limit: int = CACHE_BYTES // 2
) -> Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]:
    """Return a function that gives (images, labels) of a split each time it is called.

    If the images fit into `limit` bytes, they are decoded once.
    """

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, indices in eval_batches(split, preprocess, batch_size=batch_size):
            yield images, split.labels[indices]

    if len(split) * preprocess.resolution**2 * preprocess.channels > limit:
        return stream
    kept = list(stream())
    return lambda: kept
