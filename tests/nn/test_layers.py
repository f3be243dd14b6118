import numpy as np
import pytest
import torch
from torch.nn import functional

from effnet.arch.catalog import get_spec
from effnet.arch.layers import Layer
from effnet.nn.layers import ChannelAttention, DropPath, GlobalPool, SameConv2d, make_module


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding of one axis. Source: tf.nn.convolution, "SAME"."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(
    "size, kernel, pads",
    [(224, 3, (0, 1)), (224, 5, (1, 2)), (225, 3, (1, 1)), (225, 5, (2, 2)), (8, 7, (2, 3)), (7, 1, (0, 0))],
)
def test_the_reference_gives_the_pads_of_the_original_code(size, kernel, pads):
    assert same_pads(size, kernel, 2) == pads


@pytest.mark.parametrize("height, width", [(8, 8), (7, 7), (8, 5), (1, 6), (1, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [2, 3])
def test_same_convolutions_pad_like_tensorflow(height, width, kernel, stride):
    convolution = SameConv2d(2, 3, kernel, stride=stride)
    x = torch.randn(2, 2, height, width)
    top, bottom = same_pads(height, kernel, stride)
    left, right = same_pads(width, kernel, stride)
    padded = functional.pad(x, (left, right, top, bottom))
    expected = functional.conv2d(padded, convolution.weight, convolution.bias, stride=stride)
    found = convolution(x)
    assert found.shape == (2, 3, -(-height // stride), -(-width // stride))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_on_even_sizes_same_and_symmetric_padding_differ_by_one_pixel_and_on_odd_ones_agree():
    same = SameConv2d(1, 1, 3, stride=2, bias=False)
    for size, equal in ((8, False), (9, True)):
        x = torch.randn(1, 1, size, size)
        symmetric = functional.conv2d(x, same.weight, stride=2, padding=1)
        assert symmetric.shape == same(x).shape
        assert torch.equal(symmetric, same(x)) is equal
    shifted = functional.conv2d(functional.pad(x := torch.randn(1, 1, 8, 8), (0, 1, 0, 1)), same.weight, stride=2)
    assert torch.equal(shifted, same(x))


@pytest.mark.parametrize("name, kind", [("b0", SameConv2d), ("efficientnet_b0", torch.nn.Conv2d)])
def test_only_strided_convolutions_of_official_networks_pad_dynamically(name, kind):
    spec = get_spec(name)
    strided = make_module(Layer("conv", ("x",), 4, 4, 5, 2, 4), spec, norm_momentum=0.1)
    plain = make_module(Layer("conv", ("x",), 4, 4, 5, 1, 4), spec, norm_momentum=0.1)
    assert type(strided) is kind
    assert type(plain) is torch.nn.Conv2d
    assert plain.padding == (2, 2)
    assert strided.groups == 4


def test_norms_take_the_specs_epsilon_and_the_callers_momentum():
    norm = make_module(Layer("norm", ("x",), 4, 4), get_spec("b0"), norm_momentum=0.01)
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    assert make_module(Layer("norm", ("x",), 4, 4), get_spec("resnet18"), norm_momentum=0.1).eps == 1e-5


def test_an_operation_without_a_module_is_refused():
    with pytest.raises(ValueError, match="no module for a layer of kind 'mul'"):
        make_module(Layer("mul", ("x", "y"), 4, 4), get_spec("b0"), norm_momentum=0.1)


def test_global_pooling_is_the_mean_over_both_axes():
    x = torch.randn(2, 3, 4, 5)
    np.testing.assert_allclose(GlobalPool()(x).numpy(), x.numpy().mean((2, 3), keepdims=True), rtol=1e-5, atol=1e-6)


def test_squeeze_and_excitation_scales_whole_channels_by_a_gate():
    gate = ChannelAttention(GlobalPool(), torch.nn.Conv2d(3, 3, 1), torch.nn.Sigmoid())
    x = torch.randn(2, 3, 4, 4)
    factor = gate(x) / x
    assert torch.allclose(factor, factor.mean((2, 3), keepdim=True), rtol=1e-4)
    assert ((factor > 0) & (factor < 1)).all()


def test_drop_path_drops_whole_images_and_scales_the_others_up():
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(4000, 2, 3, 3))
    per_image = dropped.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    kept = per_image[:, 0]
    assert torch.allclose(kept.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert 0.22 < (kept == 0).float().mean() < 0.28
    assert abs(kept.mean() - 1) < 0.04


def test_drop_path_does_nothing_in_evaluation_or_at_rate_zero():
    x = torch.randn(8, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    assert "rate=0.250" in repr(DropPath(0.25))
