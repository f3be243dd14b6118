"""Adapted weights: grey images and equal channels give the output of RGB; folded BatchNorms are detected."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_trained

import effnet
from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.errors import WeightsError
from effnet.nn.network import build
from effnet.weights.adapt import adapt_statistics, adapt_stem, drop_background, has_folded_norms, replace_head
from effnet.weights.identify import identify
from effnet.weights.readers.files import read_arrays
from effnet.weights.schemes import to_effnet

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "weights"
LITE0 = SHARED / "tf_efficientnet_lite0_headless.safetensors"
SPEC = effnet.scale(get_spec("b0", num_classes=7), phi=-20, resolution=32)


def with_channels(spec: ArchSpec, channels: int) -> ArchSpec:
    import dataclasses

    return dataclasses.replace(spec, in_channels=channels)


@pytest.fixture(scope="module")
def trained():
    return build_trained(SPEC, resolution=32)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 12])
def test_equal_channels_give_what_a_grey_image_in_rgb_gave(trained, channels):
    state = state_arrays(trained)
    state["stem.conv.weight"] = adapt_stem(state["stem.conv.weight"], channels=channels)
    adapted = build(with_channels(SPEC, channels)).eval()
    load_arrays_(adapted, state, where="adapted")
    grey = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = trained(grey.expand(-1, 3, -1, -1))
    found = adapted(grey.expand(-1, channels, -1, -1))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.std() > 1e-2


@given(channels=st.integers(1, 20), seed=st.integers(0, 9))
def test_every_channel_is_read_and_the_sum_is_kept(channels, seed):
    kernel = np.random.default_rng(seed).standard_normal((5, 3, 3, 3), dtype=np.float32)
    found = adapt_stem(kernel, channels=channels)
    assert found.shape == (5, channels, 3, 3)
    assert found.dtype == np.float32
    assert np.abs(found).sum(axis=(0, 2, 3)).min() > 0
    np.testing.assert_allclose(found.sum(axis=1), kernel.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_the_formulas():
    kernel = np.float32([1, 10, 100]).reshape(1, 3, 1, 1)

    def adapted(channels):
        return adapt_stem(kernel, channels=channels).ravel().tolist()

    assert adapted(1) == [111]
    assert adapted(2) == [51, 60]
    assert adapted(3) == [1, 10, 100]
    assert adapted(4) == [0.5, 10, 100, 0.5]
    assert adapted(6) == [0.5, 5, 50, 0.5, 5, 50]
    assert adapt_statistics((0.2, 0.4, 0.6), channels=1) == pytest.approx((0.4,))
    assert adapt_statistics((0.2, 0.4, 0.6), channels=2) == pytest.approx((1 / 3, 7 / 15))
    assert adapt_statistics((0.2, 0.4, 0.6), channels=4) == pytest.approx((0.2, 0.4, 0.6, 0.2))
    assert adapt_statistics((0.5, 0.5, 0.5), channels=5) == (0.5,) * 5


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: adapt_stem(np.zeros((8, 1, 3, 3)), channels=4), r"must read 3 channels to be adapted to 4; got shape"),
        (lambda: adapt_stem(np.zeros((8, 3, 3, 3)), channels=0), "must read at least 1 channel; got 0"),
        (lambda: adapt_statistics((0.5,), channels=2), "must be given for 3 channels; got 1"),
        (lambda: drop_background({"classifier.weight": np.zeros((1, 4)), "classifier.bias": np.zeros(1)}), r"\[1, 1\]"),
        (lambda: drop_background({}), "needs a classifier of at least 2 classes; got none"),
    ],
)
def test_what_cannot_be_adapted(call, words):
    with pytest.raises(WeightsError, match=words):
        call()


def test_a_new_head_calls_all_classes_equally_likely(trained):
    state = replace_head(state_arrays(trained), SPEC, num_classes=4)
    network = build(effnet.scale(get_spec("b0", num_classes=4), phi=-20, resolution=32)).eval()
    load_arrays_(network, state, where="new head")
    assert torch.equal(network(torch.randn(2, 3, 32, 32)), torch.zeros(2, 4))
    headless = replace_head(state, SPEC, num_classes=0)
    assert set(state) - set(headless) == {"classifier.weight", "classifier.bias"}
    assert np.array_equal(headless["stem.conv.weight"], state_arrays(trained)["stem.conv.weight"])


def test_the_background_is_the_first_class(trained):
    state = state_arrays(trained)
    cut = drop_background(state)
    network = build(effnet.scale(get_spec("b0", num_classes=6), phi=-20, resolution=32)).eval()
    load_arrays_(network, cut, where="cut")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(images), trained(images)[:, 1:], atol=1e-5)
    assert len(state["classifier.bias"]) == 7


def test_trained_norms_are_not_folded_and_neutral_ones_are(trained):
    state = state_arrays(trained)
    assert not has_folded_norms(state, SPEC)
    assert not has_folded_norms(state_arrays(build(SPEC)), SPEC)  # variance 1 is not 1 - epsilon
    for name in state:
        if ".norm." in name:
            value = {"running_mean": 0, "running_var": 1 - SPEC.norm_epsilon, "weight": 1}.get(name.rpartition(".")[2])
            if value is not None:
                state[name] = np.full_like(state[name], value)
    assert has_folded_norms(state, SPEC)
    state["head.norm.running_mean"][0] = 1e-3
    assert not has_folded_norms(state, SPEC)


@pytest.mark.skipif(not LITE0.is_file(), reason=f"{LITE0.name} is absent from the folder {SHARED.parent.name}")
def test_a_real_file_with_folded_norms():
    arrays = read_arrays(LITE0)
    scheme, spec = identify(arrays, name_hint=str(LITE0))
    assert (scheme, spec) == ("timm", get_spec("tf_efficientnet_lite0", num_classes=0))
    state = to_effnet(arrays, spec, scheme=scheme, where=str(LITE0))
    assert has_folded_norms(state, spec)
    with torch.no_grad():
        network = build(spec).eval()
        load_arrays_(network, state, where=str(LITE0))
        features = network(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (1, 1280)
    assert torch.isfinite(features).all()
    assert features.std() > 1e-3
