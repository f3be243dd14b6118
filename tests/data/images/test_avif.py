"""AVIF files whose AV1 streams contradict their header, and ordinary files, whose decoding does not change."""

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from effnet.data.images.av1 import measure_stream
from effnet.data.images.avif import stream_bytes
from effnet.data.images.decode import decode_image, image_header
from effnet.errors import ImageError

Image.init()
pytestmark = pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF")

SIDE = 512


def save(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "AVIF", speed=10, **options)
    return stream.getvalue()


def box(kind: bytes, body: bytes, version: int | None = None) -> bytes:
    head = b"" if version is None else bytes([version, 0, 0, 0])
    return struct.pack(">I4s", len(head + body) + 8, kind) + head + body


def first_item(data: bytes) -> bytes:
    start, length = struct.unpack_from(">II", data, data.index(b"iloc") + 18)
    return data[start : start + length]


def first_sample(data: bytes) -> bytes:
    """Return the first frame of a video, which has the long form of headers."""
    (start,) = struct.unpack_from(">I", data, data.index(b"stco") + 12)
    (length,) = struct.unpack_from(">I", data, data.index(b"stsz") + 16)
    return data[start : start + length]


def file(*items: tuple[bytes, bytes, int], parts: int = 1, inside: bool = False) -> bytes:
    """Return a file of square items (kind, data, side), the first of which is shown and composed of the others."""
    number = len(items)
    info = b"".join(box(b"infe", struct.pack(">HH4sx", i + 1, 0, kind), 2) for i, (kind, _, _) in enumerate(items))
    sizes = b"".join(box(b"ispe", struct.pack(">II", side, side), 0) for *_, side in items)
    codec = box(b"pixi", b"\3\x08\x08\x08", 0) + box(b"av1C", b"\x81\0\x0c\0")
    links = b"".join(
        struct.pack(">H", i + 1) + (bytes([3, i + 1, number + 1, 0x80 | number + 2]) if kind == b"av01" else
        bytes([2, i + 1, number + 1])) for i, (kind, _, _) in enumerate(items)
    )  # fmt: skip
    properties = box(b"ipco", sizes + codec) + box(b"ipma", struct.pack(">I", number) + links, 0)
    stored = b"".join(data for _, data, _ in items)
    meta = b""
    for _ in range(2):  # the first round determines its length
        place, places = 0 if inside else 24 + len(meta) + 8, b""
        for i, (_, data, _) in enumerate(items):
            cuts = [len(data) * k // parts for k in range(parts + 1)]
            places += struct.pack(">HHHH", i + 1, int(inside), 0, parts)
            places += b"".join(struct.pack(">II", place + a, b - a) for a, b in itertools.pairwise(cuts))
            place += len(data)
        body = box(b"hdlr", b"\0\0\0\0pict" + bytes(13), 0) + box(b"pitm", b"\0\1", 0)
        body += box(b"iloc", struct.pack(">HH", 0x4400, number) + places, 1)
        body += box(b"iinf", struct.pack(">H", number) + info, 0) + box(b"iprp", properties)
        if number > 1:
            made_of = struct.pack(f">HH{number - 1}H", 1, number - 1, *range(2, number + 1))
            body += box(b"iref", box(b"dimg", made_of), 0)
        meta = box(b"meta", body + (box(b"idat", stored) if inside else b""), 0)
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + meta + box(b"mdat", b"" if inside else stored)


def grid(rows: int, columns: int, side: int) -> bytes:
    return struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, side, side)


