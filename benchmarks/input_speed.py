"""`python -m benchmarks.input_speed`: training pictures from file to batch, on one core, against timm's loader.

Photographs of 500 x 375 pixels, JPEG of quality 90 with 4:2:0 chroma, become random crops of 224 x 224 pixels (8 % to
100 % of the area, 3:4 to 4:3, bicubic, mirrored half of the time) in batches of 64, every file decoded each time.
There are two sets, both made from photos7's photographs of 256 x 256: one enlarges them, so that they are smooth and
their files small; the other joins four of them in one, so that the detail is a camera's. Both sides are held on one
core, effnet with one thread that prepares, timm in whichever of its settings is fastest: no worker or one; normalised
by its transforms, by its prefetcher, or not at all, as effnet's batches are. They take turns. Seconds are the core's
processor time, all threads and processes together, so that other work on the machine counts for neither side. The
figure is the ratio of images/s on the set where it is lower, and 0 where effnet's views differ from Pillow's bicubic
views of the same crops by more than the tolerance.
"""

import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import finish, options, shared
from benchmarks.peers import import_timm
from effnet.data import jpeg
from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess, random_box
from effnet.training.batches import CACHE_BYTES, augmented, cached_loader, train_batches
from effnet.training.recipe import Augment, Recipe, Train

GOAL = 2.0
# Of 255 levels, over all views, and of the whole set.
MOST_MEAN, MOST_P999, LEAST_PSNR = 0.05, 1.0, 60.0
_SIZE, _PHOTOS, _BATCH, _MIN_AREA = (500, 375), 256, 64, 0.08
_RECIPE = Recipe(train=Train(batch_size=_BATCH), augment=Augment(view="crop", min_area=_MIN_AREA, flip=True))
_PREPROCESS = Preprocess(resolution=224)

Epoch = Callable[[], Iterable[object]]


def main() -> None:
    """Times both sides on both sets of photographs and compares."""
    args = options(__doc__ or "", n=7)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    sources = sorted(shared("data", "photos7").glob("*/*.jpg"))
    samples: dict[str, list[float]] = {}
    ratios, details = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("enlarged", enlarged), ("mosaic", mosaic)):
            folder = Path(scratch) / name
            files = write_photos(sources, folder / "photo", make)
            found, settings = time_sides(files, folder, args.n)
            rounds = [ours / theirs for ours, theirs in zip(found["effnet"], found["timm"], strict=True)]
            ratios[name] = statistics.median(rounds)
            samples |= {f"{name}_{side}_images_per_second": rates for side, rates in found.items()}
            details[name] = {
                "ratio": ratios[name],
                "ratio_range": [min(rounds), max(rounds)],
                "bytes_a_photo": statistics.mean(path.stat().st_size for path in files),
                "timm_settings_images_per_second": settings,
                "difference_from_pillow": differences(files),
            }
            print(name, details[name], {side: round(statistics.median(v)) for side, v in found.items()}, flush=True)
    quality = [details[name]["difference_from_pillow"] for name in ratios]
    equal = all(q["mean"] <= MOST_MEAN and q["p99.9"] <= MOST_P999 and q["psnr"] >= LEAST_PSNR for q in quality)
    finish(
        "input_speed", args, figure=min(ratios.values()) if equal else 0.0, goal=GOAL,
        unit="times timm's images/s per core", better="higher", samples=samples,
        details=details | {"simplejpeg": jpeg.simplejpeg_decoder() is not None},
    )  # fmt: skip


def enlarged(pictures: list[Image.Image], index: int) -> Image.Image:
    """Returns one photograph, enlarged to the full width and cropped."""
    width, height = _SIZE
    top = (width - height) // 2
    whole = pictures[index % len(pictures)].resize((width, width), Image.Resampling.BICUBIC)
    return whole.crop((0, top, width, top + height))


