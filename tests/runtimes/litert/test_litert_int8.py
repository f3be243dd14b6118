"""The int8 TFLite file: close to the fp32 one, with the requested layers left in fp32, and uint8 images."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import build_trained, specs, state_arrays

import effnet
from effnet.arch.catalog import get_spec
from effnet.arch.layers import named_layers
from effnet.arch.scale import with_eca
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import load_state
from effnet.data.datasets import load_image, read_dataset
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.errors import InputError, MissingExtraError, WeightsError
from effnet.runtimes.litert.writer import to_tflite
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import Quantization, write_export
from effnet.weights.folding import fold_norms, random_weights

litert = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
pytest.importorskip("ai_edge_quantizer")

from effnet.runtimes.litert.int8 import MOST_IMAGES, random_int8, to_int8  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406, 0.3), (0.229, 0.224, 0.225, 0.4)
PLAIN = Quantization(bias_correction="none")
INT8, FLOAT, UINT8, INT32 = (getattr(schema.TensorType, name) for name in ("INT8", "FLOAT32", "UINT8", "INT32"))

pytestmark = pytest.mark.usefixtures("one_thread")


def common(spec: ArchSpec, side: int) -> dict:
    return {"mean": MEAN[: spec.in_channels], "std": STD[: spec.in_channels], "resolution": side}


def draw_images(spec: ArchSpec, side: int, *, batch: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, side, side, spec.in_channels), dtype=np.uint8)


def run(data: bytes, folder: Path, images: np.ndarray) -> np.ndarray:
    (folder / "model.tflite").write_bytes(data)
    return open_engine(folder / "model.tflite").run(images)


def small_spec(**changes: object) -> ArchSpec:
    b0 = get_spec("b0", num_classes=5)
    return dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24, **changes)


def tensors(data: bytes) -> dict[str, object]:
    """Return the tensors by name; those that the quantizer inserted before an operator end in _quantized or similar."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)).subgraphs[0]
    return {tensor.name.decode(): tensor for tensor in graph.tensors}


def operands(data: bytes) -> dict[str, list[int]]:
    """Return the types of the first input, the weights and the output of each operator, by its output's name."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)).subgraphs[0]
    return {
        graph.tensors[op.outputs[0]].name.decode(): [graph.tensors[i].type for i in (*op.inputs[:2], op.outputs[0])]
        for op in graph.operators
    }


@pytest.fixture(scope="module")
def digits(small_bundle):
    """The trained bundle's config and weights, and images of the training and the test split."""
    config = effnet.load(small_bundle).config
    dataset = read_dataset("digits", channels=config.preprocess.channels)

    def prepare(split, count):
        images = [load_image(split, i, channels=config.preprocess.channels) for i in range(count)]
        return np.stack([resize_and_crop(image, config.preprocess) for image in images])

    return config, load_state(small_bundle), prepare(dataset.train, 64), prepare(dataset.test, 200)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize("bias_correction", ["none", "fast"])
def test_a_trained_network_keeps_its_answers_in_8_bits(digits, tmp_path, method, bias_correction):
    config, state, images, unseen = digits
    quantization = Quantization(method=method, bias_correction=bias_correction)
    path = write_export("litert-int8", tmp_path, config, state, images=images, quantization=quantization)
    assert path.name == "model.int8.tflite"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    found = open_engine(path).run(unseen)
    expected = open_engine(write_export("litert", tmp_path, config, state)).run(unseen)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert np.abs(found - expected).mean() < 0.01
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs(min_classes=2), st.integers(1, 32))
def test_a_random_network_runs_in_8_bits(tmp_path_factory, spec, side):
    folder = tmp_path_factory.getbasetemp()
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=side)))
    images = draw_images(spec, side, batch=8)
    expected = run(to_tflite(spec, weights, **common(spec, side)), folder, images)
    data = to_int8(spec, weights, images=images, quantization=Quantization(), **common(spec, side))
    found = run(data, folder, images)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    # Untrained and a few channels wide: rounding is visible, but a wrong operator would be far more so.
    assert np.abs(found - expected).mean() < 0.15


def test_images_come_in_as_uint8_and_probabilities_go_out_as_floats():
    spec = small_spec()
    data = random_int8(spec, resolution=24)
    found = operands(data)
    assert found["image.int8"] == [UINT8, INT8]
    assert found["probabilities"] == [FLOAT, FLOAT]
    # Every layer is requested to stay float; all other operators are int8.
    for name, layer in named_layers(spec):
        if layer.op in ("conv", "linear"):
            assert found[name] == [INT8, INT8, INT8], name