def reshaped(sample: bytes) -> bytes:
    """Return a video frame whose sequence header declares 64 x 64, and its own header `SIDE` x `SIDE`.

    The places of the bits are those of libaom's encoder: no timing, one operating point.
    """
    assert sample[:3] == b"\x12\0\x0a"
    length = sample[3]
    header, frame = bits(sample[4 : 4 + length]), sample[4 + length :]
    start = 29 + (int(header[24:29], 2) > 7)
    wide, high = int(header[start : start + 4], 2) + 1, int(header[start + 4 : start + 8], 2) + 1
    rest = header[start + 8 + wide + high :].rstrip("0")
    new = packed(header[:start] + "1" * 8 + f"{63:016b}" * 2 + rest)
    # There is an order; frames choose their tools and whole motion vectors.
    assert (rest[8], rest[11:13], frame[0], frame[1] < 128) == ("1", "11", 0x32, True)
    body = bits(frame[2:])
    place = 6 + int(body[5])
    cut = place + 1 + int(rest[13:16], 2) + 1
    assert body[place] == "0"
    body = body[:place] + "1" + body[place + 1 : cut] + f"{SIDE - 1:016b}" * 2 + body[cut:]
    return b"\x0a" + bytes([len(new)]) + new + b"\x32" + bytes([len(body) // 8]) + packed(body)


def bits(data: bytes) -> str:
    return "".join(f"{value:08b}" for value in data)


def packed(text: str) -> bytes:
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def resized(data: bytes, kind: bytes, skip: int) -> bytes:
    place = data.index(kind) + skip
    one = 16 << 16 if kind == b"tkhd" else 16
    return data[:place] + struct.pack(">II", one, one) + data[place + 8 :]


BIG, TINY = Image.new("RGB", (SIDE, SIDE), "red"), Image.new("RGB", (64, 64), "red")
FILM = {"save_all": True, "append_images": [BIG]}


def hostile() -> dict[str, bytes]:
    whole, small = first_item(save(BIG)), first_item(save(TINY))
    clear = BIG.copy()
    clear.putalpha(9)
    film = save(BIG, **FILM)
    return {
        "as Pillow writes it": resized(save(BIG), b"ispe", 8),
        "with alpha": resized(save(clear), b"ispe", 8),
        "in two extents": file((b"av01", whole, 64), parts=2),
        "in seven extents inside the header": file((b"av01", whole, 64), parts=7, inside=True),
        "a tile beyond the grid": file((b"grid", grid(1, 1, 64), 64), (b"av01", whole, SIDE)),
        "a tile that is enlarged": file((b"grid", grid(1, 1, 64), 64), (b"av01", small, SIDE)),
        "a film": resized(film, b"tkhd", 4 + 88),
        "a frame that overrides its sequence": file((b"av01", reshaped(first_sample(film)), 64)),
    }


@pytest.mark.parametrize("name", hostile() if "AVIF" in Image.SAVE else [])
def test_a_stream_larger_than_its_header_says_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = hostile()[name]
    assert max(Image.open(io.BytesIO(data)).size) <= 64
    # libavif decodes it: 4:2:0 at its own size.
    assert stream_bytes(data) >= SIDE * SIDE * 1.5
    monkeypatch.setattr("effnet.data.images.limits.MAX_BYTES", SIDE * SIDE * 1.5)
    for read in (image_header, decode_image):
        with pytest.raises(ImageError, match=r"at most 0 MB; it takes .* MB, its header says"):
            read(data)


def test_the_files_of_this_test_can_be_decoded() -> None:
    for data in hostile().values():  # libavif itself would accept all of them
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_allclose(image.convert("RGB").getpixel((9, 9)), (254, 0, 1), atol=1)
    small = first_item(save(TINY))
    np.testing.assert_array_equal(
        decode_image(file((b"av01", small, 64), parts=3, inside=True)), decode_image(save(TINY))
    )
    tiled = file((b"grid", grid(2, 2, 128), 128), *[(b"av01", small, 64)] * 4)
    np.testing.assert_array_equal(decode_image(tiled), np.tile(decode_image(save(TINY)), (2, 2, 1)))


@pytest.mark.parametrize("seed", range(36))
def test_what_pillow_writes_keeps_its_pixels_and_its_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mode, samples = (("RGB", 3), ("RGBA", 4), ("L", 1))[seed % 3]
    layout, planes = (("4:2:0", 1.5), ("4:4:4", 3), ("4:2:2", 2), ("4:0:0", 1))[seed // 3 % 4]
    height, width = rng.integers(1, 90, 2)
    pixels = rng.integers(0, 256, (height, width, samples), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if samples == 1 else pixels)
    film = {"save_all": True, "append_images": [image.rotate(180)] * 2} if seed % 5 == 0 else {}
    sides = ("full", "limited")[seed % 2]
    data = save(image, subsampling=layout, quality=int(rng.choice((0, 40, 90, 100))), range=sides, **film)
    with Image.open(io.BytesIO(data)) as expected:
        np.testing.assert_array_equal(decode_image(data, channels=4), np.asarray(expected.convert("RGBA")))
    # One byte besides the planes, and a plane and a byte of alpha.
    assert stream_bytes(data) == width * height * (planes + 1 + (2 if mode == "RGBA" else 0))


def test_extents_that_take_no_room_in_the_file_are_refused_before_libavif_sees_them() -> None:
    # Each would take 16 bytes in libavif: 64 KB become 1 GB.
    empty = struct.pack(">HH", 0, 1000) + b"".join(struct.pack(">HHH", i + 1, 0, 65_535) for i in range(1000))
    plain = save(TINY)
    start = plain.index(b"iloc") - 4
    length = int.from_bytes(plain[start : start + 4], "big")
    new = box(b"iloc", empty, 0)
    meta = plain.index(b"meta") - 4
    size = int.from_bytes(plain[meta : meta + 4], "big") + len(new) - length
    data = plain[:meta] + struct.pack(">I", size) + plain[meta + 4 : start] + new + plain[start + length :]
    for read in (image_header, decode_image):
        with pytest.raises(ImageError, match="must have at most 100,000 boxes, extents and OBUs; it has more"):
            read(data)
    with pytest.raises(ImageError, match="at most 100,000"):
        stream_bytes(file((b"av01", b"\x12\0" * 100_001, 64)))


def test_a_track_of_two_tables_is_refused() -> None:
    film = save(TINY, save_all=True, append_images=[TINY])
    assert decode_image(film).shape == (64, 64, 3)
    with pytest.raises(ValueError, match="a track has the boxes stco, stsd, stsz, stsz, tkhd"):
        stream_bytes(film.replace(b"stss", b"stsz", 1))


def test_frames_that_a_stream_keeps_are_counted() -> None:
    sample = first_sample(save(TINY, save_all=True, append_images=[TINY]))
    area, frames, pixel_bytes = measure_stream(sample, [100])
    assert (area, frames, pixel_bytes) == (64 * 64, 1, 2.5)
    assert measure_stream(sample * 4, [100])[1] == 4
    assert measure_stream(sample * 40, [1000])[1] == 10
    for length in range(len(sample)):
        try:
            measure_stream(sample[:length], [100])
        except ValueError as error:
            assert str(error) == "an OBU ends early"  # noqa: PT017
