"""Prediction in Python: every kind of image, and errors."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.data.preprocess import resize_and_crop
from effnet.errors import BundleError, DataError, ImageError, InputError
from effnet.runtimes.onnxruntime.session import open_session
from effnet.tasks.classification import Prediction, to_prediction


@pytest.fixture(scope="module")
def model(small_bundle):
    return effnet.load(small_bundle)


@pytest.fixture
def digit():
    """A grey image as uint8 [20, 30, 1]."""
    return np.random.default_rng(3).integers(0, 256, (20, 30, 1), dtype=np.uint8)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(stream, format="PNG")
    return stream.getvalue()


def test_a_path_bytes_and_an_array_are_the_same_image(model, digit, tmp_path):
    (tmp_path / "x.png").write_bytes(png(digit))
    images = [tmp_path / "x.png", str(tmp_path / "x.png"), png(digit), digit, digit[..., 0]]
    first, *others = model.predict(images)
    assert all(other == first for other in others)
    assert first.label == first.labels[0] in model.config.class_names
    assert list(first.probabilities) == sorted(first.probabilities, reverse=True)


def test_the_size_of_a_batch_changes_nothing(model, digit):
    images = [np.roll(digit, i, axis=1) for i in range(7)]
    expected = model.predict(images, batch=1)
    for batch in (2, 7, 100):
        found = model.predict(images, batch=batch)
        assert [p.labels for p in found] == [p.labels for p in expected]
        np.testing.assert_allclose([p.probabilities for p in found], [p.probabilities for p in expected], atol=1e-6)
    assert model.predict(iter(images), batch=3) == model.predict(images, batch=3)


def test_no_image_gives_no_prediction(model):
    assert model.predict([]) == []


def test_probabilities_are_those_of_every_class(model, digit):
    found = model.probabilities(np.stack([model.prepare(digit)] * 3))
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    (best,) = model.predict([digit], top=10)
    assert sorted(best.labels) == sorted(model.config.class_names)
    assert best.probabilities[0] == pytest.approx(found[0].max(), abs=1e-6)


@pytest.mark.parametrize("top, count", [(1, 1), (5, 5), (99, 10), (0, 1)])
def test_top_says_how_many_classes(model, digit, top, count):
    (found,) = model.predict([digit], top=top)
    assert len(found.labels) == len(found.probabilities) == count


def test_equal_probabilities_keep_the_order_of_the_classes():
    found = to_prediction(np.array([0.2, 0.4, 0.4, 0.0], np.float32), ("a", "b", "c", "d"), top=3)
    assert found.labels == ("b", "c", "a")


@pytest.mark.parametrize("threshold, known", [(0.0, True), (0.4, True), (0.41, False), (1.0, False)])
def test_a_image_below_the_threshold_is_unknown(threshold, known):
    row = np.array([0.2, 0.4, 0.4, 0.0])
    found = to_prediction(row, ("a", "b", "c", "d"), top=2, threshold=threshold)
    assert (found.known, found.label) == (known, "b" if known else "unknown")
    assert (found.labels, found.probabilities) == (("b", "c"), (0.4, 0.4))


def test_a_prediction_is_known_where_nothing_else_is_said():
    assert Prediction(labels=("a",), probabilities=(0.1,)).label == "a"


def test_the_bundles_threshold_holds_unless_another_is_given(bundle_copy, digit):
    (found,) = effnet.load(bundle_copy).predict([digit])
    assert found.known
    between = (found.probabilities[0] + 1) / 2
    data = json.loads((bundle_copy / "config.json").read_text())
    (bundle_copy / "config.json").write_text(json.dumps(data | {"threshold": between}))
    model = effnet.load(bundle_copy)
    assert [p.label for p in model.predict([digit])] == ["unknown"]
    assert model.predict([digit], threshold=0) == [found]
    assert model.predict([digit], threshold=found.probabilities[0] - 1e-6)[0].known
    assert not effnet.load(bundle_copy).predict([digit], threshold=1.0)[0].known


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(model, digit, threshold):
    with pytest.raises(InputError, match=f"must be a probability from 0 to 1; got {threshold}"):
        model.predict([digit], threshold=threshold)


def test_a_image_is_prepared_as_the_config_says(model, digit):
    side = model.config.preprocess.resolution
    prepared = model.prepare(digit)
    assert (prepared.shape, prepared.dtype) == ((side, side, 1), np.uint8)
    np.testing.assert_array_equal(prepared, resize_and_crop(digit, model.config.preprocess))


def test_an_image_of_pillows_is_the_one_of_its_file(model, digit, tmp_path):
    whole = Image.fromarray(digit[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated, as phones write it
    whole.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        found = model.predict([opened, whole, whole.convert("RGB"), whole.convert("RGBA"), whole.convert("CMYK")])
    assert found[:4] == model.predict([tmp_path / "turned.png", digit, digit, digit])
    assert len(found[4].labels) == 5


def test_one_image_need_not_be_in_a_list(model, digit, tmp_path):
    (tmp_path / "x.png").write_bytes(png(digit))
    expected = model.predict([digit])
    for single in (digit, png(digit), tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(digit[..., 0])):
        assert model.predict(single) == expected
    assert model.predict(np.stack([digit, digit])) == expected * 2


@pytest.mark.parametrize("other", [None, 3, 2.5, object()])
def test_what_is_no_image_is_refused_with_what_may_be_given(model, digit, other):
    kinds = r"a path, the bytes of a file, a Pillow image or a uint8 array \[height, width, channels\]"
    with pytest.raises(InputError, match=rf"predict takes {kinds}, or a list of these; got {type(other).__name__}"):
        model.predict(other)
    with pytest.raises(InputError, match=rf"an image must be {kinds}; got {type(other).__name__}"):
        model.predict([digit, other])


@pytest.mark.parametrize(
    "array",
    [np.zeros(8, np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 1)), np.zeros((0, 8, 1), np.uint8)],
)
def test_an_array_of_another_kind_is_refused(model, array):
    for images in ([array], array):
        with pytest.raises(DataError, match="must be uint8"):
            model.predict(images)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_holds_at_least_one_image(model, digit, batch):
    with pytest.raises(InputError, match=f"batches of at least 1 image; got {batch}"):
        model.predict([digit], batch=batch)


def test_an_unreadable_image_is_named(model, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        model.predict([tmp_path / "gone.png"])


def test_loading_opens_no_onnx_file_until_it_is_needed(bundle_copy, digit):
    path = bundle_copy / "model.onnx"
    path.unlink()
    model = effnet.load(bundle_copy)
    with pytest.raises(BundleError, match=r"there must be a model at .*model\.onnx; none is there"):
        model.predict([digit])


def change(bundle, **changes):
    data = json.loads((bundle / "config.json").read_text())
    for key, value in changes.items():
        data[key] |= value
    (bundle / "config.json").write_text(json.dumps(data))


def test_a_model_of_another_resolution_than_the_config_is_refused(bundle_copy, digit):
    change(bundle_copy, preprocess={"resolution": 40})
    with pytest.raises(BundleError, match=r"must map image \[40, 40, 1\] .* as in config\.json; it maps image \["):
        effnet.load(bundle_copy).predict([digit])


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_number_of_threads_changes_no_answer(small_bundle, model, digit, threads):
    (found,), (expected,) = (m.predict([digit]) for m in (effnet.load(small_bundle, threads=threads), model))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


@pytest.mark.parametrize("threads", [-1, 1025, 10**12])
def test_threads_that_would_stall_the_machine_are_refused(small_bundle, digit, threads):
    with pytest.raises(InputError, match=rf"threads must lie in 0\.\.1024; got {threads}"):
        effnet.load(small_bundle, threads=threads).predict([digit])


def test_a_session_keeps_its_threads(small_bundle):
    options = open_session(small_bundle / "model.onnx", threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_predicting_leaves_the_arithmetic_of_the_callers_thread_alone(small_bundle):
    effnet.load(small_bundle).predict([np.zeros((8, 8, 1), dtype=np.uint8)])
    assert np.float32(1e-30) * np.float32(1e-10) > 0


def test_what_is_assumed_of_deep_images_without_a_range_is_said_once(small_bundle, tmp_path):
    model, said = effnet.load(small_bundle), []
    model.say = said.append
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain, again, memory = model.predict(
        [tmp_path / "deep.png", tmp_path / "plain.png", tmp_path / "deep.png", Image.open(tmp_path / "deep.png")]
    )
    assert deep == plain == again == memory
    (sentence,) = said
    assert "uint16 values" in sentence
    assert "0..65535 is read as black to white" in sentence
    with pytest.warns(UserWarning, match="0..65535"):
        effnet.load(small_bundle).predict(tmp_path / "deep.png")
    with pytest.raises(DataError, match="must be uint8"):
        model.prepare(values[..., None])
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "int.tif")
    with pytest.raises(ImageError, match=r"int\.tif: its int32 values need a value range"):
        model.predict(tmp_path / "int.tif")
