"""Images designed to cost memory or time: each raises ImageError, or is decoded at a normal cost."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.images.decode import decode_image, image_header
from effnet.errors import ImageError

SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def save(kind: str, image: Image.Image = SMALL, **options: object) -> bytes:
    if kind not in Image.SAVE and (Image.init() or kind not in Image.SAVE):
        pytest.skip(f"this Pillow writes no {kind}")
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def icon() -> bytes:
    inside = save("PNG", Image.new("1", (3000, 2000)))
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def tiff(*tags: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    plain = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries = sorted([*plain, *tags])
    body = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + tail


def codestream(width: int, height: int, *, tile: int = 0, precinct: int = 0) -> bytes:
    """Return a JPEG 2000 codestream of a tiny image, with changed sizes."""
    data = save("JPEG2000", SMALL.convert("L"), no_jp2=True)
    place = data.index(b"\xff\x51") + 6
    sizes = struct.pack(">IIIIII", width, height, 0, 0, tile or width, tile or height)
    data = data[:place] + sizes + data[place + 24 :]
    if precinct:
        place = data.index(b"\xff\x52") + 2
        length, levels = int.from_bytes(data[place : place + 2], "big"), data[place + 7]
        style = struct.pack(">HB", length + levels + 1, data[place + 2] | 1) + data[place + 3 : place + length]
        data = data[:place] + style + bytes([precinct]) * (levels + 1) + data[place + length :]
    return data


def exif(tag: int, kind: int, size: int, count: int) -> bytes:
    return b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHLL", tag, kind, count, 26) + bytes(4) + b"\1\0\0\0" * (size // 4)


def exif_segments(block: bytes) -> bytes:
    parts = [b"Exif\0\0" + block[i : i + 60_000] for i in range(0, len(block), 60_000)]
    return b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)


def bitmap(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + bytes(range(1, 255)) * 4 + bytes(8) + data


PNG, JPEG, GIF = (save(kind) for kind in ("PNG", "JPEG", "GIF"))
FRAME = GIF.index(b",\0\0\0\0\x10\0\x10\0")
PROFILE = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(999)))
TOO_LONG, TOO_MUCH = "header or its metadata are too long", "decoding it must take at most 800 MB"

# Refused when the header is read.
HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a comment without end": (lambda: b"P6 #" + b"x" * 100_000 + b"\n4 4 255\n" + bytes(48), TOO_LONG),
    "junk before a segment": (lambda: JPEG[:4] + b"\xff" * 100_000 + JPEG[4:], TOO_LONG),
    "a film of comments": (lambda: GIF[:FRAME] + b"!\xfe" + b"\1x" * 20_000 + b"\0" + GIF[FRAME:], TOO_LONG),
    "a thousand profiles": (lambda: PNG[:33] + PROFILE * 1000 + PNG[33:], TOO_LONG),
    "exif in many segments": (lambda: JPEG[:2] + exif_segments(exif(0x11A, 5, 2**21, 2**18)) + JPEG[20:], TOO_LONG),
    "millions of tags": (
        lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40) + struct.pack("<HHQQ", 1, 4, 1, 7) * 20_000,
        TOO_LONG,
    ),
    "a million offsets": (
        lambda: tiff((259, 3, 1, 1), (273, 4, 500_000, 86), (279, 4, 1, 4096), tail=b"\x08\0\0\0" * 500_000),
        "tag 273 has 500,000",
    ),
    "a tile larger than the image": (
        lambda: tiff((259, 3, 1, 8), (322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 8), (325, 4, 1, 99)),
        TOO_MUCH,
    ),
    "an icon of six million pixels": (icon, "an icon must have at most 4,194,304 pixels; it has 3000 x 2000"),
    "a frame beyond the screen": (
        lambda: GIF[:FRAME] + b"," + struct.pack("<HHHH", 0, 0, 12_000, 9_000) + GIF[FRAME + 9 :],
        "more than 100,000,000 pixels|at most 100,000,000 pixels",
    ),
    "colours decoded in Python": (lambda: b"P3 3000 3000 255\n", TOO_MUCH),
    "runs decoded in Python": (lambda: bitmap(5000, 5000, b"\1\7\0\0" * 5000), TOO_MUCH),
    "a long .npy header": (lambda: b"\x93NUMPY\2\0" + struct.pack("<I", 10**7) + b" " * 10**6, TOO_LONG),
    "a deep .npy header": (lambda: b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000, "cannot be decoded"),
}

# Refused before the pixels are decoded.
PIXELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "1 KB of JPEG 2000": (lambda: codestream(9999, 9999), TOO_MUCH),
    "a tile a pixel": (lambda: codestream(250, 250, tile=1), TOO_MUCH),
    "precincts of four pixels": (lambda: codestream(3000, 3000, precinct=0x11), TOO_MUCH),
    "profiles behind the pixels": (lambda: PNG[:-12] + PROFILE * 1000 + PNG[-12:], "and 200 others"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = HEADERS[name]
    data = make()
    (tmp_path / "a.bin").write_bytes(data)
    for source in (data, tmp_path / "a.bin"):
        for read in (image_header, decode_image):
            with pytest.raises(ImageError, match=reason):
                read(source)


@pytest.mark.parametrize("name", PIXELS)
def test_hostile_pixels_are_refused(name: str) -> None:
    make, reason = PIXELS[name]
    data = make()
    image_header(data)
    with pytest.raises(ImageError, match=reason):
        decode_image(data)


def test_a_size_that_contradicts_the_container_is_refused() -> None:
    data = save("JPEG2000")
    place = data.index(b"\xff\x51") + 6
    data = data[:place] + struct.pack(">IIIIII", 9999, 9999, 0, 0, 9999, 9999) + data[place + 24 :]
    assert image_header(data).width == 16
    with pytest.raises(ImageError, match=r"takes 1,9.. MB, its header says 9999 x 9999"):
        decode_image(data)


def test_large_metadata_that_nobody_needs_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    block = exif(0x0112, 3, 2**22, 2**21)
    data = PNG[:33] + chunk(b"eXIf", block) + PNG[33:]
    np.testing.assert_array_equal(decode_image(data), np.asarray(SMALL))
    # Nested directories of a TIFF file are not read.
    outer = tiff((259, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 4096), (34665, 4, 1, 122))
    inner = struct.pack("<H", 1) + struct.pack("<HHLL", 0x829A, 5, 10**5, len(outer) + 18) + bytes(4)
    monkeypatch.setattr(Image.Exif, "get_ifd", lambda *_: pytest.fail("it was taken apart"))
    assert decode_image(outer + inner + b"\1\0\0\0" * 2 * 10**5).shape == (64, 64, 3)


def test_a_png_of_empty_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.images.opening._MOST_DATA_CHUNKS", 1000)
    some, many = (PNG[:33] + chunk(b"IDAT", b"") * number + PNG[33:] for number in (900, 1100))
    np.testing.assert_array_equal(decode_image(some), np.asarray(SMALL))
    with pytest.raises(ImageError, match="at most 1,000 PNG chunks"):
        decode_image(many)


@pytest.mark.parametrize(("kind", "least"), [("PNG", 8), ("TIFF", 8), ("WEBP", 18), ("AVIF", 18)])
def test_formats_that_need_more_memory_have_a_lower_limit(
    kind: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save(kind)
    monkeypatch.setattr("effnet.data.images.limits.MAX_BYTES", least * 256)
    assert decode_image(data).shape == (16, 16, 3)
    monkeypatch.setattr("effnet.data.images.limits.MAX_BYTES", least * 256 - 1)
    for read in (image_header, decode_image):
        with pytest.raises(ImageError, match="decoding it must take at most"):
            read(data)


def test_the_pixels_of_a_png_are_not_decoded_for_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    tall = SMALL.crop((0, 0, 16, 4))
    late = save("PNG", tall)[:-12] + chunk(b"teSt", b"x" * 99) + chunk(b"eXIf", turned.tobytes()[6:]) + PNG[-12:]
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'
    noted = save("PNG", tall)[:-12] + chunk(b"iTXt", xmp) + PNG[-12:]
    assert decode_image(late).shape == decode_image(noted).shape == (16, 4, 3)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    for data in (late, noted, save("PNG", tall, exif=turned)):
        assert (image_header(data).height, image_header(data).width) == (16, 4)
    assert image_header(save("PNG", tall)).height == 4


@pytest.mark.parametrize("largest", [1, 100, 254, 256, 4095, 65534])
def test_uncommon_largest_values_of_ppm_are_those_of_pillow(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.images.opening._PIECE_VALUES", 10)
    kind = "u1" if largest < 256 else ">u2"
    for magic, mode, bands in ((b"P5", "I" if largest > 255 else "L", 1), (b"P6", "RGB", 3), (b"PyCMYK", "CMYK", 4)):
        highest = min(2 * largest, 255 if kind == "u1" else 65535)
        values = np.random.default_rng(largest).integers(0, highest, (5, 7, bands))
        data = magic + b" 7 5 %d\n" % largest + values.astype(kind).tobytes()
        expected = Image.open(io.BytesIO(data))
        assert expected.mode == mode
        if mode == "I":
            expected = Image.fromarray((np.asarray(expected) >> 8).astype(np.uint8))
        np.testing.assert_array_equal(decode_image(data), np.asarray(expected.convert("RGB")))
        with pytest.raises(ImageError, match="not enough image data"):
            decode_image(data[:-1])


FUZZ = """
import random, resource, struct, sys, time, warnings
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
warnings.simplefilter("ignore")
from pathlib import Path
from effnet.data.images.decode import decode_image, image_header
from effnet.data.images.jpeg import decode_part, read_jpeg
from effnet.errors import ImageError
def part(data):
    found = read_jpeg(data)
    box = found and (0, 0, max(1, found.width // 2), found.height)
    return found and decode_part(found, box=box, reduction=rng.choice((1, 8)))
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
rng, refused = random.Random(0), 0
for _ in range(int(sys.argv[2])):
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 2, 5))):
        place = rng.randrange(min(len(data), rng.choice((40, 200, 10**6))))
        value = rng.choice((0, 1, 255, 256, 9999, 65535, 2**24, 2**31 - 1, 2**32 - 1))
        data[place : place + rng.choice((1, 4, 30))] = rng.choice((
            b"", bytes(8), rng.randbytes(3), struct.pack("<I", value), struct.pack(">I", value), data[place:] * 2))
        data = data or bytearray(1)
    for read in (image_header, decode_image, part):
        try:
            read(bytes(data))
        except ImageError as error:
            assert len(str(error).splitlines()) == 1, error
            refused += 1
# Not getrusage, whose peak includes that of the parent process if it was larger.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")) / 1024
print(refused, peak, resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""


def test_damaged_files_of_every_format_end_in_an_error_at_an_ordinary_price(tmp_path: Path) -> None:
    alpha = SMALL.copy()
    alpha.putalpha(SMALL.convert("L"))
    for number, image in enumerate((SMALL, SMALL.convert("L"), alpha, SMALL.quantize(16), SMALL.convert("CMYK"))):
        for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO"):
            stream = io.BytesIO()
            try:
                image.save(stream, kind)
            except (OSError, KeyError, ValueError):
                continue
            (tmp_path / f"{kind}-{number}").write_bytes(stream.getvalue())
    np.save(tmp_path / "a.npy", np.asarray(SMALL))
    SMALL.save(tmp_path / "progressive.jpg", progressive=True)
    SMALL.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    found = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path), "600"], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    refused, peak_mb, _ = map(float, found.stdout.split())
    assert refused > 500
    assert peak_mb < 1000
