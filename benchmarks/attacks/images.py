"""Item 4: images that need excessive memory or time."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks.ground import Attack, Command, Ground

# Images below the pixel limit may be read, those above are refused: either way within time and memory.
_EITHER = (0, 2)


def _predict(ground: Ground, *paths: Path) -> Command:
    return Command(words=("predict", ground.bundle, *paths), codes=_EITHER)


def _save(path: Path, *, mode: str, side: int, **options: Any) -> Path:
    from PIL import Image

    Image.new(mode, (side, side)).save(path, **options)
    return path


def blank(name: str, mode: str, side: int, **options: Any) -> Any:
    """Return an attack with a large image of one colour, which packs to almost nothing, predicted and inspected."""

    def prepare(ground: Ground) -> Sequence[Command]:
        path = _save(ground.path(f"large{name}"), mode=mode, side=side, **options)
        folder = _classes(ground, path.read_bytes(), name)
        return _predict(ground, path), Command(words=("data", "inspect", folder), codes=_EITHER)

    return prepare


def _classes(ground: Ground, content: bytes, suffix: str) -> Path:
    for number in range(8):
        path = ground.path(f"data/{'ab'[number % 2]}/{number}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return ground.path("data")


def scans(ground: Ground) -> Sequence[Command]:
    """A progressive JPEG of 16 megapixels with its scans repeated 1,000 times."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000), "grey").save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    first = data.rindex(b"\xff\xda")
    path = ground.path("scans.jpg")
    path.write_bytes(data[:first] + data[first:-2] * 1000 + data[-2:])
    folder = _classes(ground, path.read_bytes(), ".jpg")
    return _predict(ground, path), Command(words=("data", "inspect", folder), codes=_EITHER)


def comment(ground: Ground) -> Sequence[Command]:
    """A PPM whose header is one comment of 64 MB."""
    path = ground.path("comment.ppm")
    path.write_bytes(b"P6\n#" + b"a" * 64_000_000 + b"\n8 8\n255\n" + bytes(192))
    folder = _classes(ground, b"P6\n#" + b"a" * 8_000_000, ".ppm")
    return _predict(ground, path), Command(words=("data", "inspect", folder), codes=_EITHER)


def png_texts(ground: Ground) -> Sequence[Command]:
    """A PNG of 8 x 8 pixels with compressed texts and a profile that unpack to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = ground.image.read_bytes()
    packed = zlib.compress(bytes(200_000_000), 9)
    extra = chunk(b"iCCP", b"profile\0\0" + packed)
    extra += b"".join(chunk(b"zTXt", b"text%d\0\0" % number + packed) for number in range(40))
    path = ground.path("texts.png")
    path.write_bytes(data[:33] + extra + data[33:])
    return (_predict(ground, path),)


def icon(ground: Ground) -> Sequence[Command]:
    """An icon that claims 16 x 16 and contains a PNG of 100 megapixels."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(stream, "PNG")
    inner = stream.getvalue()
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    path = ground.path("a.ico")
    path.write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner)
    return (_predict(ground, path),)


def array(ground: Ground) -> Sequence[Command]:
    """An .npy file that claims 400 million values, and one whose header is 10 MB."""
    import numpy as np

    large, header = ground.path("large.npy"), ground.path("header.npy")
    with open(large, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**4, 10**4, 4)})
        file.truncate(4 * 10**8 + 128)
    header.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**7) + b"[" * 10**7)
    return _predict(ground, large), _predict(ground, header)


ATTACKS = (
    Attack(item=4, name="JPEG 2000 of 1 KB", prepare=blank(".jp2", "RGB", 9_900)),
    Attack(item=4, name="PNG, grey, 98 megapixels", prepare=blank(".png", "L", 9_900)),
    Attack(item=4, name="PNG, colour, 98 megapixels", prepare=blank(".png", "RGB", 9_900)),
    Attack(item=4, name="PNG, alpha, 98 megapixels", prepare=blank(".png", "RGBA", 9_900)),
    Attack(item=4, name="PNG, 16 bits, 98 megapixels", prepare=blank(".png", "I;16", 9_900)),
    Attack(item=4, name="TIFF, float, 98 megapixels", prepare=blank(".tif", "F", 9_900, compression="tiff_lzw")),
    Attack(item=4, name="TIFF, 32 bits, 98 megapixels", prepare=blank(".tif", "I", 9_900, compression="tiff_lzw")),
    Attack(item=4, name="GIF, 98 megapixels", prepare=blank(".gif", "P", 9_900)),
    Attack(item=4, name="WebP, 98 megapixels", prepare=blank(".webp", "RGB", 9_900, lossless=True, method=0)),
    Attack(item=4, name="JPEG, CMYK, 98 megapixels", prepare=blank(".jpg", "CMYK", 9_900)),
    Attack(item=4, name="JPEG of 48 megapixels", prepare=blank(".jpg", "RGB", 6_900)),
    Attack(item=4, name="a progressive JPEG of 1,000 scans", prepare=scans),
    Attack(item=4, name="a PPM whose header is one comment", prepare=comment),
    Attack(item=4, name="PNG texts that unpack to gigabytes", prepare=png_texts),
    Attack(item=4, name="a PNG of 400 megapixels in an icon", prepare=icon),
    Attack(item=4, name="an array of 400 million values", prepare=array),
)
