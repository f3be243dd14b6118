"""Decode images with more than 8 bits without loss of bits, in every file format, against the written values."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.images.decode import Decoding, convert_pillow, decode_image, image_header, stored_values
from effnet.data.view.value_range import ValueRange

TWELVE = ValueRange(low=0, high=4095)
VALUES = np.random.default_rng(0).integers(0, 4096, (7, 5, 4)).astype(np.uint16)


def expected(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * 255 / 4095).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, *, order: str) -> bytes:
    """Return an uncompressed TIFF file of 16-bit colours, which Pillow cannot write. Source: TIFF 6.0."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 16), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    tags += [(338, 3, 1, 2)] if channels == 4 else []
    dtype, place = np.dtype(f"{order}u2"), 16 + len(data)
    head = (b"II*\0" if order == "<" else b"MM\0*") + np.array([place], f"{order}u4").tobytes()
    entries = b""
    for tag, kind, count, value in tags:
        wide = kind == 4 or count > 1
        body = np.array([value], f"{order}u4").tobytes() if wide else np.array([value, 0], dtype).tobytes()
        entries += np.array([tag, kind], dtype).tobytes() + np.array([count], f"{order}u4").tobytes() + body
    bits = np.full(channels, 16, dtype).tobytes()[:8].ljust(8, b"\0")
    return head + bits + data + np.array([len(tags)], dtype).tobytes() + entries + bytes(4)


def test_sixteen_bit_colours_keep_all_their_bits(png_bytes) -> None:
    colour = VALUES[..., :3]
    for data in (png_bytes(colour), tiff(colour, order="<"), tiff(colour, order=">")):
        assert image_header(data).values == "uint16"
        np.testing.assert_array_equal(decode_image(data, value_range=TWELVE), expected(colour))
        np.testing.assert_array_equal(decode_image(data), (colour >> 8).astype(np.uint8))
        np.testing.assert_array_equal(np.concatenate(list(stored_values(data))), colour)
        opened = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(convert_pillow(opened, Decoding(value_range=TWELVE)), expected(colour))
        np.testing.assert_array_equal(np.asarray(opened), (colour >> 8).astype(np.uint8))
    ppm = b"P6\n5 7\n65535\n" + colour.astype(">u2").tobytes()
    assert image_header(ppm).values == "uint8"  # its header declares the white value


def test_alpha_keeps_its_own_range(png_bytes) -> None:
    values = VALUES.copy()
    values[..., 3] = 65535
    for data in (png_bytes(values), tiff(values, order="<")):
        found = decode_image(data, channels=4, value_range=TWELVE)
        np.testing.assert_array_equal(found[..., :3], expected(values[..., :3]))
        assert (found[..., 3] == 255).all()
    grey = png_bytes(values[..., 2:])
    found = decode_image(grey, channels=4, value_range=TWELVE)
    np.testing.assert_array_equal(found[..., 0], expected(values[..., 2]))
    np.testing.assert_array_equal(decode_image(grey, channels=1, value_range=TWELVE)[..., 0], expected(values[..., 2]))


def test_grey_of_every_type_has_its_values(png_bytes, tmp_path: Path) -> None:
    grey = VALUES[..., 0]
    files = {
        "uint16": [png_bytes(grey[..., None]), save(Image.fromarray(grey), "TIFF"),
                   b"P5\n5 7\n65535\n" + grey.astype(">u2").tobytes()],
        "int32": [save(Image.fromarray(grey.astype(np.int32)), "TIFF")],
        "float32": [save(Image.fromarray(grey.astype(np.float32)), "TIFF", compression="tiff_lzw")],
    }  # fmt: skip
    for dtype in ("int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64", ">u2"):
        np.save(tmp_path / "a.npy", grey.astype(dtype))
        files.setdefault(np.dtype(dtype).name, []).append((tmp_path / "a.npy").read_bytes())
    for kind, found in files.items():
        for data in found:
            assert image_header(data).values == kind
            rows = decode_image(data, channels=1, value_range=TWELVE)[..., 0]
            tolerance = 1 if kind == "float16" else 0
            assert np.abs(rows.astype(int) - expected(grey)).max() <= tolerance, kind
    np.testing.assert_array_equal(
        convert_pillow(Image.fromarray(grey), Decoding(channels=1, value_range=TWELVE))[..., 0], expected(grey)
    )


def test_files_that_say_their_range_and_ordinary_ones_are_never_changed(tmp_path: Path) -> None:
    grey = VALUES[..., 0]
    stated = b"P5\n5 7\n4095\n" + grey.astype(">u2").tobytes()
    eight = Image.fromarray((VALUES[..., :3] >> 4).astype(np.uint8))
    np.save(tmp_path / "a.npy", np.asarray(eight))
    files = [stated, save(eight, "PNG"), save(eight, "TIFF"), save(eight, "JPEG"), (tmp_path / "a.npy").read_bytes()]
    narrow = ValueRange(low=10, high=11)
    for data in files:
        assert image_header(data).values == "uint8"
        np.testing.assert_array_equal(decode_image(data, value_range=narrow), decode_image(data))


def test_large_images_are_converted_in_pieces(png_bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode_image(png_bytes(VALUES), value_range=TWELVE)
    monkeypatch.setattr("effnet.data.images.pixels._PIECE_PIXELS", 4)
    np.testing.assert_array_equal(decode_image(png_bytes(VALUES), value_range=TWELVE), whole)
