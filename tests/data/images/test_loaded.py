"""An image that Pillow resizes as it lies in its memory gives the same input as its array."""

import gc
import io

import numpy as np
import pytest
from PIL import Image

from effnet.data.images import loaded, pixels
from effnet.data.images.decode import Decoding, decode_image, decoded_for_resizing, decoded_image
from effnet.data.images.loaded import Loaded
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.view import resample
from effnet.data.view.evaluation import eval_decoding, eval_view
from effnet.errors import ImageError


def encoded(mode: str, *, orientation: int = 1, sides: tuple[int, int] = (61, 47), file: str = "PNG") -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 4), np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, format=file, exif=exif)
    return stream.getvalue()


def view_of(interpolation: str = "bicubic", mode: str = "center", channels: int = 3) -> Preprocess:
    crop, given = (1.0 if mode in ("pad", "corner") else 0.9), (0.5,) * channels
    return Preprocess(resolution=24, mode=mode, interpolation=interpolation, crop=crop, mean=given, std=given)


def check(data: bytes, preprocess: Preprocess) -> None:
    with decoded_image(data, eval_decoding(preprocess)) as image:
        assert isinstance(image, np.ndarray)
        np.testing.assert_array_equal(eval_view(data, preprocess), resize_and_crop(image, preprocess))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["center", "squash", "pad", "corner"])
def test_the_input_is_that_of_the_array(mode: str, interpolation: str) -> None:
    # The last is only resized in part: effnet.data.preprocess.
    for sides in ((61, 47), (47, 61), (24, 24), (26, 26), (7, 300), (1, 2_000_000)):
        if max(sides) < 1000 or (mode, interpolation) == ("center", "bicubic"):
            check(encoded("RGB", sides=sides), view_of(interpolation, mode))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_only_images_of_the_requested_channels_stay_as_they_are(mode: str) -> None:
    data = encoded(mode, file="TIFF" if mode == "CMYK" else "PNG")
    for channels in (1, 3, 4):
        preprocess = view_of(channels=channels)
        check(data, preprocess)
        with decoded_for_resizing(data, eval_decoding(preprocess)) as found:
            assert isinstance(found, Loaded) == ((mode, channels) in (("L", 1), ("RGB", 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation: int) -> None:
    check(encoded("RGB", orientation=orientation), view_of())


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA", "P"])
def test_channels_of_large_images_are_resized_one_by_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {kind: eval_view(encoded(mode), view_of(mode=kind)) for kind in ("center", "squash")}
    monkeypatch.setattr(loaded, "LARGE_PIXELS", 100)
    monkeypatch.setattr(resample, "LARGE_PIXELS", 100)
    monkeypatch.setattr(pixels, "_PIECE_PIXELS", 500)
    for kind, found in expected.items():
        np.testing.assert_array_equal(eval_view(encoded(mode), view_of(mode=kind)), found)
    with decoded_for_resizing(encoded(mode), eval_decoding(view_of())) as image:
        assert isinstance(image, Loaded) == (mode in ("RGBA", "RGB"))
        with decoded_image(encoded(mode), eval_decoding(view_of())) as whole:
            np.testing.assert_array_equal(image[3:9], whole[3:9])


def test_a_transparent_colour_and_values_of_more_bits_are_converted() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (30, 30), (255, 0, 0)).save(stream, format="PNG", transparency=(255, 0, 0))
    check(stream.getvalue(), view_of())
    assert eval_view(stream.getvalue(), view_of()).min() == 255  # white
    stream = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20).save(stream, format="PNG")
    check(stream.getvalue(), view_of())


def test_a_damaged_image_is_named() -> None:
    with pytest.raises(ImageError, match="<2500 bytes>"):
        eval_view(encoded("RGB")[:2500], view_of())


def read_for_resizing(data: bytes) -> None:
    with decoded_for_resizing(data, Decoding()):
        pass


@pytest.mark.parametrize("file", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("read", [decode_image, read_for_resizing])
def test_the_error_of_an_image_that_breaks_off_keeps_no_pixels(file, read):
    # A server's error goes to another thread, and kept 100 MB of each large image until the next garbage collection.
    data = encoded("RGB", sides=(257, 251), file=file)
    errors = []
    for _ in range(3):
        with pytest.raises(ImageError) as caught:
            read(data[: len(data) // 2])
        errors.append(caught.value)
    del caught
    # Not isinstance, which asks lazy modules for their class.
    images = [each for each in gc.get_objects() if issubclass(type(each), Image.Image)]
    assert not [image for image in images if image.size == (257, 251)]
