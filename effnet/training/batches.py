"""Training batches: decoded once, augmented in threads, the same for the same seed, epoch and position."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from effnet.data.datasets import Split, load_image
from effnet.data.preprocess import Preprocess, random_flip, random_resized_crop, random_shift, resample, resize_and_crop
from effnet.errors import DataError, ImageError
from effnet.training.recipe import Recipe

# Decoded pictures are kept in memory up to this many bytes in all; beyond it files are read again each epoch.
CACHE_BYTES = 2 * 2**30
# A kept picture's shorter side is at most this many times the input's: crops lose nothing that can be seen.
_SHRINK = 2

# So many unreadable pictures in a row are no accident.
_MOST_BAD = 16

Load = Callable[[int], np.ndarray]


def cached_loader(split: Split, preprocess: Preprocess, *, limit: int = CACHE_BYTES) -> Load:
    """Returns a function from an index of `split` to its picture, uint8 [height, width, channels].

    Pictures are shrunk to what training can use and kept until `limit` bytes are full.
    """
    kept: dict[int, np.ndarray] = {}
    used = 0

    def load(index: int) -> np.ndarray:
        nonlocal used
        image = kept.get(index)
        if image is None:
            image = _shrink(load_image(split, index, channels=preprocess.channels), preprocess)
            if used + image.nbytes <= limit:
                kept[index] = image
                used += image.nbytes
        return image

    return load


def _shrink(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    height, width = image.shape[:2]
    ratio = _SHRINK * preprocess.resolution / min(height, width)
    if ratio >= 1:
        return image
    size = {"width": max(1, round(width * ratio)), "height": max(1, round(height * ratio))}
    return resample(image, **size, interpolation="bicubic")


def augmented(image: np.ndarray, recipe: Recipe, *, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Returns one random view of `image`, uint8 [resolution, resolution, channels]."""
    if recipe.augment.view == "crop":
        image = random_resized_crop(
            image,
            resolution=resolution,
            rng=rng,
            scale=(recipe.augment.min_area, 1.0),
            interpolation=recipe.augment.interpolation,
        )
    elif recipe.augment.view == "shift":
        image = random_shift(image, resolution=resolution, rng=rng, interpolation=recipe.augment.interpolation)
    return random_flip(image, rng=rng) if recipe.augment.flip else image


def train_batches(
    load: Load,
    labels: np.ndarray,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    epoch: int,
    start: int = 0,
    workers: int = 1,
    ahead: int = 4,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images uint8 [batch, R, R, C], labels int64 [batch]) of one epoch from batch number `start` on.

    The order depends on seed and epoch, a view on seed, epoch and index alone: how many `workers` prepare
    batches, and how many `ahead`, changes nothing.
    """
    order = np.random.default_rng([recipe.train.seed, epoch]).permutation(len(labels))
    chunks = [order[i : i + recipe.train.batch_size] for i in range(0, len(order), recipe.train.batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:  # a batch of one has no batch statistics
        chunks[-2] = np.concatenate(chunks[-2:])
        chunks.pop()

    def view(index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([recipe.train.seed, epoch, index])
        image, label = _load_or_next(load, labels, index)
        if recipe.augment.view == "none":
            image = resize_and_crop(image, preprocess)
        return augmented(image, recipe, resolution=preprocess.resolution, rng=rng), label

    def make(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, numbers = zip(*(view(int(index)) for index in chunk), strict=True)
        return np.stack(images), np.array(numbers, dtype=np.int64)

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


def _load_or_next(load: Load, labels: np.ndarray, index: int) -> tuple[np.ndarray, int]:
    """Returns the picture at `index` with its label or, where its file cannot be read, the next that can.

    Inspection has taken bad files out, but looks at a sample of a huge data set only, and files can vanish.
    Raises ImageError where many files in a row cannot be read.
    """
    for offset in range(_MOST_BAD):
        place = (index + offset) % len(labels)
        try:
            return load(place), int(labels[place])
        except ImageError as error:
            failed = error
    raise ImageError(f"{_MOST_BAD} pictures in a row cannot be read; the last: {failed}") from failed


def num_batches(images: int, batch_size: int) -> int:
    """Returns how many batches `train_batches` yields for this many images."""
    if images < 2:
        raise DataError(f"training needs at least 2 images; got {images}")
    full, rest = divmod(images, batch_size)
    return full + (rest > (1 if full else 0))


def eval_batches(
    split: Split, preprocess: Preprocess, *, batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images uint8 [batch, R, R, C], their indices [batch]) of a split in order, as evaluation sees them.

    Pictures that cannot be read are left out.
    """
    images: list[np.ndarray] = []
    indices: list[int] = []
    for index in range(len(split)):
        try:
            images.append(resize_and_crop(load_image(split, index, channels=preprocess.channels), preprocess))
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
    """Returns a function that gives (images, labels) of a split, as often as it is called.

    Where the pictures fit into `limit` bytes they are decoded once.
    """

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, indices in eval_batches(split, preprocess, batch_size=batch_size):
            yield images, split.labels[indices]

    if len(split) * preprocess.resolution**2 * preprocess.channels > limit:
        return stream
    kept = list(stream())
    return lambda: kept
