"""Fake quantization in torch against ONNX Runtime's int8, and quantization-aware training."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patterns import LEARNING, patterns
from static_int8 import write_static
from strategies import build_trained, specs
from tiny_runs import PREPROCESS

from effnet.compression.fake_quant import (
    FakeQuantize,
    RoundedConv2d,
    calibrate_,
    round_,
    rounded_values,
    rounded_weight,
)
from effnet.compression.qat import rounded_network, sensitive_layers, train_rounded
from effnet.compression.recovery import network_of, recovery_recipe, save_teacher
from effnet.compression.tools import tools_of
from effnet.measurement.sample import calibration_images
from effnet.runtimes.onnxruntime.int8_graph import SAFE_LEVELS, WEIGHT_LEVELS, quantize_weight
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.write import Quantization
from effnet.training.device import to_input

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return patterns()


@pytest.fixture(scope="module")
def images(data):
    return calibration_images(data.train, PREPROCESS, class_names=data.class_names)


@pytest.fixture(scope="module")
def held_out(data):
    return np.stack(list(data.test.sources))


def in_onnx_runtime(subject, images, held_out, folder, name="onnx-int8", **quantization):
    write_static(name, folder, subject, images, Quantization(**quantization))
    return Predictor(folder, format=name).probabilities(held_out)


@torch.no_grad()
def in_torch(network, held_out):
    return network(to_input(held_out, PREPROCESS, torch.device("cpu"))).softmax(1).numpy()


def test_rounding_in_torch_says_what_onnx_runtime_does(good, fragile, data, images, held_out, tmp_path):
    """The float network is right, and wrong in both once it is quantized; a robust network stays right in both."""
    labels = data.test.labels
    plain = in_onnx_runtime(fragile, images, held_out, tmp_path / "plain", name="onnx")
    found = in_onnx_runtime(fragile, images, held_out, tmp_path / "int8")
    simulated = in_torch(rounded_network(fragile, images), held_out)
    right, int8, rounded = ((p.argmax(1) == labels).mean() for p in (plain, found, simulated))
    assert right > 0.85
    assert int8 < right - 0.15
    assert abs(int8 - rounded) < 0.15
    # Their errors agree, far more than each does with the float network.
    assert np.abs(found - simulated).mean() < 0.5 * np.abs(found - plain).mean()
    sound = in_torch(rounded_network(good, images), held_out)
    assert np.abs(sound - in_onnx_runtime(good, images, held_out, tmp_path / "good")).max() < 0.15


def test_training_rounded_beats_rounding_after_training(fragile, data, images, held_out, tmp_path):
    """In ONNX Runtime, on images used neither for training nor for model selection."""
    teacher = save_teacher(fragile, tmp_path / "teacher")
    recipe = dataclasses.replace(recovery_recipe(data, PREPROCESS, epochs=5, teacher=teacher), augment=LEARNING.augment)
    trained = train_rounded(fragile, data, images, recipe, folder=tmp_path / "run")
    assert set(trained.state) == set(fragile.state)
    labels = data.test.labels
    accuracy = [
        (in_onnx_runtime(subject, images, held_out, tmp_path / name).argmax(1) == labels).mean()
        for name, subject in (("before", fragile), ("after", trained))
    ]
    assert accuracy[1] > accuracy[0] + 0.1


def test_the_layers_that_were_spoiled_are_the_most_sensitive(fragile, good, images):
    spoiled = {"stages.1.0.depthwise.conv", "stages.2.0.depthwise.conv"}
    spoiled &= {name for name, _ in sensitive_layers(good, images)}
    ranked = sensitive_layers(fragile, images)
    assert {name for name, _ in ranked[: len(spoiled)]} == spoiled
    assert dict(ranked)["stages.1.0.depthwise.conv"] > 20 * dict(sensitive_layers(good, images))["stem.conv"]


def test_float_layers_are_computed_as_before(good, images, held_out):
    """With every layer float no input or output of a convolution is rounded; only sums and products are."""
    names = [name for name, _ in sensitive_layers(good, images)]
    network = rounded_network(good, images, float_layers=names)
    plain = network_of(good)
    assert not any(type(module) is RoundedConv2d for module in network.modules())
    np.testing.assert_allclose(in_torch(network, held_out), in_torch(plain, held_out), atol=0.05)


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_a_weight_is_rounded_within_half_a_step_of_its_channel(seed, channels):
    weight = torch.randn(channels, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 10 ** (seed % 7 - 3)
    largest = weight.abs().flatten(1).amax(1)[:, None, None, None]
    for levels in (WEIGHT_LEVELS, SAFE_LEVELS):
        rounded = rounded_weight(weight, levels=levels)
        assert ((rounded - weight).abs() <= 0.5001 * largest / levels).all()
        _, scales = quantize_weight(weight.numpy(), levels=levels)  # the export's
        steps = rounded.numpy() / scales.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(steps, steps.round(), atol=1e-3)


@pytest.mark.parametrize("saturates", [True, False])
def test_training_rounds_weights_to_the_levels_of_the_export(saturates, good, images, monkeypatch):
    """Regression: for ONNX Runtime on x86 without VNNI, which gets weights of 7 bits, it rounded to 8."""
    monkeypatch.setattr("effnet.runtimes.onnxruntime.int8_graph.int8_saturates", lambda: saturates)
    ranked = tools_of("onnxruntime").rank_layers(good, images[:8])
    assert ranked == sensitive_layers(good, images[:8], weight_levels=63 if saturates else 127)
    assert ranked != sensitive_layers(good, images[:8], weight_levels=127 if saturates else 63)
    assert tools_of("onnxruntime").train_rounded.keywords == {"weight_levels": 63 if saturates else 127}
    assert tools_of("litert").train_rounded.keywords == {"weight_levels": 127}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_map_is_rounded_to_256_values_zero_among_them(dtype):
    quantizer = FakeQuantize().eval()
    quantizer.low.fill_(-0.28)
    quantizer.high.fill_(5.0)
    x = torch.linspace(-1, 6, 5001).to(dtype).requires_grad_()
    found = quantizer(x)
    found.float().sum().backward()
    assert found.dtype == dtype
    assert found.unique().numel() == 256
    assert (found == 0).any()
    assert float(found.detach().min()) == pytest.approx(-0.28, abs=0.02)
    inside = (x > -0.25) & (x < 4.95)
    assert (x.grad[inside] == 1).all()
    assert (x.grad[(x < -0.31) | (x > 5.05)] == 0).all()


def test_ranges_follow_the_batches_and_stay_after_a_while():
    quantizer = FakeQuantize().train()
    quantizer.high.fill_(1.0)
    quantizer(torch.tensor([0.0, 3.0]))
    assert float(quantizer.high) == pytest.approx(0.95 + 0.05 * 3)
    for _ in range(300):
        quantizer(torch.tensor([0.0, 3.0]))
    settled = float(quantizer.high)
    assert settled == pytest.approx(3, abs=1e-3)
    quantizer(torch.tensor([0.0, 100.0]))
    assert float(quantizer.high) == settled
    assert float(quantizer.eval()(torch.tensor([100.0]))) == pytest.approx(settled, rel=1e-4)


def test_rounding_a_weight_passes_its_gradient_on():
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    (rounded_weight(weight) * 2).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 2.0))


def test_rounding_before_a_norm_is_folded_is_rounding_after(good):
    """Therefore the network may keep its BatchNorm layers during QAT."""
    weight, gain = torch.randn(6, 2, 3, 3), torch.randn(6)[:, None, None, None]
    torch.testing.assert_close(rounded_weight(weight * gain), rounded_weight(weight) * gain, rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(specs(min_classes=2))
def test_every_network_can_be_rounded(spec):
    """All kinds of blocks, activations and gates: every rounded value has its own module."""
    network = build_trained(spec, resolution=32)
    names = set(network.state_dict())
    pixels = torch.randn(2, spec.in_channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(pixels)
        round_(network)
        calibrate_(network, pixels)
        asked = set()
        for name, quantizer in network.ranges.items():
            quantizer.register_forward_hook(lambda module, args, output, name=name: asked.add(name))
        after = network(pixels)
    assert len(network.ranges) == len(rounded_values(spec))
    assert names <= set(network.state_dict())
    assert asked == set(network.ranges)
    assert after.shape == before.shape
    assert after.isfinite().all()
