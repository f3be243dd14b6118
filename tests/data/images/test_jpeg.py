import io
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.datasets import Split
from effnet.data.images import jpeg
from effnet.data.images.decode import Decoding, decode_image
from effnet.data.images.jpeg import decode_part, decode_whole, read_jpeg
from effnet.data.view.crop import decoded, open_image_at, random_part, size_at
from effnet.data.view.reduction import reduction_for
from effnet.errors import ImageError

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((157, 101), 3)
KINDS = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "optimized": {"optimize": True, "quality": 30},
    "rgb": {"keep_rgb": True},
}


def save(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int, image: Image.Image = SMOOTH) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(image, exif=exif, quality=90)


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with simplejpeg, and as if it were not installed."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    hidden = {"simplejpeg": None} if request.param == "pillow" else {}
    jpeg.simplejpeg_decoder.cache_clear()
    with mock.patch.dict(sys.modules, hidden):
        assert (jpeg.simplejpeg_decoder() is None) == (request.param == "pillow")
        yield request.param
    jpeg.simplejpeg_decoder.cache_clear()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_reduction_the_pixels_are_those_of_decode_image(decoder: str, kind: str, channels: int) -> None:
    data = save(SMOOTH, **KINDS[kind])
    np.testing.assert_array_equal(
        decode_whole(read_jpeg(data), channels=channels), decode_image(data, channels=channels)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_file_is_replicated_as_decode_image_does(decoder: str, channels: int) -> None:
    data = save(SMOOTH.convert("L"))
    found = decode_whole(read_jpeg(data), channels=channels)
    np.testing.assert_array_equal(found, decode_image(data, channels=channels))
    assert found.shape == (101, 157, channels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_the_same_part_of_the_upright_image(decoder: str, orientation: int) -> None:
    data = turned(orientation)
    image, whole = read_jpeg(data), decode_image(data)
    assert (image.height, image.width) == whole.shape[:2]
    for left, top, right, bottom in ((0, 0, 101, 101), (3, 40, 50, 41), (20, 10, 95, 99)):
        part = decode_part(image, box=(left, top, right, bottom))
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_image_is_that_of_libjpeg_through_pillow(decoder: str, reduction: int) -> None:
    data = save(SMOOTH, quality=90)
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", (opened.width // reduction, opened.height // reduction))
        expected = np.asarray(opened)
    np.testing.assert_array_equal(decode_whole(read_jpeg(data), reduction=reduction), expected)
    box = (reduction, 2 * reduction + 1, 157, 12 * reduction - 1)
    found = decode_part(read_jpeg(data), box=box, reduction=reduction)
    np.testing.assert_array_equal(found, expected[2:12, 1:])


@pytest.mark.parametrize("size", [(6000, 5), (6000, 1), (3, 2000)])
def test_a_strip_is_reduced_only_as_far_as_it_has_pixels(decoder: str, size: tuple[int, int]) -> None:
    data = save(SMOOTH.resize(size))
    found = decoded(read_jpeg(data), channels=3, least=200, longer=True)
    reduction = max(size) // max(found.shape)
    assert found.shape[:2] == tuple(-(-side // reduction) for side in size[::-1])
    assert reduction == {5: 4, 1: 1, 3: 2}[min(size)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_part_lies_where_the_whole_one_does(decoder: str, reduction: int, orientation: int) -> None:
    # Sides that no reduction divides: the grid of a rotated image then does not begin at its upper left corner.
    data = turned(
        orientation, SMOOTH.resize((4, 3), Image.Resampling.BOX).resize(SMOOTH.size, Image.Resampling.BICUBIC)
    )
    whole, box = decode_image(data).astype(int), (17, 31, 90, 83)
    found = decode_part(read_jpeg(data), box=box, reduction=reduction)
    height, width = (reduction * side for side in found.shape[:2])
    enlarged = np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.BICUBIC))
    errors = {}
    for top in range(box[1] - reduction + 1, box[1] + 1):
        for left in range(box[0] - reduction + 1, box[0] + 1):
            there = whole[top : top + height, left : left + width]
            errors[top, left] = np.abs(enlarged[: there.shape[0], : there.shape[1]] - there).mean()
    best = min(errors, key=errors.__getitem__)
    assert errors[best] < 2
    assert best[0] + height >= box[3]
    assert best[1] + width >= box[2]


def test_the_first_image_of_a_stereo_file_is_read(decoder: str) -> None:
    data = save(SMOOTH, "MPO", save_all=True, append_images=[Image.new("RGB", SMOOTH.size)])
    np.testing.assert_array_equal(decode_whole(read_jpeg(data)), decode_image(data))


def test_other_files_are_left_to_decode_image(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 3), np.uint8))
    assert read_jpeg(tmp_path / "a.npy") is None
    assert read_jpeg(save(SMOOTH, "PNG")) is None
    assert read_jpeg(save(Image.new("CMYK", (16, 16)))) is None
    (tmp_path / "b.png").write_bytes(save(SMOOTH))
    (tmp_path / "c.jpg").write_bytes(save(SMOOTH, "PNG"))
    split = Split(sources=[str(tmp_path / name) for name in ("a.npy", "b.png", "c.jpg")], labels=np.zeros(3))
    opened = []
    for index in range(3):
        with open_image_at(split, index, Decoding()) as image:
            opened.append(image)
    assert [isinstance(image, np.ndarray) for image in opened] == [True, False, True]
    assert [decoded(image, channels=3, least=1000).shape for image in opened] == [
        (4, 5, 3),
        (101, 157, 3),
        (101, 157, 3),
    ]
    assert [size_at(split, index) for index in range(3)] == [(4, 5), (101, 157), (101, 157)]
    for index, channels in ((1, 5), (2, 5)):
        with (
            pytest.raises(ImageError, match="must have 5 channels"),
            open_image_at(split, index, Decoding(channels=channels)),
        ):
            pass


def test_a_plain_header_is_read_as_pillow_reads_it() -> None:
    plain = [save(SMOOTH.resize((w, h)), **options) for w, h in ((1, 1), (9, 300)) for options in KINDS.values()]
    plain += [save(SMOOTH.convert("L")), save(SMOOTH, comment=b"\xff\xda\xff\xe1 Exif")]
    others = [turned(1), turned(6), save(SMOOTH, icc_profile=b"p" * 200), save(Image.new("CMYK", (8, 8)))]
    for data in plain + others:
        found, image = jpeg._plain_frame(data), Image.open(io.BytesIO(data))
        assert found in (None, (image.height, image.width, len(image.getbands())))
        with mock.patch.object(jpeg, "_plain_frame", return_value=None):
            slowly = read_jpeg(data)
        quickly = read_jpeg(data)
        for name in ("width", "height", "stored_channels", "orientation"):
            assert quickly is slowly is None or getattr(quickly, name) == getattr(slowly, name)
    assert sum(jpeg._plain_frame(data) is not None for data in plain) >= len(plain) - 2  # keep_rgb: marked by Adobe
    assert not any(jpeg._plain_frame(data) for data in others)


def test_a_stricter_limit_of_pillow_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="more than 100 pixels; make it smaller, or set EFFNET_MAX_PIXELS"):
        read_jpeg(save(SMOOTH))


