"""Predictor.embed: every kind of image, any batch, and one-line errors."""

import io
import pickle

import numpy as np
import pytest
from bundles import make_bundle
from PIL import Image

import effnet
from effnet.bundle.config import read_config, write_digests
from effnet.bundle.weights import load_state
from effnet.errors import BundleError, DataError, ImageError, InputError
from effnet.runtimes.digests import digests_of
from effnet.runtimes.results import unit_rows
from effnet.runtimes.write import write_export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make_bundle(tmp_path_factory.mktemp("embed") / "bundle")
    write_export("onnx-features", made, read_config(made), load_state(made))
    write_digests(made, digests_of(made, ["onnx", "onnx-features"]))
    return made


@pytest.fixture(scope="module")
def model(folder):
    return effnet.load(folder)


@pytest.fixture
def images():
    return list(np.random.default_rng(3).integers(0, 256, (7, 20, 30, 1), dtype=np.uint8))


def test_a_path_bytes_an_array_and_a_pillow_image_are_the_same_image(model, images, tmp_path):
    image, stream = Image.fromarray(images[0][..., 0]), io.BytesIO()
    image.save(stream, "PNG")
    (tmp_path / "x.png").write_bytes(stream.getvalue())
    same = [tmp_path / "x.png", str(tmp_path / "x.png"), stream.getvalue(), images[0], image]
    found = model.embed(same)
    assert (found.dtype, found.shape) == (np.float32, (5, 192))
    np.testing.assert_allclose(found, np.repeat(found[:1], 5, axis=0), atol=1e-6)
    for one in same:
        np.testing.assert_allclose(model.embed(one), found[:1], atol=1e-6)


def test_each_has_length_one_unless_it_is_left_as_it_is(model, images):
    found, raw = model.embed(images), model.embed(images, normalized=False)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found * np.linalg.norm(raw, axis=1, keepdims=True), raw, rtol=1e-5)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1)


def test_the_size_of_a_batch_changes_nothing(model, images):
    expected = model.embed(images, batch=1)
    for batch in (2, 7, 100):
        np.testing.assert_allclose(model.embed(iter(images), batch=batch), expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(np.stack(images)), expected, atol=1e-5)
    assert model.embed([]).shape == (0, 192)


def test_it_can_be_pickled_and_predicts_beside(model, images):
    there = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(there.embed(images), model.embed(images))
    assert len(there.predict(images)) == 7


def test_it_needs_no_torch(folder, run_python):
    code = (
        "import sys, numpy, effnet; m = effnet.load(sys.argv[1]); x = numpy.zeros((9, 9, 1), numpy.uint8);"
        "print(m.embed(x).shape, 'torch' in sys.modules)"
    )
    ran = run_python("-c", code, folder)
    assert (ran.out, ran.err) == ("(1, 192) False\n", "")


def test_what_predict_refuses_is_refused_alike(model, images, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for bad, error in (
        (7, InputError),
        ([7], InputError),
        (np.zeros((4, 4)), DataError),
        (tmp_path / "bad.png", ImageError),
    ):
        with pytest.raises(error) as here:
            model.embed(bad)
        with pytest.raises(error) as there:
            model.predict(bad)
        assert str(here.value) == str(there.value).replace("predict takes", "embed takes")
    with pytest.raises(InputError, match="embed takes batches of at least 1 image; got 0"):
        model.embed(images, batch=0)


@pytest.mark.parametrize(
    ("name", "to"), [("onnx", "onnx"), ("onnx-int8", "onnx"), ("onnx-fp16", "onnx-fp16"), ("litert-int8", "litert")]
)
def test_a_bundle_without_embeddings_says_how_to_make_them(tmp_path, images, name, to):
    made = make_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match=rf"`effnet export {made} --features --to {to}` writes it"):
        effnet.load(made, format=name).embed(images)


def test_there_is_none_where_nothing_runs(folder, images):
    with pytest.raises(InputError, match=r"embeddings can be exported to onnx, .*; got coreml"):
        effnet.load(folder, format="coreml").embed(images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error_that_names_the_file(tmp_path, images, value):
    folder = make_bundle(tmp_path / "bundle")
    state = {name: array * value if name == "head.conv.weight" else array for name, array in load_state(folder).items()}
    write_export("onnx-features", folder, read_config(folder), state)
    write_digests(folder, digests_of(folder, ["onnx-features"]))
    with pytest.raises(BundleError, match=r"features\.onnx must return finite numbers; those for 7 of 7"):
        effnet.load(folder).embed(images)


def test_a_file_of_another_width_is_refused(tmp_path, images):
    folder = make_bundle(tmp_path / "bundle")
    (folder / "features.onnx").write_bytes((folder / "model.onnx").read_bytes())
    write_digests(folder, digests_of(folder, ["onnx-features"]))
    with pytest.raises(BundleError, match=r"to features \[192\], as in config\.json; it maps .* to features \[10\]"):
        effnet.load(folder).embed(images)


def test_lengths_are_found_for_large_and_small_numbers_and_for_none():
    found = unit_rows(np.float32([[3e30, 4e30], [3e-30, 4e-30], [0, 0]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)
