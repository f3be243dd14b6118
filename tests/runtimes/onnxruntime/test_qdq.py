"""Int8 graphs: ONNX Runtime computes the fp32 network, rounded where it should be and nowhere else."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import build_trained, specs, state_arrays

import effnet
from effnet.arch.layers import named_layers
from effnet.arch.scale import with_eca
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.compression.equalize import equalize
from effnet.data.datasets import load_image, read_dataset
from effnet.data.preprocess import resize_and_crop
from effnet.errors import InputError, MissingExtraError, SpecError
from effnet.runtimes.onnxruntime.graph import expose, to_onnx
from effnet.runtimes.onnxruntime.int8 import store_half, store_int8
from effnet.runtimes.onnxruntime.int8_bias import correct_fast, correct_full
from effnet.runtimes.onnxruntime.int8_calibrate import calibrate
from effnet.runtimes.onnxruntime.int8_graph import SAFE_LEVELS, WEIGHT_LEVELS, levels_here, quantize_weight, to_qdq
from effnet.runtimes.onnxruntime.int8_ranges import random_ranges
from effnet.runtimes.onnxruntime.session import open_bytes
from effnet.runtimes.registry import FORMATS
from effnet.runtimes.write import Quantization, write_export
from effnet.weights.folding import fold_norms, random_weights

pytestmark = pytest.mark.usefixtures("one_thread")
MEAN, STD = (0.485, 0.456, 0.406, 0.44), (0.229, 0.224, 0.225, 0.25)


def norm_of(spec):
    return {"mean": MEAN[: spec.in_channels], "std": STD[: spec.in_channels]}


def weighted(spec):
    return [name for name, layer in named_layers(spec) if layer.op in ("conv", "linear")]


def run(model, images):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return open_bytes(data).run(None, {"image": images})[0]


def smooth(count, side, channels=3, *, seed=0):
    """Return images of large patches: random single pixels would average out."""
    small = np.random.default_rng(seed).integers(
        0, 256, (count, -(-side // 8), -(-side // 8), channels), dtype=np.uint8
    )
    return small.repeat(8, 1).repeat(8, 2)[:, :side, :side]


def tiny(activation="silu", gate="sigmoid", *, classes=4, name="b0"):
    spec = dataclasses.replace(effnet.get_spec(name, num_classes=classes), activation=activation, se_gate=gate)
    return effnet.scale(spec, phi=-20, resolution=32)


def trained(spec, *, seed=0):
    return fold_norms(spec, state_arrays(build_trained(spec, resolution=spec.resolution, seed=seed)))


def optimized_operators(model, tmp_path):
    """Return the operators that remain after ONNX Runtime's own fusion."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


def initializers(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@settings(max_examples=24, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(), st.integers(1, 40), st.data())
def test_a_random_network_loads_and_runs_in_int8(spec, side, data):
    weights = random_weights(spec)
    kept = data.draw(st.sets(st.sampled_from(weighted(spec)), max_size=3))
    model = to_qdq(spec, weights, random_ranges(spec), resolution=side, float_layers=sorted(kept), **norm_of(spec))
    onnx.checker.check_model(model)
    found = run(model, smooth(2, side, spec.in_channels))
    assert found.shape == (2, spec.num_classes or spec.feature_channels)
    assert np.isfinite(found).all()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(), st.integers(1, 10), st.data())
def test_a_stem_written_in_pairs_gives_the_same_numbers(spec, quarter, data):
    """For any padding, channels and mean; sides that are not a multiple of four have no pairs."""
    side = 4 * quarter + data.draw(st.sampled_from((0, 0, 0, 1, 2, 3)))
    kept = data.draw(st.sampled_from(((), ("stem.conv",))))
    given_ = {"resolution": side, "float_layers": kept, **norm_of(spec)}
    weights, ranges, images = random_weights(spec), random_ranges(spec), smooth(2, side, spec.in_channels)
    plain, paired = (to_qdq(spec, weights, ranges, pair_stem=pair, **given_) for pair in (False, True))
    onnx.checker.check_model(paired)
    stem = dict(named_layers(spec))["stem.conv"]
    pairs = (stem.kernel_size, stem.stride) == (3, 2) and side % 4 == 0 and not kept
    assert (len(paired.graph.node) > len(plain.graph.node)) == pairs
    np.testing.assert_array_equal(run(paired, images), run(plain, images))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs())
