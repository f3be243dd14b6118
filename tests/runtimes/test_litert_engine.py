"""LiteRT behind the common engine interface: any batch, any thread, and a one-line error for an unreadable file."""

import dataclasses
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import effnet
from effnet.arch.catalog import get_spec
from effnet.bundle.weights import load_state
from effnet.errors import BundleError, InputError, MissingExtraError
from effnet.measurement.speed.timing import time_model
from effnet.runtimes.registry import open_engine, preload
from effnet.runtimes.write import write_export
from effnet.weights.folding import random_weights

pytest.importorskip("ai_edge_litert.interpreter")

from effnet.runtimes.litert.flatbuffer import serialise
from effnet.runtimes.litert.graph import to_graph
from effnet.runtimes.litert.int8 import random_int8
from effnet.runtimes.litert.writer import to_tflite

SIDE = 20
NORMAL = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2)}


@pytest.fixture(scope="module")
def spec():
    b0 = get_spec("b0", num_classes=5)
    return dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24)


@pytest.fixture(scope="module", params=["model.tflite", "model.int8.tflite"])
def model(request, spec, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / request.param
    if "int8" in request.param:
        path.write_bytes(random_int8(spec, resolution=SIDE))
    else:
        path.write_bytes(to_tflite(spec, random_weights(spec), resolution=SIDE, **NORMAL))
    return path


def make_images(batch: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


def test_any_batch_in_any_order_gives_each_image_the_same(model):
    engine, images = open_engine(model), make_images(9)
    assert (engine.size, engine.channels, engine.classes) == ((SIDE, SIDE), 3, 5)
    alone = np.concatenate([engine.run(image[None]) for image in images])
    assert alone.dtype == np.float32
    assert len(np.unique(alone, axis=0)) > 1
    for batch in (9, 1, 4, 2, 9):
        np.testing.assert_allclose(engine.run(images[:batch]), alone[:batch], atol=1e-6)


def test_what_it_returned_before_stays_as_it_was(model):
    engine, images = open_engine(model), make_images(2)
    first = engine.run(images[:1])
    kept = first.copy()
    engine.run(images[1:])
    np.testing.assert_array_equal(first, kept)


def test_images_need_not_be_contiguous(model):
    engine, images = open_engine(model), make_images(3)
    np.testing.assert_array_equal(engine.run(images[:, ::-1]), engine.run(images[:, ::-1].copy()))


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_any_number_of_threads_gives_the_same(model, threads):
    np.testing.assert_allclose(
        open_engine(model, threads=threads).run(make_images(3)), open_engine(model).run(make_images(3))
    )


def test_several_threads_may_ask_at_once(model):
    engine, images = open_engine(model), make_images(12)
    expected = engine.run(images)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: engine.run(images[i : i + 1 + i % 3]), list(range(10)) * 3))
    for i, part in zip(list(range(10)) * 3, parts, strict=True):
        np.testing.assert_allclose(part, expected[i : i + 1 + i % 3], atol=1e-6)


def test_a_file_that_is_missing_cut_or_no_model_is_refused(model, tmp_path):
    with pytest.raises(BundleError, match=r"none is there: `effnet export` writes it"):
        open_engine(tmp_path / "absent.tflite")
    whole, path = model.read_bytes(), tmp_path / "bad.tflite"
    for content in (b"", b"no model", whole[:9], whole[: len(whole) // 2], whole[: 9 * len(whole) // 10]):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"LiteRT cannot read .*bad\.tflite.*`effnet export` writes it again"):
            open_engine(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match="it is not a regular file"):
        open_engine(path)


def test_a_model_of_another_kind_is_refused(spec, tmp_path):
    model = to_graph(spec, random_weights(spec), resolution=SIDE, pixels="float32", **NORMAL)
    (tmp_path / "other.tflite").write_bytes(serialise(model))
    with pytest.raises(BundleError, match=r"must map image.*it maps float32 \[1, 20, 20, 3\] to float32 \[1, 5\]"):
        open_engine(tmp_path / "other.tflite")


def test_images_of_another_side_are_refused(model):
    engine = open_engine(model)
    with pytest.raises(InputError, match=r"takes uint8 \[batch, 20, 20, 3\]; got uint8 \(2, 24, 24, 3\)"):
        engine.run(np.zeros((2, 24, 24, 3), np.uint8))
    assert engine.run(make_images(2)).shape == (2, 5)


def test_without_the_runtime_it_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    for call in (lambda: open_engine(model), lambda: preload("litert")):
        with pytest.raises(MissingExtraError, match=r'needs ai-edge-litert.* pip install "effnet\[litert\]"'):
            call()


def test_a_bundle_predicts_with_it(small_bundle, tmp_path):
    bundle = shutil.copytree(small_bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("run"))
    onnx = effnet.load(bundle)
    write_export("litert", bundle, onnx.config, load_state(bundle))
    preprocess = onnx.config.preprocess
    shape = (6, preprocess.resolution, preprocess.resolution, preprocess.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = effnet.load(bundle, format="litert").predict(list(images), top=1)
    assert [one.label for one in found] == [one.label for one in onnx.predict(list(images), top=1)]


def test_it_is_timed_like_every_other_file(model):
    found = time_model(model, rounds=2, seconds=0.02)
    assert found.p50_ms > 0
    assert 0 < found.memory_mb < 200
    assert found.size_mb == pytest.approx(model.stat().st_size / 1e6)


def test_only_the_runtime_is_imported(model, run_python):
    code = (
        "import sys, numpy as np; from effnet.runtimes.registry import open_engine; "
        f"open_engine({str(model)!r}).run(np.zeros((1, 20, 20, 3), np.uint8)); "
        "print({'torch', 'tensorflow', 'onnxruntime', 'flatbuffers', 'ai_edge_quantizer'} & set(sys.modules))"
    )
    assert run_python("-c", code).out.strip() == "set()"
