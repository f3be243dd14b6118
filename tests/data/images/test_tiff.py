"""Bands and pages of TIFF files, number by number, and directories that are wrong."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiffs import pages, tiff_of_bands

from effnet.data.images.decode import Decoding, decode_image, image_header, stored_values
from effnet.data.view.value_range import ValueRange
from effnet.errors import ImageError


def numbers(channels: int, dtype: str, *, size: tuple[int, int] = (11, 21)) -> np.ndarray:
    rng = np.random.default_rng(channels)
    if dtype == "float32":
        return rng.normal(0, 1000, (*size, channels)).astype(dtype)
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, (*size, channels), endpoint=True, dtype=dtype)


def read(data: bytes, channels: int) -> np.ndarray:
    return np.concatenate(list(stored_values(data, Decoding(channels=channels))))


@settings(deadline=None)
@given(
    channels=st.sampled_from([2, 4, 5, 8, 12]),
    dtype=st.sampled_from(["uint16", "int16", "uint32", "int32", "float32"]),
    order=st.sampled_from("<>"),
    planar=st.booleans(),
    tile=st.sampled_from([None, (16, 16), (16, 32)]),
    packing=st.sampled_from([(False, 1), (True, 1), (True, 2), (True, 3)]),
    big=st.booleans(),
)  # fmt: skip
def test_every_way_of_storing_bands_gives_their_numbers(channels, dtype, order, planar, tile, packing, big) -> None:
    deflated, predictor = packing
    if (predictor == 3) != (dtype == "float32") and predictor != 1:
        predictor = 1
    values = numbers(channels, dtype)
    big = big and order == "<"  # Pillow does not read the other
    data = tiff_of_bands(
        values, order=order, planar=planar, tile=tile, deflated=deflated, predictor=predictor, big=big
    )  # fmt: skip
    header = image_header(data)
    assert (header.format, header.height, header.width, header.channels) == ("TIFF", 11, 21, channels)
    assert (header.values, header.exact, header.mode) == (dtype, True, f"{channels} bands")
    np.testing.assert_array_equal(read(data, channels), values)


def test_eight_bits_are_unchanged_and_sixteen_are_mapped_by_band() -> None:
    eight = numbers(5, "uint8")
    np.testing.assert_array_equal(decode_image(tiff_of_bands(eight), channels=5), eight)
    values = numbers(5, "uint16")
    lows, highs = (0.0, 10.0, 20.0, 30.0, 40.0), (65535.0, 40_000.0, 30_000.0, 20_000.0, 10_000.0)
    found = decode_image(tiff_of_bands(values), channels=5, value_range=ValueRange(low=lows, high=highs))
    low, high = np.array(lows), np.array(highs)
    np.testing.assert_array_equal(found, np.rint((np.clip(values, low, high) - low) * (255 / (high - low))))
    with pytest.raises(ImageError, match="it must have 4 channels, as the value range does; it has 5"):
        decode_image(tiff_of_bands(values), channels=5, value_range=ValueRange(low=(0.0,) * 4, high=(1.0,) * 4))
    with pytest.raises(ImageError, match="it must have 3 channels but has 5"):
        decode_image(tiff_of_bands(values), channels=3)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_of_one_size_are_bands_if_as_many_are_requested(dtype: str, compression: str | None) -> None:
    values = numbers(6, dtype)
    data = pages(values, **({"compression": compression} if compression else {}))
    header = image_header(data)
    assert (header.channels, header.pages, header.exact) == (1, 6, False)
    np.testing.assert_array_equal(read(data, 6), values)
    if dtype == "uint8":
        np.testing.assert_array_equal(decode_image(data, channels=1), values[..., :1])
    else:
        np.testing.assert_array_equal(read(data, 1)[..., None], values[..., :1])
    with pytest.raises(ImageError, match="must have 5 channels but is a TIFF image with 1"):
        decode_image(data, channels=5)


def test_a_thumbnail_behind_an_image_is_no_band() -> None:
    first, second = (Image.fromarray(np.zeros(size, np.uint8)) for size in ((20, 20), (5, 5)))
    stream = io.BytesIO()
    first.save(stream, "TIFF", save_all=True, append_images=[second])
    assert image_header(stream.getvalue()).pages == 1


def test_a_fourth_band_that_is_no_alpha_is_read_if_it_is_requested() -> None:
    values = numbers(4, "uint16")
    wide = ValueRange(low=0.0, high=65535.0)
    near_infrared = tiff_of_bands(values, photometric=2, extra=(0,))
    assert image_header(near_infrared).channels == 3
    np.testing.assert_array_equal(read(near_infrared, 4), values)
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(near_infrared, channels=4, value_range=wide), expected)
    np.testing.assert_array_equal(decode_image(near_infrared, value_range=wide), expected[..., :3])
    alpha = tiff_of_bands(values, photometric=2, extra=(2,))
    assert image_header(alpha).channels == 4
    assert not image_header(alpha).exact


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_compressed_grey_of_the_other_byte_order_keeps_its_values(dtype: str) -> None:
    values = numbers(1, dtype)
    for deflated in (False, True):  # Pillow itself takes the bytes of compressed ones in the wrong order
        data = tiff_of_bands(values, order=">", deflated=deflated)
        np.testing.assert_array_equal(read(data, 1), values[..., 0])


def test_a_compression_that_knows_the_bands_is_refused_by_name() -> None:
    data = bytearray(tiff_of_bands(numbers(5, "uint16")))
    place = data.index(struct.pack("<HHL", 259, 4, 1))
    data[place + 8 : place + 12] = struct.pack("<L", 7)
    with pytest.raises(ImageError, match="a TIFF file of 5 bands must not be compressed as type 7"):
        decode_image(bytes(data), channels=5)


def test_pages_without_end_and_damaged_directories_are_read_or_refused() -> None:
    circular = bytearray(pages(numbers(3, "uint8")))
    first = struct.unpack_from("<L", circular, 4)[0]
    second = struct.unpack_from("<L", circular, first + 2 + 12 * struct.unpack_from("<H", circular, first)[0])[0]
    struct.pack_into("<L", circular, second + 2 + 12 * struct.unpack_from("<H", circular, second)[0], first)
    assert image_header(bytes(circular)).pages == 1
    said: list[str] = []
    rng = np.random.default_rng(0)
    for whole, channels in ((tiff_of_bands(numbers(6, "uint16"), deflated=True), 6), (pages(numbers(3, "uint16")), 3)):
        for _ in range(150):
            data = bytearray(whole[: int(rng.integers(20, len(whole) + 1))])
            for place in rng.integers(4, len(data), 3):
                data[place] = rng.integers(0, 256)
            try:
                assert decode_image(bytes(data), channels=channels).shape[2] == channels
            except ImageError as error:
                said.append(str(error))
    assert len(said) > 10
    assert not any("\n" in text for text in said)


def test_more_pixels_and_numbers_than_an_image_has_are_refused() -> None:
    def said(width: int, height: int) -> bytes:
        data = bytearray(tiff_of_bands(numbers(8, "uint16"), tile=(16, 16)))
        for tag, value in ((256, width), (257, height)):
            struct.pack_into("<L", data, data.index(struct.pack("<HHL", tag, 4, 1)) + 8, value)
        return bytes(data)

    with pytest.raises(ImageError, match="must have at most 100,000,000 pixels"):
        decode_image(said(20_000, 20_000), channels=8)
    with pytest.raises(ImageError, match="TIFF may hold at most 400,000,000 values"):
        decode_image(said(9000, 9000), channels=8)