def outcome(decode: Callable[[bytes], np.ndarray], data: bytes) -> tuple[object, ...]:
    """Return the shape and bytes of the pixels, or the error."""
    try:
        pixels = decode(data)
    except ImageError as error:
        return (str(error),)
    return pixels.shape, pixels.tobytes()


def in_part(data: bytes) -> np.ndarray:
    image = read_jpeg(data)
    return decode_image(data) if image is None else decode_whole(image)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged EXIF
@settings(max_examples=150, deadline=None)
@given(cut=st.integers(4, 3000), place=st.integers(2, 2000), value=st.integers(0, 255), exif=st.booleans())
def test_damage_anywhere_ends_as_with_decode_image(cut: int, place: int, value: int, exif: bool) -> None:
    data = bytearray(turned(3) if exif else save(SMOOTH))
    data[place % len(data)] = value
    for damaged in (bytes(data), bytes(data[:cut])):
        assert outcome(in_part, damaged) == outcome(decode_image, damaged)


def test_damaged_files_are_named_as_by_decode_image(decoder: str, tmp_path: Path) -> None:
    data = save(SMOOTH, quality=95)
    frame = data.index(b"\xff\xc0")
    cases = {
        "empty.jpg": b"",
        "head.jpg": data[:20],
        "cut.jpg": data[: len(data) // 2],
        "bomb.jpg": data[: frame + 5] + struct.pack(">HH", 20_000, 20_000) + data[frame + 9 :],
        "none.jpg": None,
    }
    for name, content in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageError) as expected:
            decode_image(path)
        with pytest.raises(ImageError) as found:
            decode_whole(read_jpeg(path))
        assert str(found.value) == str(expected.value)


def test_what_pillow_forgives_is_forgiven(decoder: str) -> None:
    data = save(SMOOTH)
    for odd in (data + b"trailing", data[:-2] + b"\0\0\0" + data[-2:], data[:2] + b"\xff" + data[2:]):
        np.testing.assert_array_equal(decode_whole(read_jpeg(odd)), decode_image(odd))


def test_a_reduction_leaves_at_least_so_many_pixels() -> None:
    assert [reduction_for(side, least=50) for side in (1, 99, 100, 199, 200, 399, 400, 9999)] == [
        1,
        1,
        2,
        2,
        4,
        4,
        8,
        8,
    ]
    large = read_jpeg(save(SMOOTH.resize((1570, 1010))))
    assert decoded(large, channels=3, least=100).shape == (127, 197, 3)
    assert decoded(large, channels=3, least=1010).shape == (1010, 1570, 3)
    for seed in range(20):
        part = random_part(large, least=64, rng=np.random.default_rng(seed), scale=(0.1, 1.0))
        assert 64 <= min(part.shape[:2]) < 129 or max(part.shape[:2]) > 129


@pytest.mark.parametrize("orientation", [1, 8])
def test_a_part_of_a_file_is_the_part_of_the_decoded_image(orientation: int) -> None:
    data = turned(orientation)
    for seed in range(10):
        parts = [
            random_part(image, least=90, rng=np.random.default_rng(seed))
            for image in (read_jpeg(data), decode_image(data))
        ]
        np.testing.assert_array_equal(*parts)