def test_with_every_layer_float_it_is_the_32_bit_network(spec):
    weights = random_weights(spec)
    images = smooth(2, spec.resolution, spec.in_channels)
    kept = to_qdq(spec, weights, random_ranges(spec), float_layers=weighted(spec), **norm_of(spec))
    expected = run(to_onnx(spec, weights, **norm_of(spec)), images)
    np.testing.assert_allclose(run(kept, images), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation, gate", [
    ("silu", "sigmoid"), ("hard_swish", "hard_sigmoid"), ("relu6", "hard_sigmoid"), ("relu", "sigmoid"),
    ("silu", "hard_sigmoid"), ("relu", "hard_sigmoid"),
])  # fmt: skip
def test_each_activation_and_gate_comes_out_within_the_rounding(activation, gate):
    spec = tiny(activation, gate)
    weights, images = trained(spec), smooth(24, 32)
    ranges = calibrate(spec, weights, images, **norm_of(spec))
    expected = run(expose(to_onnx(spec, weights, **norm_of(spec)), ["classifier"]), images)
    found = run(expose(to_qdq(spec, weights, ranges, **norm_of(spec)), ["classifier"]), images)
    # Compared with the variation of the logits between images.
    assert np.abs(found - expected).mean() < 0.35 * expected.std(0).mean()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.93


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), MEAN[:3], (0.1, 0.5, 0.9)])
def test_the_image_reaches_the_first_convolution_whatever_its_mean(mean):
    """Means that are far apart cannot share a zero point: a padded image would get an edge."""
    spec = tiny("relu6", "none")
    weights, images = random_weights(spec), smooth(4, 32, seed=3)
    given_ = {"mean": mean, "std": STD[:3]}
    ranges = calibrate(spec, weights, images, **given_)
    kept = [name for name in weighted(spec) if name != "stem.conv" and "stages.0.0" not in name]
    expected = run(expose(to_onnx(spec, weights, **given_), ["stem.act"]), images)
    quantized = to_qdq(spec, weights, ranges, float_layers=kept, **given_)
    found = run(expose(quantized, ["stem.conv.dequantized"]), images)
    step = ranges["stem.act"][1] / 255 * (WEIGHT_LEVELS / levels_here())  # weights of 7 bits are less exact
    difference = np.abs(found - expected)
    inner = difference[:, :, 1:-1, 1:-1]
    assert np.percentile(inner, 99) < 2.5 * step
    assert difference.mean() < 1.2 * step


def test_of_a_stem_in_pairs_two_views_are_all_that_is_left_beside_the_convolution(tmp_path):
    spec = tiny("relu6", name="lite0")
    model = to_qdq(spec, random_weights(spec), random_ranges(spec), pair_stem=True, **norm_of(spec))
    assert optimized_operators(model, tmp_path)[:4] == ["Reshape", "QLinearConv", "Reshape", "QLinearConv"]


@pytest.mark.parametrize("activation, gate, expected", [
    ("relu6", "hard_sigmoid", {"QLinearConv", "QLinearMul", "QLinearGlobalAveragePool", "QGemm", "QLinearAdd"}),
    ("silu", "sigmoid", {"QLinearConv", "QLinearSigmoid", "QLinearMul", "QGemm", "QLinearAdd"}),
])  # fmt: skip
def test_onnx_runtime_fuses_all_of_it(activation, gate, expected, tmp_path):
    spec = dataclasses.replace(
        effnet.get_spec("b0", num_classes=10), activation=activation, se_gate=gate, resolution=32
    )
    model = to_qdq(spec, random_weights(spec), random_ranges(spec), **norm_of(spec))
    found = optimized_operators(model, tmp_path)
    assert expected <= set(found)
    assert not {"Conv", "FusedConv", "Mul", "Sigmoid", "Add", "Clip", "Gemm", "QuantizeLinear"} & set(found)
    assert found.count("QLinearConv") == sum(layer.op == "conv" for _, layer in named_layers(spec))


