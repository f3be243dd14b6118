"""Data sets of the situations: small images of a few kinds with visible classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.attacks.ground import Command, Ground

Pixels = np.ndarray
# Time of a fit of these data: seconds, from scratch.
QUICK = ("--set", "fit.max_params=20000", "--weights", "none", "--epochs")


def plain(brightness: float, rng: np.random.Generator, *, height: int = 32, width: int = 32) -> Pixels:
    """Return a noisy image [height, width, 3] in uint8 whose mean is about `brightness` of 255."""
    return rng.normal(255 * brightness, 20, (height, width, 3)).clip(0, 255).astype(np.uint8)


def write_classes(
    root: Path,
    *,
    classes: Sequence[str] = ("bright", "dark"),
    count: int = 12,
    seed: int = 0,
    make: Callable[[int, np.random.Generator], Pixels] | None = None,
    suffix: str = ".png",
) -> Path:
    """Write `count` images per class below `root`, and return it; `make` gets the number of the class."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        for index in range(count):
            pixels = make(number, rng) if make else plain(0.8 - 0.5 * number, rng)
            write_image(root / name / f"{name}-{index}{suffix}", pixels)
    return root


def write_image(path: Path, pixels: Pixels) -> Path:
    """Write pixels in the format of the name: .npy unchanged, anything else by Pillow."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def fit(ground: Ground, data: object, *words: object, epochs: int = 2, says: str = "", out: str = "out") -> Command:
    """Return a fit that takes seconds and writes its bundle to `out` in the folder."""
    command = ("fit", data, *QUICK, epochs, "--out", ground.path(out), *words)
    return Command(words=list(map(str, command)), codes=(0,), says=says, memory_mb=2000, seconds=180)


def inspect(data: object, *, says: str = "", lacks: Sequence[str] = ()) -> Command:
    """Return an inspection that must succeed."""
    return Command(words=("data", "inspect", str(data)), codes=(0,), says=says, lacks=lacks)


def python(code: str, *words: object, says: str = "", seconds: float = 60) -> Command:
    """Return Python code that must succeed; its words are `sys.argv[1:]`."""
    return Command(words=(code, *map(str, words)), python=True, codes=(0,), says=says, memory_mb=2000, seconds=seconds)
