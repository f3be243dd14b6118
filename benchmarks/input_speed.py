"""`python -m benchmarks.input_speed`: training images from file to batch, on one core, against timm's loader.

Photographs of 500 x 375 pixels, JPEG of quality 90 with 4:2:0 chroma, become random crops of 224 x 224 pixels (8 % to
100 % of the area, 3:4 to 4:3, bicubic, mirrored half of the time) in batches of 64, every file decoded each time.
There are two sets, both made from photos7's photographs of 256 x 256: one enlarges them, so that they are smooth and
their files small; the other joins four of them in one, so that the detail is that of a camera. Both sides are pinned to
one core: effnet with one thread that prepares uint8 batches, to be normalised on the device; timm's loader in its
fastest setting: with a worker process or without, normalised by its transforms or by its prefetcher. They take turns.
Seconds are processor time of the core, all threads and processes together, so that other work on the machine counts for
neither side. The figure is the lower ratio of images/s of the two sets, and 0 if effnet's views differ from Pillow's
bicubic views of the same crops by more than the tolerance.

The details also compare equal settings: both normalised on this core, and both uint8, as the inner loader of timm's
prefetcher returns them; and they record effnet without simplejpeg, and with its image cache.
"""

import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import finish, options, shared
from benchmarks.peers import import_timm
from effnet.data.datasets import Split
from effnet.data.images import jpeg
from effnet.data.preprocess import Preprocess, random_box
from effnet.training.device import to_input
from effnet.training.input.batches import CACHE_BYTES, Load, augmented, cached_loader, train_batches
from effnet.training.recipe.schema import Augment, Recipe, Train

GOAL = 2.0
# Of 255 levels, over all views, and of the whole set.
MOST_MEAN, MOST_P999, LEAST_PSNR = 0.05, 1.0, 60.0
_SIZE, _PHOTOS, _BATCH, _MIN_AREA = (500, 375), 128, 64, 0.08
_RECIPE = Recipe(train=Train(batch_size=_BATCH), augment=Augment(view="crop", min_area=_MIN_AREA, flip=True))
_PREPROCESS = Preprocess(resolution=224)
# A worker is idle if it used hardly any processor time in this many checks, 20 ms apart.
_CALM_CHECKS, _CALM_SECONDS = 6, 0.005
_PILLOW_ONLY = "effnet pillow only"

# Comparisons: a side of effnet's, and the name prefixes of timm's settings, of which the fastest counts.
PAIRS = {
    "as_delivered": ("effnet", "timm normalised"),
    "both_normalised": ("effnet normalised", "timm normalised"),
    "both_uint8": ("effnet", "timm uint8"),
    "without_simplejpeg": ("effnet pillow only", "timm normalised"),
    "kept_in_memory": ("effnet kept", "timm normalised"),
}

Epoch = Callable[[], Iterable[object]]


def main() -> None:
    """Time both sides on both sets of photographs and compare."""
    args = options(__doc__ or "", n=7)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    sources = sorted(shared("data", "photos7").glob("*/*.jpg"))
    samples: dict[str, list[float]] = {}
    details: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("enlarged", enlarged), ("mosaic", mosaic)):
            files = write_photos(sources, Path(scratch) / name / "photo", make)
            found = time_sides(files, Path(scratch) / name, args.n)
            samples |= {f"{name}: {side}, images/s": rates for side, rates in found.items()}
            details[name] = {
                "bytes_a_photo": statistics.mean(path.stat().st_size for path in files),
                "difference_from_pillow": differences(files),
                "ratios": {kind: compare(found, *sides) for kind, sides in PAIRS.items()},
            }
            print(name, {side: round(statistics.median(rates)) for side, rates in found.items()})
            print(name, details[name], flush=True)
    figure = min(details[name]["ratios"]["as_delivered"]["median"] for name in details)
    quality = [details[name]["difference_from_pillow"] for name in details]
    equal = all(q["mean"] <= MOST_MEAN and q["p99.9"] <= MOST_P999 and q["psnr"] >= LEAST_PSNR for q in quality)
    finish(
        "input_speed", args, figure=figure if equal else 0.0, goal=GOAL,
        unit="times timm's images/s per core", better="higher", samples=samples,
        details=details | {"simplejpeg": jpeg.simplejpeg_decoder() is not None},
    )  # fmt: skip


def enlarged(images: list[Image.Image], index: int) -> Image.Image:
    """Return one photograph, enlarged to the full width and cropped."""
    width, height = _SIZE
    top = (width - height) // 2
    whole = images[index % len(images)].resize((width, width), Image.Resampling.BICUBIC)
    return whole.crop((0, top, width, top + height))