def test_weights_have_a_scale_for_each_channel():
    spec = small_spec()
    found = tensors(random_int8(spec, resolution=24))
    for name, layer in named_layers(spec):
        if layer.op == "conv":
            assert len(found[f"{name}.weight"].quantization.scale) == layer.out_channels, name
            assert found[f"{name}.bias"].type == INT32


@pytest.mark.parametrize(
    "names", [("stem.conv",), ("stages.1.0.se.reduce", "stages.1.0.depthwise.conv"), ("head.conv", "classifier")]
)
def test_layers_that_are_named_stay_float_and_no_others(names, tmp_path):
    spec = small_spec()
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=24)))
    images = draw_images(spec, 24, batch=6)
    quantization = Quantization(float_layers=names)
    data = to_int8(spec, weights, images=images, quantization=quantization, **common(spec, 24))
    found = operands(data)
    for name, layer in named_layers(spec):
        if layer.op in ("conv", "linear"):
            wanted = FLOAT if name in names else INT8
            assert found[name][:2] == [wanted, wanted], name
    for name in names:
        assert tensors(data)[f"{name}.bias"].type == FLOAT
    expected = run(to_tflite(spec, weights, **common(spec, 24)), tmp_path, images)
    assert np.abs(run(data, tmp_path, images) - expected).mean() < 0.05


def test_with_every_layer_in_float_only_the_functions_between_are_rounded(tmp_path):
    spec = small_spec(activation="relu6", se_gate="hard_sigmoid")
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=24)))
    images = draw_images(spec, 24, batch=8)
    names = tuple(name for name, layer in named_layers(spec) if layer.op in ("conv", "linear"))
    expected = run(to_tflite(spec, weights, **common(spec, 24)), tmp_path, images)

    def error(float_layers):
        quantization = Quantization(float_layers=float_layers)
        data = to_int8(spec, weights, images=images, quantization=quantization, **common(spec, 24))
        return np.abs(run(data, tmp_path, images) - expected).mean()

    assert error(names) < 0.8 * error(())


def test_percentile_ranges_are_narrower():
    spec = small_spec()
    weights, images = random_weights(spec), draw_images(spec, 64, batch=8)
    steps = []
    for method in ("minmax", "percentile"):
        quantization = Quantization(method=method, bias_correction="none")
        data = to_int8(spec, weights, images=images, quantization=quantization, **common(spec, 64))
        steps.append([tensors(data)[f"stages.{i}.0.project.conv"].quantization.scale[0] for i in range(2)])
    assert all(narrow < wide for wide, narrow in zip(*steps, strict=True))


def logits(probabilities: np.ndarray) -> np.ndarray:
    found = np.log(probabilities.astype(np.float64))
    return found - found.mean(1, keepdims=True)


def test_bias_correction_gives_back_what_rounding_takes_on_average(tmp_path):
    """Small weights next to a large one are rounded to zero, all in the same direction."""
    spec = small_spec(activation="relu")
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=24)))
    rows = np.full((5, 24), 0.3, np.float32) * np.arange(1, 6, dtype=np.float32)[:, None] / 5
    rows[:, 0] = 0.3 * 127 / 0.4 / 5
    weights |= {"classifier.weight": rows, "classifier.bias": np.zeros(5, np.float32)}
    images = draw_images(spec, 24, batch=16)
    expected = logits(run(to_tflite(spec, weights, **common(spec, 24)), tmp_path, images)).mean(0)

    def error(quantization):
        data = to_int8(spec, weights, images=images, quantization=quantization, **common(spec, 24))
        return np.abs(logits(run(data, tmp_path, images)).mean(0) - expected).max()

    assert error(Quantization()) < error(PLAIN) / 4


def test_a_channel_of_almost_no_weight_keeps_its_bias(tmp_path):
    """Its bias in steps of its weights would not fit into int32, as in pruned and dead channels."""
    spec = small_spec()
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=24)))
    for name in ("stem.conv", "stages.1.0.depthwise.conv", "head.conv"):
        weights[f"{name}.weight"][::2] *= 1e-12
        weights[f"{name}.weight"][1] = 0
        weights[f"{name}.bias"][::2] = 2.0
    weights["classifier.weight"] *= 0.1  # its logits were far apart, and now its features are large
    images = draw_images(spec, 24, batch=8)
    expected = run(to_tflite(spec, weights, **common(spec, 24)), tmp_path, images)
    data = to_int8(spec, weights, images=images, quantization=Quantization(), **common(spec, 24))
    assert np.abs(run(data, tmp_path, images) - expected).max() < 0.1


