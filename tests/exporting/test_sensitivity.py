"""Sensitivity: the layer that int8 harms is found, and what is told of it is what keeping it float does."""

import numpy as np
import pytest
from PIL import Image
from strategies import build_trained, state_arrays

import effnet
from effnet.errors import InputError, SpecError
from effnet.exporting.calibrate import calibrate
from effnet.exporting.onnx import to_onnx
from effnet.exporting.qdq_graph import to_qdq
from effnet.exporting.sensitivity import (
    LayerSensitivity,
    blocks_of,
    kl_divergence,
    save_sensitivity,
    sensitivity,
    sensitivity_figure,
)
from effnet.exporting.weights import fold_norms
from effnet.runtime.session import open_bytes

pytestmark = pytest.mark.usefixtures("one_thread")
NORM = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
# It reads what was given too wide a range.
HARMED = "stages.3.0.depthwise.conv"


def run(model, images):
    return open_bytes(model.SerializeToString()).run(None, {"image": images})[0]


@pytest.fixture(scope="module")
def harmed():
    """A network, pictures and ranges of which one is a hundred times too wide."""
    spec = effnet.scale(effnet.get_spec("b0", num_classes=4), phi=-20, resolution=32)
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=32)))
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    ranges = calibrate(spec, weights, images, **NORM)
    ranges["stages.3.0.expand.act"] = (-0.2785, 100 * ranges["stages.3.0.expand.act"][1])
    return spec, weights, ranges, images


def test_the_harmed_layer_comes_first_and_its_gain_is_real(harmed):
    spec, weights, ranges, images = harmed
    told = []
    found = sensitivity(
        spec, weights, ranges, images, worst_blocks=1, threads=1, progress=lambda *both: told.append(both), **NORM
    )
    assert found[0].name == HARMED
    assert [part.gain for part in found] == sorted((part.gain for part in found), reverse=True)
    wanted = run(to_onnx(spec, weights, **NORM), images)
    whole, left = (
        kl_divergence(wanted, run(to_qdq(spec, weights, ranges, float_layers=kept, **NORM), images))
        for kept in ((), found[0].layers)
    )
    assert found[0].divergence == pytest.approx(left, rel=1e-6)
    assert found[0].gain == pytest.approx(whole - left, rel=1e-6)
    assert found[0].gain > 0.5 * whole
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_parts_are_all_layers_once(harmed):
    spec, weights, ranges, images = harmed
    found = sensitivity(spec, weights, ranges, images[:2], worst_blocks=1, threads=1, **NORM)
    layers = [layer for part in found for layer in part.layers]
    assert sorted(layers) == sorted(layer for block in blocks_of(spec).values() for layer in block)


def test_what_cannot_be_compared_is_refused(harmed):
    spec, weights, ranges, images = harmed
    with pytest.raises(InputError, match="at least one picture"):
        sensitivity(spec, weights, ranges, images[:0], **NORM)
    headless = effnet.scale(effnet.get_spec("b0", num_classes=0), phi=-20, resolution=32)
    with pytest.raises(SpecError, match="no classifier"):
        sensitivity(headless, weights, ranges, images, **NORM)


def test_equal_probabilities_do_not_diverge():
    p = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    assert kl_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert kl_divergence(p, p[:, ::-1]) > 0.5


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_plot_shows_the_greatest_gains_first(suffix, tmp_path):
    found = [
        LayerSensitivity(name=f"stages.{i}.0", layers=("a", "b")[: 1 + i % 2], divergence=0.1, gain=0.01 * i - 0.02)
        for i in range(8)
    ]
    path = tmp_path / f"plot{suffix}"
    save_sensitivity(found, path, most=5)
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.size[0] > 1000
        return
    text = path.read_text()
    shown = [f"stages.{i}.0" for i in range(8) if f"<!-- stages.{i}.0 -->" in text]
    assert shown == [f"stages.{i}.0" for i in range(3, 8)]
    axes = sensitivity_figure(found, most=5).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == shown[::-1]
    assert [bar.get_width() for bar in axes.patches] == [part.gain for part in found[:2:-1]]