def mosaic(images: list[Image.Image], index: int) -> Image.Image:
    """Return four photographs side by side, pixel for pixel, cropped."""
    side = images[0].width
    whole = Image.new("RGB", (2 * side, 2 * side))
    for place in range(4):
        whole.paste(images[(index + 71 * place) % len(images)], (place % 2 * side, place // 2 * side))
    left, top = (2 * side - _SIZE[0]) // 2, (2 * side - _SIZE[1]) // 2
    return whole.crop((left, top, left + _SIZE[0], top + _SIZE[1]))


def write_photos(
    sources: list[Path], folder: Path, make: Callable[[list[Image.Image], int], Image.Image]
) -> list[Path]:
    """Write the set's JPEG files and return their paths."""
    folder.mkdir(parents=True)
    images = [Image.open(path).convert("RGB") for path in sources]
    paths = [folder / f"{index:04d}.jpg" for index in range(_PHOTOS)]
    for index, path in enumerate(paths):
        make(images, index).save(path, "JPEG", quality=90, subsampling="4:2:0")
    return paths


def time_sides(files: list[Path], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return images/s of every side by round; each round runs every side once."""
    split = Split(sources=tuple(map(str, files)), labels=np.zeros(len(files), np.int64))
    direct, kept = (cached_loader(split, _PREPROCESS, limit=limit) for limit in (0, CACHE_BYTES))
    device = torch.device("cpu")

    def ours(load: Load) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return train_batches(load, split.labels, _RECIPE, _PREPROCESS, epoch=0, workers=1)

    sides: dict[str, Epoch] = {
        "effnet": lambda: ours(direct),
        "effnet normalised": lambda: (to_input(images, _PREPROCESS, device) for images, _ in ours(direct)),
        _PILLOW_ONLY: lambda: ours(direct),
        "effnet kept": lambda: ours(kept),
        **timm_epochs(folder),
    }
    for name, epoch in sides.items():
        timed(name, epoch)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, epoch in sides.items():
            found[name].append(timed(name, epoch))
    return found


def compare(found: dict[str, list[float]], ours: str, theirs: str) -> dict[str, object]:
    """Return effnet's speed-up, round by round, over timm's fastest setting of that kind."""
    fastest = max((name for name in found if name.startswith(theirs)), key=lambda name: statistics.median(found[name]))
    ratios = [mine / other for mine, other in zip(found[ours], found[fastest], strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "against": fastest}


def timed(name: str, epoch: Epoch) -> float:
    """Return images/s of one epoch; for one side as if simplejpeg were not installed."""
    if name != _PILLOW_ONLY:
        return rate(epoch)
    with mock.patch.dict(sys.modules, {"simplejpeg": None}):
        jpeg.simplejpeg_decoder.cache_clear()
        found = rate(epoch)
    jpeg.simplejpeg_decoder.cache_clear()
    return found


def rate(epoch: Epoch) -> float:
    """Return images per second of processor time over one epoch, summed over threads and worker processes.

    A persistent worker starts the next epoch at once. The function waits for it, so that each epoch is charged with as
    many batches as it returns, and never those of another side.
    """
    start = cpu_seconds()
    batches = sum(1 for _ in epoch())
    assert batches == _PHOTOS // _BATCH
    last, calm = cpu_seconds(), 0
    while multiprocessing.active_children() and calm < _CALM_CHECKS:
        time.sleep(0.02)
        now = cpu_seconds()
        last, calm = now, calm + 1 if now - last < _CALM_SECONDS else 0
    return _PHOTOS / (cpu_seconds() - start)


def cpu_seconds() -> float:
    """Return the processor time that this process and its living children have used."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        times = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return total


def timm_epochs(folder: Path) -> dict[str, Epoch]:
    """Return an epoch of timm's loader by its settings; a worker, if there is one, persists between epochs."""
    data = import_timm().data
    found: dict[str, Epoch] = {}
    for workers in (0, 1):
        for normalise in ("transforms", "prefetcher", "no"):
            loader = data.create_loader(
                data.create_dataset("", root=str(folder), is_training=True),
                input_size=(3, 224, 224), batch_size=_BATCH, is_training=True, use_prefetcher=normalise != "transforms",
                scale=(_MIN_AREA, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, color_jitter=None, auto_augment=None,
                interpolation="bicubic", num_workers=workers, device=torch.device("cpu"), pin_memory=False,
                use_multi_epochs_loader=workers > 0, persistent_workers=workers > 0,
            )  # fmt: skip
            batches = loader.loader if normalise == "no" else loader
            kind = "uint8" if normalise == "no" else f"normalised by {normalise}"
            found[f"timm {kind}, {workers} workers"] = functools.partial(iter, batches)
    return found


def differences(files: list[Path]) -> dict[str, float]:
    """Return the differences of effnet's views from Pillow's: same crop, bicubic, same mirroring."""
    load = cached_loader(Split(sources=tuple(map(str, files)), labels=np.zeros(len(files))), _PREPROCESS, limit=0)
    counts = np.zeros(256, np.int64)
    for index, path in enumerate(files):
        found = augmented(load(index), _RECIPE, _PREPROCESS, rng=np.random.default_rng(index))
        rng = np.random.default_rng(index)
        image = Image.open(path).convert("RGB")
        box = random_box(image.height, image.width, rng=rng, scale=(_MIN_AREA, 1.0), ratio=(3 / 4, 4 / 3))
        view = np.asarray(image.crop(box).resize((224, 224), Image.Resampling.BICUBIC)).astype(np.int16)
        view = view[:, ::-1] if rng.random() < 0.5 else view
        counts += np.bincount(np.abs(found - view).ravel(), minlength=256)
    levels, shares = np.arange(256), counts / counts.sum()
    return {
        "mean": float(shares @ levels),
        "p99.9": float(np.searchsorted(np.cumsum(shares), 0.999)),
        "psnr": float(10 * np.log10(255**2 / (shares @ levels**2))),
    }


if __name__ == "__main__":
    main()
