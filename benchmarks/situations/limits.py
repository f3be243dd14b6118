"""C12, G19, G20, G21: time limits, broken files and a clock that jumps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.attacks import images, models, users
from benchmarks.attacks.ground import Attack, Command, Ground
from benchmarks.situations.made import write_classes

_COLOURS = np.random.default_rng(5).integers(40, 215, (10, 3))


def minutes(given: float, *words: str, codes: Sequence[int] = (0,)) -> Any:
    """Return a fit of 600 images in `given` minutes, from start to bundle: within a tenth and 20 s."""

    def prepare(ground: Ground) -> Sequence[Command]:
        def make(number: int, rng: np.random.Generator) -> np.ndarray:
            return rng.normal(_COLOURS[number], 60, (96, 96, 3)).clip(0, 255).astype(np.uint8)

        data = write_classes(ground.path("data"), classes=[f"c{n}" for n in range(10)], count=60, make=make)
        command = ("fit", data, "--minutes", f"{given:g}", *words, "--out", ground.path("out"))
        return (Command(words=command, codes=codes, seconds=given * 66 + 20, memory_mb=4000),)

    return prepare


# effnet's wall clock jumps by hours, back and forth; the monotonic clock does not.
_JUMPING = """import sys, time
real, count = time.time, [0]
def jumping():
    count[0] += 1
    return real() + (count[0] % 7 - 3) * 10_000
time.time = jumping
sys.argv[0] = "effnet"
from effnet.cli.main import main
main()
"""


def jumps(ground: Ground) -> Sequence[Command]:
    """A clock that is set while a fit plans, measures and trains."""
    words = ("fit", "digits", "--max-latency-ms", "1", "--minutes", "0.5", "--weights", "none")
    return (Command(words=(_JUMPING, *words, "--out", ground.path("out")), python=True, codes=(0,), seconds=120,
                    memory_mb=4000),)  # fmt: skip


SITUATIONS = (
    Attack(item="C12", name="half a minute, from a backbone", prepare=minutes(0.5)),
    Attack(item="C12", name="a minute, from scratch", prepare=minutes(1, "--weights", "none")),
    # A slow or busy machine has no time for int8 or for another network, says so and refuses.
    Attack(item="C12", name="a minute, to int8", prepare=minutes(1, "--precision", "int8", codes=(0, 3))),
    Attack(item="C12", name="a minute and a latency", prepare=minutes(1, "--max-latency-ms", "3", codes=(0, 3))),
    Attack(item="G19", name="98 megapixels with alpha", prepare=images.blank(".png", "RGBA", 9_900)),
    Attack(item="G19", name="98 megapixels of 16 bits", prepare=images.blank(".png", "I;16", 9_900)),
    Attack(item="G19", name="a JPEG of 1,000 scans", prepare=images.scans),
    Attack(item="G19", name="a header that is one comment", prepare=images.comment),
    Attack(item="G20", name="a model of another network", prepare=models.other_network),
    Attack(item="G20", name="99,263 %", prepare=models.nonsense([992.63] + [0.0] * 9)),
    Attack(item="G20", name="NaN", prepare=models.nonsense([float("nan")] * 10)),
    Attack(item="G20", name="whole numbers as answers", prepare=models.nonsense([1] + [0] * 9, kind=7)),
    Attack(item="G20", name="pipes, devices and folders as files", prepare=models.no_files),
    Attack(item="G21", name="a clock that jumps", prepare=jumps),
    Attack(item="G21", name="a huge integer in plan.json", prepare=users.plans),
)
