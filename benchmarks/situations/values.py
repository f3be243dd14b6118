"""A3, A4, A5: contents of images: values, mirrored classes, shapes."""

import json
from collections.abc import Sequence

import numpy as np

from benchmarks.attacks.ground import Attack, Command, Ground
from benchmarks.situations.made import fit, inspect, python, write_classes, write_image


def twelve_bits(ground: Ground) -> Sequence[Command]:
    """12-bit values in 16-bit files: bright images are bright."""

    def make(number: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal((3200, 900)[number], 300, (32, 32)).clip(0, 4095).astype(np.uint16)

    data = write_classes(ground.path("data"), make=make)
    write_image(data / "bright" / "full.png", np.full((32, 32), 4095, np.uint16))
    return inspect(data, says="4095"), *_told_apart(ground, data, data / "bright" / "bright-0.png")


def floats(ground: Ground) -> Sequence[Command]:
    """Floats of 0 to 1, of which one image reaches 1.004."""

    def make(number: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal((0.8, 0.3)[number], 0.08, (32, 32)).clip(0, 1).astype(np.float32)

    data = write_classes(ground.path("data"), make=make, suffix=".tif")
    over = make(0, np.random.default_rng(9))
    over[0, 0] = 1.004
    path = write_image(data / "bright" / "over.tif", over)
    return _told_apart(ground, data, path)


def scanner(ground: Ground) -> Sequence[Command]:
    """Values of a CT scanner, -1000 to 3000, in int16 and int32."""

    def make(number: int, rng: np.random.Generator) -> np.ndarray:
        kind = np.int16 if rng.random() < 0.5 else np.int32
        return rng.normal((900, -700)[number], 150, (32, 32)).clip(-1000, 3000).astype(kind)

    data = write_classes(ground.path("data"), make=make, suffix=".npy")
    return _told_apart(ground, data, data / "bright" / "bright-0.npy")


def _told_apart(ground: Ground, data: object, bright: object) -> Sequence[Command]:
    predict = Command(words=("predict", ground.path("out"), bright, "--format", "csv"), codes=(0,), says="bright")
    top = python(
        "import sys, effnet\n(answer,) = effnet.load(sys.argv[1]).predict(sys.argv[2])\n"
        "assert answer.label == 'bright'\n",
        ground.path("out"), bright,
    )  # fmt: skip
    return fit(ground, data, epochs=20), predict, top


def _range_is_kept(ground: Ground) -> str:
    path = ground.path("out") / "config.json"
    found = path.exists() and json.loads(path.read_text())["preprocess"].get("value_range")
    return "" if found else "config.json holds no range of values"


def arrows(ground: Ground) -> Sequence[Command]:
    """Left and right turns, by the names of the classes; and mirroring disabled by hand."""

    def make(number: int, rng: np.random.Generator) -> np.ndarray:
        ramp = np.linspace(30, 220, 32)[None, :, None] * np.ones((32, 32, 3))
        return (ramp[:, ::-1] if number else ramp).clip(0, 255) + rng.integers(0, 20, (32, 32, 3))

    def byte(number: int, rng: np.random.Generator) -> np.ndarray:
        return make(number, rng).astype(np.uint8)

    data = write_classes(ground.path("data"), classes=("turn left", "turn right"), make=byte)
    off = fit(ground, data, "--set", "augment.flip=false", out="off")
    unnamed = write_classes(ground.path("unnamed"), classes=("a", "b"), count=40, make=byte)
    return fit(ground, data, says="mirror"), off, fit(ground, unnamed, says="mirror", out="unnamed-out")


def wide(ground: Ground) -> Sequence[Command]:
    """Images of 4 : 1 whose class is visible at the border."""

    def make(number: int, rng: np.random.Generator) -> np.ndarray:
        pixels = rng.integers(0, 60, (32, 128, 3))
        pixels[:, :20] += 190 if number else 0
        return pixels.astype(np.uint8)

    data = write_classes(ground.path("data"), make=make)
    return inspect(data, says="squashes whole images"), fit(ground, data, says="squashed whole")


def _shown_whole(ground: Ground) -> str:
    path = ground.path("out") / "config.json"
    found = path.exists() and json.loads(path.read_text())["preprocess"]["mode"]
    return "" if found in ("squash", "pad") else f"config.json must hold the mode squash or pad; got {found!r}"


SITUATIONS = (
    Attack(item="A3", name="12 bits in 16", prepare=twelve_bits, after=_range_is_kept),
    Attack(item="A3", name="floats that reach 1.004", prepare=floats, after=_range_is_kept),
    Attack(item="A3", name="values of a CT scanner", prepare=scanner, after=_range_is_kept),
    Attack(item="A4", name="turns to the left and to the right", prepare=arrows),
    Attack(item="A5", name="images of 4 : 1", prepare=wide, after=_shown_whole),
)