def test_what_litert_has_no_means_of_is_refused_by_name():
    spec = small_spec()
    weights, images = random_weights(spec), draw_images(spec, 24, batch=1)
    for quantization, message in (
        (Quantization(method="entropy"), "minmax or percentile; got entropy"),
        (Quantization(bias_correction="full"), r"fast or not at all \(none\); got full"),
        (Quantization(float_layers=("stem.cnv",)), r"linear layers; got 'stem.cnv'.*stem.conv"),
        (Quantization(float_layers=("stem.norm",)), "linear layers; got 'stem.norm'"),
    ):
        with pytest.raises(InputError, match=message):
            to_int8(spec, weights, images=images, quantization=quantization, **common(spec, 24))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    spec = small_spec()
    weights = random_weights(spec)
    weights["head.conv.bias"][0] = np.nan
    with pytest.raises(WeightsError, match="finite numbers to be quantized"):
        to_int8(spec, weights, images=draw_images(spec, 24, batch=1), quantization=Quantization(), **common(spec, 24))


def test_without_images_int8_is_refused_and_nothing_is_written(tmp_path):
    spec = small_spec()
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=24), class_names=tuple("abcde"))
    with pytest.raises(InputError, match="litert-int8 must be calibrated on images"):
        write_export("litert-int8", tmp_path, config, state_arrays(build_trained(spec, resolution=24)))
    assert not list(tmp_path.iterdir())


def test_of_many_images_some_are_taken_and_progress_is_told():
    spec = dataclasses.replace(small_spec(), head_channels=0)
    heard = []
    to_int8(
        spec, random_weights(spec), images=draw_images(spec, 4, batch=MOST_IMAGES + 50), quantization=PLAIN,
        progress=lambda done, total: heard.append((done, total)), **common(spec, 4),
    )  # fmt: skip
    assert heard == [(i, MOST_IMAGES) for i in range(1, MOST_IMAGES + 1)]


def test_without_the_quantizer_an_export_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match=r'needs ai-edge-quantizer.* pip install "effnet\[litert\]"'):
        random_int8(small_spec(), resolution=8)


@pytest.mark.parametrize("attention", ["se", "eca"])
@pytest.mark.parametrize(
    "activation, gate",
    [("silu", "sigmoid"), ("hard_swish", "hard_sigmoid"), ("relu", "sigmoid"), ("relu6", "none"), ("silu", "none")],
)
def test_every_operator_has_a_fast_kernel(activation, gate, attention):
    """XNNPACK takes all but the first operator as one; operators that it leaves out are several times slower.

    HARD_SWISH would be left out, and so would sums with a tiny summand, as random weights have.
    """
    b0 = get_spec("b0", num_classes=10)
    spec = dataclasses.replace(with_eca(b0) if attention == "eca" else b0, activation=activation, se_gate=gate)
    interpreter = litert.Interpreter(model_content=random_int8(spec, resolution=32))
    interpreter.allocate_tensors()
    (whole,) = [found for found in interpreter._get_ops_details() if found["op_name"] == "DELEGATE"]
    names = {found["index"]: found["name"] for found in interpreter.get_tensor_details()}
    assert [names[index] for index in whole["outputs"]] == ["probabilities"]
    assert "image.int8" in [names[index] for index in whole["inputs"]]


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hard_swish"])
def test_every_activation_is_near_in_8_bits(activation, tmp_path):
    spec = small_spec(activation=activation, se_gate="hard_sigmoid")
    spec = dataclasses.replace(spec, stem=dataclasses.replace(spec.stem, max_pool=True), padding="symmetric")
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=32)))
    images = draw_images(spec, 32, batch=16)
    expected = run(to_tflite(spec, weights, **common(spec, 32)), tmp_path, images)
    data = to_int8(spec, weights, images=images, quantization=Quantization(), **common(spec, 32))
    assert np.abs(run(data, tmp_path, images) - expected).mean() < 0.03


def test_features_go_out_as_floats(tmp_path):
    spec = small_spec(num_classes=0)
    found = run(random_int8(spec, resolution=24), tmp_path, draw_images(spec, 24, batch=2))
    assert (found.dtype, found.shape) == (np.float32, (2, 24))