def mosaic(pictures: list[Image.Image], index: int) -> Image.Image:
    """Returns four photographs side by side, pixel for pixel, cropped."""
    side = pictures[0].width
    whole = Image.new("RGB", (2 * side, 2 * side))
    for place in range(4):
        whole.paste(pictures[(index + 71 * place) % len(pictures)], (place % 2 * side, place // 2 * side))
    left, top = (2 * side - _SIZE[0]) // 2, (2 * side - _SIZE[1]) // 2
    return whole.crop((left, top, left + _SIZE[0], top + _SIZE[1]))


def write_photos(
    sources: list[Path], folder: Path, make: Callable[[list[Image.Image], int], Image.Image]
) -> list[Path]:
    """Writes the set's JPEG files and returns their paths."""
    folder.mkdir(parents=True)
    pictures = [Image.open(path).convert("RGB") for path in sources]
    paths = [folder / f"{index:04d}.jpg" for index in range(_PHOTOS)]
    for index, path in enumerate(paths):
        make(pictures, index).save(path, "JPEG", quality=90, subsampling="4:2:0")
    return paths


def time_sides(files: list[Path], folder: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns images/s of both sides by round, and the median of each of timm's settings in a try before."""
    peers = timm_epochs(folder)
    settings = {name: statistics.median(rate(epoch) for _ in range(3)) for name, epoch in peers.items()}
    fastest = max(settings, key=lambda name: settings[name])
    split = Split(sources=tuple(map(str, files)), labels=np.zeros(len(files), np.int64))
    direct, kept = (cached_loader(split, _PREPROCESS, limit=limit) for limit in (0, CACHE_BYTES))

    def ours(load: Callable[[int], object]) -> Epoch:
        return lambda: train_batches(load, split.labels, _RECIPE, _PREPROCESS, epoch=0, workers=1)

    sides = {
        "timm": peers[fastest],
        "effnet": ours(direct),
        "effnet_pillow_only": ours(direct),
        "effnet_kept": ours(kept),
    }
    for name, epoch in sides.items():
        timed(name, epoch)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, epoch in sides.items():
            found[name].append(timed(name, epoch))
    return found, settings


def timed(name: str, epoch: Epoch) -> float:
    """Returns images/s, for the side named so without simplejpeg, as where it is not installed."""
    if name != "effnet_pillow_only":
        return rate(epoch)
    with mock.patch.dict(sys.modules, {"simplejpeg": None}):
        jpeg.simplejpeg_decoder.cache_clear()
        found = rate(epoch)
    jpeg.simplejpeg_decoder.cache_clear()
    return found


def rate(epoch: Epoch) -> float:
    """Returns images per second of processor time over one epoch, that of all threads and of worker processes."""
    start = cpu_seconds()
    batches = sum(1 for _ in epoch())
    assert batches == _PHOTOS // _BATCH
    return _PHOTOS / (cpu_seconds() - start)


def cpu_seconds() -> float:
    """Returns the processor time that this process and its living children have used."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        times = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return total


def timm_epochs(folder: Path) -> dict[str, Epoch]:
    """Returns an epoch of timm's loader by its settings; the worker, where there is one, lives on between epochs."""
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
            found[f"{workers} workers, {normalise} normalise"] = functools.partial(iter, batches)
    for epoch in found.values():
        rate(epoch)
    return found


def differences(files: list[Path]) -> dict[str, float]:
    """Returns how far effnet's views are from Pillow's: crop of the whole picture, bicubic, mirrored alike."""
    load = cached_loader(Split(sources=tuple(map(str, files)), labels=np.zeros(len(files))), _PREPROCESS, limit=0)
    counts = np.zeros(256, np.int64)
    for index, path in enumerate(files):
        found = augmented(load(index), _RECIPE, _PREPROCESS, rng=np.random.default_rng(index))
        rng = np.random.default_rng(index)
        picture = Image.open(path).convert("RGB")
        box = random_box(picture.height, picture.width, rng=rng, scale=(_MIN_AREA, 1.0), ratio=(3 / 4, 4 / 3))
        view = np.asarray(picture.crop(box).resize((224, 224), Image.Resampling.BICUBIC)).astype(np.int16)
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
