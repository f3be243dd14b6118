"""export --features: files of embeddings, checked against the eager network, in every runtime."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from bundles import assert_files_are_known, make_bundle
from sklearn.datasets import load_sample_image
from strategies import build_trained

import effnet
from effnet.bundle.config import ModelConfig, read_config, write_digests
from effnet.bundle.weights import load_module, load_state, save_bundle, state_arrays
from effnet.data.preprocess import Preprocess, normalize
from effnet.errors import BudgetError, BundleError, EffnetError, InputError
from effnet.measurement.verify import compare_features
from effnet.runtimes.digests import digests_of
from effnet.runtimes.ledger import read_ledger
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.registry import FEATURES, find_format

RUNTIMES = ("onnx", "openvino", "litert", "executorch")
SIDE = 32

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """A bundle of a network for RGB images, its embeddings exported to every runtime; do not change it."""
    folder = tmp_path_factory.mktemp("features") / "bundle"
    b0 = effnet.get_spec("b0", num_classes=5)
    spec = dataclasses.replace(b0, stages=b0.stages[:1], head_channels=24)  # ExecuTorch takes seconds per stage
    config = ModelConfig(
        arch=spec, preprocess=Preprocess(resolution=SIDE), class_names=tuple("abcde"), temperature=2.0, threshold=0.3
    )
    state = state_arrays(build_trained(spec, resolution=SIDE))
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    write_digests(folder, digests_of(folder, ["onnx"]))
    before = (folder / "model.onnx").read_bytes()
    found = effnet.export(folder, to=list(FEATURES), features=True)
    assert list(found) == list(FEATURES)
    assert (folder / "model.onnx").read_bytes() == before  # the deployed file is unchanged
    return folder


@pytest.fixture(scope="module")
def photographs():
    """Parts of two photographs, 100 x 80 pixels."""
    china, flower = (load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
    return [image[y : y + 80, x : x + 100] for image in (china, flower) for y in (0, 150, 300) for x in (0, 250, 500)]


def eager_features(folder, images):
    network = load_module(folder)
    with torch.no_grad():
        pixels = torch.from_numpy(normalize(images, read_config(folder).preprocess)).permute(0, 3, 1, 2)
        return network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()


@pytest.mark.parametrize("name", RUNTIMES)
def test_embeddings_are_the_networks_features_in_every_runtime(embedding, photographs, name):
    predictor = effnet.load(embedding, format=name)
    expected = eager_features(embedding, np.stack([predictor.prepare(image) for image in photographs]))
    found = predictor.embed(photographs, normalized=False, batch=4)
    assert (found.dtype, found.shape) == (np.float32, (18, 24))
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 1e-4


def test_the_classifier_of_an_embedding_gives_the_probabilities(embedding, photographs):
    predictor, state = effnet.load(embedding), load_state(embedding)
    features = predictor.embed(photographs, normalized=False)
    logits = (features @ state["classifier.weight"].T + state["classifier.bias"]) / predictor.config.temperature
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = predictor.probabilities(np.stack([predictor.prepare(image) for image in photographs]))
    np.testing.assert_allclose(shares, found, atol=1e-5)


def test_what_was_found_is_kept_and_the_files_are_known(embedding):
    ledger = read_ledger(embedding)
    for name, target in FEATURES.items():
        entry = ledger[target.name]
        assert (entry.checked, entry.random, entry.accuracy, entry.agreement) == (64, True, None, None)
        assert entry.relative_error < (1e-4 if target.precision == "fp32" else 1e-2)
        assert entry.cosine > 0.999
        assert entry.size_bytes == target.size_bytes(embedding), name
    known = json.loads((embedding / "config.json").read_text())["sha256"]
    assert {target.file for target in FEATURES.values()} < known.keys()


def test_a_file_of_embeddings_says_so_itself(embedding):
    import onnx

    model = onnx.load(embedding / "features.onnx")
    assert [output.name for output in model.graph.output] == ["features"]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["class_names"] == "[]"
    assert json.loads(metadata["preprocess"])["resolution"] == SIDE
    assert "threshold" not in metadata


@pytest.mark.parametrize("name", ["onnx-int8", "onnx-w8", "openvino-bf16", "openvino-int8", "litert-int8", "coreml"])
def test_what_cannot_be_judged_is_refused_in_one_line(embedding, name):
    with pytest.raises(InputError, match=f"embeddings can be exported to onnx, .*; got {name}, whose") as raised:
        effnet.export(embedding, to=name, features=True)
    assert "\n" not in str(raised.value)


def test_a_bundle_without_a_classifier_embeds_and_does_not_predict(tmp_path, photographs):
    spec = effnet.get_spec("b0", num_classes=0)
    spec = dataclasses.replace(spec, stages=spec.stages[:1], head_channels=24)
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=SIDE), class_names=())
    save_bundle(tmp_path, config, state_arrays(build_trained(spec, resolution=SIDE)))
    found = effnet.export(tmp_path, features=True)
    assert found.relative_error < 1e-4
    predictor = effnet.load(tmp_path)
    assert predictor.embed(photographs[0]).shape == (1, 24)
    with pytest.raises(BundleError, match="a model needs a classifier to predict"):
        predictor.predict(photographs[0])


def test_another_folder_gets_what_embeds_alone(embedding, photographs, tmp_path):
    effnet.export(embedding, to="litert", features=True, out=tmp_path / "device")
    assert_files_are_known(tmp_path / "device")
    assert sorted(p.name for p in (tmp_path / "device").iterdir()) == ["config.json", "exports.json", "features.tflite"]
    here = effnet.load(tmp_path / "device")
    np.testing.assert_allclose(here.embed(photographs), effnet.load(embedding).embed(photographs), atol=1e-5)


def test_data_are_for_checking_alone(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    found = effnet.export(folder, to=["onnx"], features=True, data="digits")["onnx"]
    assert (found.random, found.scored, found.accuracy, found.judged) == (False, 0, None, None)


def test_other_weights_leave_no_embeddings_behind(embedding, tmp_path):
    """A file without a digest in config.json may be of earlier weights."""
    folder = shutil.copytree(embedding, tmp_path / "bundle")
    write_digests(folder, digests_of(folder, ["onnx"]))
    with pytest.raises(BundleError, match=r"features\.onnx, which .* lacks for its current weights: `effnet export "):
        effnet.load(folder).embed([])
    (folder / "features.tflite").write_bytes((folder / "features.tflite").read_bytes() + b"!")
    write_digests(folder, digests_of(embedding, ["litert-features"]))
    with pytest.raises(BundleError, match=r"features\.tflite must have the SHA-256 .* --features --to litert`"):
        effnet.load(folder, format="litert").embed([])


class Embeds:
    """A predictor with given embeddings."""

    folder = "B"

    def __init__(self, name, rows):
        self.format, self.rows = find_format(name), np.float32(rows)

    def features(self, images):
        return self.rows


ROWS = np.float32([[3, 4], [0, 2], [0, 0]])


def test_the_difference_is_a_share_of_the_length():
    found = compare_features(ROWS, Embeds("onnx", ROWS + np.float32([[4e-3, 0], [0, 0], [0, 0]])), ROWS)
    assert found.relative_error == pytest.approx(8e-4, rel=1e-3)
    assert found.cosine > 0.999
    with pytest.raises(EffnetError, match=r"one differs by 0\.0016\. This is a bug in effnet"):
        compare_features(ROWS, Embeds("onnx", ROWS + np.float32([[8e-3, 0], [0, 0], [0, 0]])), ROWS)
    with pytest.raises(EffnetError, match="This is a bug"):  # an embedding that should be all zeros
        compare_features(ROWS, Embeds("onnx", ROWS + np.float32([[0, 0], [0, 0], [1e-3, 0]])), ROWS)


def test_sixteen_bits_keep_the_direction():
    assert compare_features(ROWS, Embeds("onnx-fp16", 1.01 * ROWS), ROWS).cosine == pytest.approx(1)
    with pytest.raises(BudgetError, match=r"a cosine of 0\.999; the least of 3 is 0\.\d+\. Choose an fp32 format"):
        compare_features(ROWS, Embeds("onnx-fp16", ROWS + np.float32([[1, 0], [0, 0], [0, 0]])), ROWS)


def test_weights_that_give_no_numbers_are_named():
    with pytest.raises(BundleError, match="with the weights of B it does not on 3 of 3 images"):
        compare_features(np.full_like(ROWS, np.nan), Embeds("onnx", ROWS), ROWS)
