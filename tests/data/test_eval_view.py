"""Evaluation decodes a large JPEG file at a reduced size in all code paths, and every other file exactly."""

import io
import subprocess
import sys

import numpy as np
import pytest
from bundles import make_bundle
from PIL import Image
from sklearn.datasets import load_sample_image

import effnet
from effnet.data.datasets import Split
from effnet.data.images.decode import Decoding, decode_image, decoded_image
from effnet.data.images.opening import decoding_bytes, open_image
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.view import reduction
from effnet.data.view.crop import as_evaluated, open_image_at
from effnet.data.view.evaluation import eval_view, eval_view_at
from effnet.runtimes.predictor import Predictor
from effnet.training.input.batches import eval_batches

PHOTO = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "colour": (PHOTO, {}),
    "grey": (PHOTO.convert("L"), {}),
    "CMYK": (PHOTO.convert("CMYK"), {}),
    "progressive": (PHOTO, {"progressive": True}),
    "turned": (PHOTO, {"exif": TURNED}),
    "4:4:4": (PHOTO, {"subsampling": "4:4:4"}),
}
SMALL = Preprocess(resolution=42, crop=0.875, mean=(0.5,) * 3, std=(0.5,) * 3)


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 90} if kind == "JPEG" else {}), **options)
    return stream.getvalue()


@pytest.fixture
def large(monkeypatch):
    """Treat images of more than a quarter of a megapixel as large."""
    monkeypatch.setattr(reduction, "LARGE_PIXELS", 250_000)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["center", "squash", "pad"])
@pytest.mark.parametrize("name", FILES)
def test_a_reduced_image_gives_nearly_the_same_input(name, mode, channels):
    image, options = FILES[name]
    data = encoded(image, **options)
    crop, fill = (1.0 if mode == "pad" else 0.875), (0.5,) * channels
    preprocess = Preprocess(resolution=42, crop=crop, mode=mode, mean=fill, std=fill)
    whole = resize_and_crop(decode_image(data, channels=channels), preprocess)
    found = eval_view(data, preprocess).astype(int)
    assert np.abs(found - whole).mean() < 1.5
    assert np.abs(found - whole).max() > 0  # it was reduced
    with decoded_image(data, Decoding(channels=channels, reduce=lambda *_: 2)) as reduced:
        assert reduced.shape == ((320, 214, channels) if name == "turned" else (214, 320, channels))


@pytest.mark.parametrize("name", FILES)
def test_up_to_the_limit_every_pixel_is_decoded(name):
    image, options = FILES[name]
    data = encoded(image, **options)
    assert np.array_equal(eval_view(data, SMALL), resize_and_crop(decode_image(data), SMALL))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_never_reduced(kind):
    data = encoded(PHOTO, kind)
    assert np.array_equal(eval_view(data, SMALL), resize_and_crop(decode_image(data), SMALL))


@pytest.mark.usefixtures("large")
def test_every_road_sees_the_same_input(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(PHOTO))
    split = Split(sources=[str(path)], labels=np.zeros(1, np.int64))
    expected = eval_view(str(path), SMALL)
    assert np.array_equal(eval_view_at(split, 0, SMALL), expected)
    ((images, _),) = eval_batches(split, SMALL)
    assert np.array_equal(images[0], expected)
    predictor = Predictor(make_bundle(tmp_path / "bundle"))
    grey = eval_view(str(path), predictor.config.preprocess)
    assert np.array_equal(predictor.prepare(path), grey)
    assert np.array_equal(predictor.prepare(path.read_bytes()), grey)
    with open_image_at(split, 0, Decoding()) as image:  # training, with simplejpeg if it is installed
        assert np.array_equal(resize_and_crop(as_evaluated(image, SMALL), SMALL), expected)
    assert effnet.evaluate(predictor, split).images == 1


def test_the_memory_that_is_waited_for_is_that_of_the_reduced_image():
    for options, kept in (({}, 0), ({"progressive": True, "subsampling": "4:4:4"}, 6)):
        stream = io.BytesIO(encoded(PHOTO, **options))
        with open_image(stream) as image:
            pixels = image.width * image.height
            for factor in (1, 2, 8):
                expected = max(8 * pixels / factor**2, (4 / factor**2 + kept) * pixels)
                assert decoding_bytes(image, stream, reduction=factor) == pytest.approx(expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read as Linux tells it")
def test_a_photograph_of_48_megapixels_takes_little_memory(tmp_path):
    Image.new("RGB", (8064, 6048), "green").save(tmp_path / "large.jpg")
    code = """
import resource, sys
from effnet.data.view.evaluation import eval_view
from effnet.data.preprocess import Preprocess
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
before = peak()
eval_view(sys.argv[1], Preprocess(resolution=224))
print(peak() - before)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "large.jpg")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < 100  # MB; decoded at full size it takes 340
