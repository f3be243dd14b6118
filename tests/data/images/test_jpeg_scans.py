import io
import struct

import numpy as np
import pytest
from PIL import Image

from effnet.data.images import jpeg, jpeg_scans
from effnet.data.images.decode import decode_image, image_header
from effnet.data.images.jpeg import decode_whole, read_jpeg
from effnet.data.images.jpeg_scans import count_scans
from effnet.errors import ImageError


def save(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def with_scans(number: int, *, side: int = 64, **options: object) -> bytes:
    """Return a progressive JPEG file with this number of extra scans, each a few bytes long."""
    data = save(Image.new("L", (side, side)), progressive=True, **options)
    table = data.rindex(b"\xff\xc4")
    return data[:-2] + data[table:-2] * number + data[-2:]


def test_a_file_with_a_thousand_scans_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_scans(1000)
    assert image_header(data).width == 64
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    monkeypatch.setattr(jpeg, "simplejpeg_decoder", lambda: pytest.fail("it was decoded"))
    for read in (decode_image, read_jpeg):
        with pytest.raises(ImageError, match=r"of 4,096 pixels must have at most 500 scans; it has 1,006"):
            read(data)


def test_the_larger_the_image_the_fewer_scans_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_scans(60)
    assert decode_whole(read_jpeg(data)).shape == decode_image(data).shape == (64, 64, 3)
    monkeypatch.setattr(jpeg_scans, "_MOST_SCANNED", 50 * 4096)
    with pytest.raises(ImageError, match="at most 50 scans; it has 66"):
        decode_image(data)


def test_what_only_looks_like_scans_is_none() -> None:
    noise = b"".join(b"\xff\xda" + bytes([value % 256] * 3) for value in range(2000))
    thumbnail = b"\xff\xe3" + struct.pack(">H", 2 + len(noise)) + noise
    plain = save(Image.effect_noise((64, 64), 50), quality=95)
    for data in (plain + noise, plain[:2] + thumbnail + plain[2:]):
        np.testing.assert_array_equal(decode_image(data), decode_image(plain))
        np.testing.assert_array_equal(decode_whole(read_jpeg(data)), decode_image(plain))


def test_starts_are_counted_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 3, 1000, 1001):
        data = rng.choice(np.array([0xFF, 0xDA, 0], np.uint8), size).tobytes()
        assert count_scans(data) == data.count(b"\xff\xda")
    assert count_scans(with_scans(7)) == 13


def test_starts_across_blocks_of_a_file_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_scans, "_MOST_SCANS", 20)
    monkeypatch.setattr(jpeg_scans, "_LEAST_SCANS", 20)
    for block in (2, 3, 7, 64, 2**20):
        monkeypatch.setattr(jpeg_scans, "_BLOCK", block)
        assert decode_image(with_scans(14)).shape == (64, 64, 3)
        with pytest.raises(ImageError, match="it has 21"):
            decode_image(with_scans(15))


def test_of_more_than_one_scan_the_coefficients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = Image.effect_noise((64, 64), 50).convert("RGB")
    for options, expected in (({}, False), ({"progressive": True}, True)):
        assert read_jpeg(save(colour, **options)).keeps is expected
    data = save(colour, progressive=True, subsampling=0)
    monkeypatch.setattr("effnet.data.images.limits.MAX_BYTES", 9 * 4096)
    for read in (decode_image, read_jpeg, image_header):
        with pytest.raises(ImageError, match="decoding it must take at most"):
            read(data)
    assert decode_image(save(colour)).shape == (64, 64, 3)
