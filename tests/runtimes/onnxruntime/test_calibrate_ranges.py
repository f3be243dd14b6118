"""Ranges: the outputs of eager torch, trimmed as each method says."""

import dataclasses

import numpy as np
import pytest
import torch
from strategies import build_trained, state_arrays

import effnet
from effnet.data.preprocess import Preprocess, normalize
from effnet.errors import InputError
from effnet.runtimes.onnxruntime import int8_calibrate as module
from effnet.runtimes.onnxruntime.int8_calibrate import calibrate
from effnet.runtimes.onnxruntime.int8_ranges import affine, hard_swish_input, random_ranges, silu, silu_input
from effnet.runtimes.onnxruntime.int8_schemes import ranged_layers
from effnet.weights.folding import fold_norms

pytestmark = pytest.mark.usefixtures("one_thread")
NORM = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


@pytest.fixture(scope="module", params=[("silu", "sigmoid"), ("relu6", "hard_sigmoid")], ids=str)
def network(request):
    activation, gate = request.param
    spec = dataclasses.replace(effnet.get_spec("b0", num_classes=3), activation=activation, se_gate=gate)
    return build_trained(effnet.scale(spec, phi=-20, resolution=32), resolution=32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def found(network, images, **options):
    return calibrate(network.spec, fold_norms(network.spec, state_arrays(network)), images, **NORM, **options)


def eager_outputs(network, images):
    outputs, hooks = {}, []

    def keep(name):
        def hook(module, inputs, output):
            outputs[name] = output.numpy()

        return hook

    for name, part in network.named_modules():
        hooks.append(part.register_forward_hook(keep(name)))
    preprocess = Preprocess(resolution=32, mean=NORM["mean"], std=NORM["std"])
    with torch.no_grad():
        network(torch.from_numpy(normalize(images, preprocess)).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return outputs


def test_the_extremes_are_those_of_the_eager_network(network, images):
    outputs, ranges = eager_outputs(network, images), found(network, images)
    assert set(ranges) == set(ranged_layers(network.spec))
    names = [name for name in ranges if name.endswith(".act") and name in outputs]
    names += [f"{name}.conv" for name in ("stages.0.0.project",)]
    assert len(names) > 10
    for name in names:
        # The BatchNorm after a convolution is folded into it.
        values = outputs[name.replace("project.conv", "project.norm")]
        np.testing.assert_allclose(ranges[name], (values.min(), values.max()), rtol=1e-3, atol=1e-4)


def test_trimmed_ranges_lie_within_the_extremes(network, images):
    whole = found(network, images)
    for method in ("percentile", "entropy"):
        for name, (low, high) in found(network, images, method=method).items():
            assert whole[name][0] - 1e-5 <= low <= high <= whole[name][1] + 1e-5


def test_an_outlier_is_trimmed_and_a_plain_range_is_not():
    rng = np.random.default_rng(0)
    plain = rng.uniform(-1, 1, 200_000)
    for values, trimmed in ((plain, False), (np.append(rng.normal(0, 1, 200_000), 100.0), True)):
        low, high = float(values.min()), float(values.max())
        bins = np.histogram(values, 2048, (low, high))[0]
        for find in (module._percentiles, module._least_divergence):
            assert (find(bins, low, high)[1] < 0.2 * high) is trimmed


def test_the_same_images_give_the_same_ranges_and_progress_is_told(network, images):
    told = []
    first = found(network, images, method="percentile", progress=lambda *both: told.append(both))
    assert first == found(network, images, method="percentile")
    assert told[-1] == (12, 12)


def test_without_images_or_with_damaged_weights_it_says_so(network, images):
    with pytest.raises(InputError, match="at least one image"):
        found(network, images[:0])
    weights = fold_norms(network.spec, state_arrays(network))
    weights["stem.conv.weight"] = np.full_like(weights["stem.conv.weight"], np.nan)
    with pytest.raises(InputError, match=r"needs finite outputs; those of stem\.\w+ are not"):
        calibrate(network.spec, weights, images, **NORM)


def test_random_ranges_have_all_that_is_needed(network):
    assert set(ranged_layers(network.spec)) <= set(random_ranges(network.spec))


@pytest.mark.parametrize("low, high", [(0, 6), (-1, 3), (2, 5), (-4, -1), (0, 0), (-1e-30, 1e-30)])
def test_a_scale_tells_zero_exactly_and_covers_its_range(low, high):
    scheme = affine(low, high)
    assert 0 <= scheme.zero_point <= 255
    assert scheme.limits[0] <= low + scheme.scale
    assert scheme.limits[1] >= high - scheme.scale


@pytest.mark.parametrize("low, high", [(-30.0, 8.0), (-2.0, 1.0), (-9.0, 40.0)])
def test_before_silu_only_what_the_output_can_tell_apart_is_kept(low, high):
    output = affine(-0.2785, silu(high))
    scheme = silu_input(low, high, output)
    for x in np.linspace(low, high, 1000):
        q = np.clip(round(x / scheme.scale) + scheme.zero_point, 0, 255)
        # Half a step of the input, with a slope of at most 1.1, and the clipped part.
        assert abs(silu(scheme.scale * (q - scheme.zero_point)) - silu(x)) < 0.56 * scheme.scale + 0.6 * output.scale
    assert scheme.scale <= affine(low, high).scale


def test_before_hard_swish_zero_stands_for_minus_three():
    scheme = hard_swish_input(7.3, affine(-0.375, 7.3))
    assert scheme.limits[0] == pytest.approx(-3, abs=1e-5)
    assert scheme.limits[1] == pytest.approx(7.3, abs=0.1)