def test_of_efficient_channel_attention_only_a_few_numbers_are_floats(tmp_path):
    """The pool, the gate's product and the maps between stay int8; kernels run on one pixel."""
    spec = dataclasses.replace(with_eca(effnet.get_spec("b0", num_classes=10)), resolution=32)
    found = optimized_operators(to_qdq(spec, random_weights(spec), random_ranges(spec), **norm_of(spec)), tmp_path)
    blocks = len(spec.blocks)
    assert found.count("QLinearGlobalAveragePool") == blocks + 1
    assert found.count("QLinearConv") == sum(layer.op == "conv" for _, layer in named_layers(spec))
    assert {op: found.count(op) for op in ("Conv", "Sigmoid", "QuantizeLinear")} == dict.fromkeys(
        ("Conv", "Sigmoid", "QuantizeLinear"), blocks
    )
    assert not {"FusedConv", "Mul", "Add", "Clip", "Gemm"} & set(found)


def test_a_hard_swish_is_a_clip_and_a_product_of_8_bits(tmp_path):
    spec = tiny("hard_swish", "hard_sigmoid")
    found = optimized_operators(to_qdq(spec, random_weights(spec), random_ranges(spec), **norm_of(spec)), tmp_path)
    assert {"Clip", "QLinearMul"} <= set(found)
    assert not {"HardSwish", "HardSigmoid", "QuantizeLinear", "Mul", "Conv"} & set(found)


def test_float_layers_keep_weights_inputs_and_outputs_in_32_bits():
    spec = tiny()
    kept = ["stem.conv", "stages.1.0.depthwise.conv", "classifier"]
    model = to_qdq(spec, random_weights(spec), random_ranges(spec), float_layers=kept, **norm_of(spec))
    arrays, nodes = initializers(model), {node.output[0]: node for node in model.graph.node}
    for name in weighted(spec):
        stored = arrays.get(f"{name}.weight", arrays.get(f"{name}.weight.quantized"))
        assert stored.dtype == (np.float32 if name in kept else np.int8)
        if name in kept:
            assert nodes[nodes[name].input[0]].op_type != "DequantizeLinear"
            assert all(node.op_type != "QuantizeLinear" for node in model.graph.node if name in node.input)


def test_weights_have_a_scale_for_each_channel_and_fill_8_bits():
    spec = tiny()
    full = to_qdq(spec, random_weights(spec), random_ranges(spec), weight_levels=WEIGHT_LEVELS, **norm_of(spec))
    arrays = initializers(full)
    for name in weighted(spec):
        weight, scale = arrays[f"{name}.weight.quantized"], arrays[f"{name}.weight.scale"]
        assert scale.shape == (len(weight),)
        assert (np.abs(weight.reshape(len(weight), -1)).max(1) == 127).all()
        assert arrays[f"{name}.bias.quantized"].dtype == np.int32


def test_reduced_weights_have_7_bits():
    spec = tiny()
    model = to_qdq(spec, random_weights(spec), random_ranges(spec), weight_levels=SAFE_LEVELS, **norm_of(spec))
    assert max(np.abs(a).max() for n, a in initializers(model).items() if n.endswith(".weight.quantized")) == 63


@pytest.mark.parametrize("bias", [0.0, 5.0, -3e4])
def test_a_dead_channel_and_a_tiny_one_keep_their_bias(bias):
    """A scale close to 0 would make the bias overflow int32."""
    weight = np.zeros((3, 1, 1, 1), np.float32)
    weight[1], weight[2] = 1e-12, 1.0
    quantized, scales = quantize_weight(weight, least=np.full(3, abs(bias)) / 2.0**30)
    assert np.abs(np.round(bias / scales.astype(np.float64))).max() < 2**31
    np.testing.assert_allclose(quantized[:, 0, 0, 0] * scales, [0, 1e-12, 1], atol=1e-4)


def test_what_is_missing_or_unknown_is_named(monkeypatch):
    spec = tiny()
    weights, ranges = random_weights(spec), random_ranges(spec)
    with pytest.raises(SpecError, match=r"got 'stem\.con'; did you mean 'stem\.conv'"):
        to_qdq(spec, weights, ranges, float_layers=["stem.con"], **norm_of(spec))
    with pytest.raises(SpecError, match=r"finite range of stem\.act; got None: calibrate"):
        to_qdq(spec, weights, {k: v for k, v in ranges.items() if k != "stem.act"}, **norm_of(spec))
    with pytest.raises(SpecError, match=r"finite range of pool; got \(0\.0, nan\)"):
        to_qdq(spec, weights, ranges | {"pool": (0.0, float("nan"))}, **norm_of(spec))
    with pytest.raises(SpecError, match="mean and std need 3 values"):
        to_qdq(spec, weights, ranges, mean=(0.5,), std=(0.5,))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'"effnet\[train\]"'):
        to_qdq(spec, weights, ranges, **norm_of(spec))


def test_none_of_it_imports_torch(run_python):
    names = ["", "_graph", "_schemes", "_calibrate", "_bias", "_ranges"]
    modules = [f"runtimes.onnxruntime.int8{name}" for name in names]
    modules += ["runtimes.onnxruntime.writer", "compression.equalize"]
    code = "import sys; " + "; ".join(f"import effnet.{name}" for name in modules)
    done = run_python("-c", f"{code}; print(sorted({{'torch', 'matplotlib', 'onnx'}} & set(sys.modules)))")
    assert (done.code, done.out.strip()) == (0, "[]"), done.err


# Bias correction


def mean_logits(model, images, output="classifier"):
    return open_bytes(expose(model, [output])).run(None, {"image": images})[0].mean(0)


def test_full_bias_correction_brings_the_means_back():
    spec = tiny("relu6", "hard_sigmoid", classes=6)
    weights, images = trained(spec), smooth(32, 32)
    ranges = calibrate(spec, weights, images, **norm_of(spec))
    expected = mean_logits(to_onnx(spec, weights, **norm_of(spec)), images)
    corrected = correct_full(spec, weights, ranges, images, threads=1, **norm_of(spec))

    def error(some):
        return np.abs(mean_logits(to_qdq(spec, some, ranges, **norm_of(spec)), images) - expected).mean()

    assert error(corrected) < 0.25 * error(weights)
    assert all((corrected[k] == weights[k]).all() for k in weights if k.endswith(".weight"))


def rounded_weight(weight):
    quantized, scales = quantize_weight(weight, levels=levels_here())
    return quantized * scales.reshape((-1,) + (1,) * (weight.ndim - 1))


def test_fast_bias_correction_takes_back_what_rounding_weights_does():
    spec = tiny("relu", "none")
    weights, images = trained(spec), smooth(32, 32)
    corrected = correct_fast(spec, weights, images, float_layers=["classifier"], **norm_of(spec))
    rounded = {name: array if array.ndim == 1 else rounded_weight(array) for name, array in weights.items()}
    name = "stages.0.0.depthwise.conv"  # after the stem only, whose rounding is left out

    def mean_of(bias, kernel):
        some = weights | {f"{name}.weight": kernel[f"{name}.weight"], f"{name}.bias": bias[f"{name}.bias"]}
        model = to_onnx(spec, some, **norm_of(spec))
        return open_bytes(expose(model, [name])).run(None, {"image": images})[0].mean((0, 2, 3))

    expected = mean_of(weights, weights)
    before, after = (np.abs(mean_of(bias, rounded) - expected).max() for bias in (weights, corrected))
    assert after < 0.01 * before
    assert (corrected["classifier.bias"] == weights["classifier.bias"]).all()


# Equalization


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(min_classes=1))
def test_equalization_changes_no_output(spec):
    spec = dataclasses.replace(spec, activation="relu")
    weights, images = random_weights(spec), smooth(2, spec.resolution, spec.in_channels)
    outputs = [run(to_onnx(spec, w, **norm_of(spec)), images) for w in (weights, equalize(spec, weights))]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)


def test_equalization_undoes_channels_of_very_unequal_size():
    spec = tiny("relu", "hard_sigmoid")
    weights, images = trained(spec), smooth(24, 32)
    first, second = "stages.1.0.expand.conv", "stages.1.0.depthwise.conv"
    factor = np.logspace(-1.5, 1.5, len(weights[f"{first}.bias"])).astype(np.float32)
    spoiled = weights | {
        f"{first}.weight": weights[f"{first}.weight"] * factor[:, None, None, None],
        f"{first}.bias": weights[f"{first}.bias"] * factor,
        f"{second}.weight": weights[f"{second}.weight"] / factor[:, None, None, None],
    }
    expected = run(to_onnx(spec, weights, **norm_of(spec)), images)

    def error(some):
        ranges = calibrate(spec, some, images, **norm_of(spec))
        return np.abs(run(to_qdq(spec, some, ranges, **norm_of(spec)), images) - expected).mean()

    np.testing.assert_allclose(run(to_onnx(spec, spoiled, **norm_of(spec)), images), expected, atol=1e-4)
    assert error(equalize(spec, spoiled)) < 0.7 * error(spoiled)


@pytest.mark.parametrize("activation", ["silu", "relu6", "hard_swish"])
def test_equalization_refuses_what_factors_do_not_pass_through(activation):
    spec = tiny(activation)
    with pytest.raises(SpecError, match=f"needs the activation relu.* has {activation}"):
        equalize(spec, random_weights(spec))


# Weight-only quantization


@pytest.mark.parametrize("store, ratio, tolerance", [(store_int8, 0.30, 0.05), (store_half, 0.52, 0.005)])
def test_weights_alone_are_smaller_and_as_good(store, ratio, tolerance, tmp_path):
    spec = effnet.scale(effnet.get_spec("b0", num_classes=5), phi=-6, resolution=32)
    weights, images = random_weights(spec), smooth(8, 32)
    whole, small = (to_onnx(spec, weights, parameter=p, **norm_of(spec)) for p in (None, store))
    assert len(small.SerializeToString()) < ratio * len(whole.SerializeToString())
    assert np.abs(run(small, images) - run(whole, images)).max() < tolerance
    # Computed when the model loads, so that nothing is slower than in fp32.
    assert sorted(optimized_operators(small, tmp_path)) == sorted(optimized_operators(whole, tmp_path))


# A bundle's exports


def digits(bundle, part, count):
    preprocess = read_config(bundle).preprocess
    split = getattr(read_dataset("digits", channels=preprocess.channels), part)
    images = [load_image(split, i, channels=preprocess.channels) for i in range(min(count, len(split)))]
    return np.stack([resize_and_crop(image, preprocess) for image in images]), split.labels[: len(images)]


@pytest.mark.parametrize("name", ["onnx-int8", "onnx-w8", "onnx-fp16"])
def test_a_bundles_small_exports_predict_as_it_does(bundle_copy, name):
    config, (images, labels) = read_config(bundle_copy), digits(bundle_copy, "test", 200)
    calibration, _ = digits(bundle_copy, "train", 64)
    path = write_export(name, bundle_copy, config, load_state(bundle_copy), images=calibration)
    assert path == bundle_copy / FORMATS[name].file
    expected, found = (run((bundle_copy / file).read_bytes(), images) for file in ("model.onnx", FORMATS[name].file))
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert (found.argmax(1) == labels).mean() > (expected.argmax(1) == labels).mean() - 0.03
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    stored = session.get_modelmeta().custom_metadata_map
    assert json.loads(stored["class_names"]) == list(config.class_names)
    assert json.loads(stored["preprocess"]) == config.preprocess.to_dict()
    assert stored["precision"] == FORMATS[name].precision


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("correction", ["none", "fast", "full"])
def test_every_way_to_quantize_gives_a_file_that_works(bundle_copy, method, correction):
    config, (images, _) = read_config(bundle_copy), digits(bundle_copy, "test", 100)
    calibration, _ = digits(bundle_copy, "train", 32)
    asked = Quantization(method=method, bias_correction=correction, float_layers=("classifier",))
    path = write_export(
        "onnx-int8", bundle_copy, config, load_state(bundle_copy), images=calibration, quantization=asked
    )
    expected, found = (run(file.read_bytes(), images) for file in (bundle_copy / "model.onnx", path))
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_int8_needs_images_and_a_classifier(bundle_copy):
    config, state = read_config(bundle_copy), load_state(bundle_copy)
    with pytest.raises(InputError, match="must be calibrated on images"):
        write_export("onnx-int8", bundle_copy, config, state)
    headless = dataclasses.replace(config, arch=dataclasses.replace(config.arch, num_classes=0), class_names=())
    with pytest.raises(SpecError, match="has no classifier"):
        write_export("onnx-w8", bundle_copy, headless, state)
    assert not (bundle_copy / "model.int8.onnx").exists()


def test_the_same_images_give_the_same_bytes(bundle_copy):
    config, state, (images, _) = read_config(bundle_copy), load_state(bundle_copy), digits(bundle_copy, "train", 16)
    files = [write_export("onnx-int8", bundle_copy, config, state, images=images).read_bytes() for _ in range(2)]
    assert files[0] == files[1]
