"""Importance: first-order Taylor against actual removal, weight criteria against their definitions."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import build_trained, specs

from effnet import get_spec
from effnet.arch.channels import tied_widths
from effnet.arch.scale import scale, with_total_stride
from effnet.bundle.weights import state_arrays
from effnet.compression.importance import taylor_importance, weight_importance
from effnet.errors import InputError
from effnet.nn.network import build
from effnet.training.losses import Batch, cross_entropy

SIDE = 24


def tiny(name):
    spec = scale(get_spec(name, num_classes=4), width=0.1, depth=0.4, resolution=64)
    return dataclasses.replace(with_total_stride(spec, 8), resolution=SIDE)


def batches(spec, count=2, size=8, side=SIDE):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        images = torch.randn(size, spec.in_channels, side, side, generator=generator)
        yield Batch(images=images, labels=torch.randint(spec.num_classes, (size,), generator=generator))


@settings(max_examples=12, deadline=None)
@given(spec=specs(min_classes=2))
def test_every_channel_of_any_network_gets_a_finite_importance(spec):
    network = build_trained(spec, resolution=SIDE)
    state = state_arrays(network)
    found = [weight_importance(spec, state, method=method) for method in ("l1", "l2", "bn")]
    found.append(taylor_importance(network, batches(spec, count=1), cross_entropy()))
    identities = sum(block.residual == "identity" for block in spec.blocks)
    for importance in found:
        assert {name: len(v) for name, v in importance.channels.items()} == {
            tie.name: tie.channels for tie in tied_widths(spec)
        }
        assert all(np.isfinite(v).all() and (v >= 0).all() for v in importance.channels.values())
        assert len(importance.blocks) == identities


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_s"])
def test_taylor_predicts_what_a_small_step_towards_removal_does_to_the_loss(name):
    """One image: scaling a channel by 1 - e after its last module changes the loss by e times its importance."""
    spec = tiny(name)
    network = build_trained(spec, resolution=SIDE).double()
    (batch,) = batches(spec, count=1, size=1)
    batch = dataclasses.replace(batch, images=batch.images.double())
    loss_fn = cross_entropy()
    importance = taylor_importance(network, [batch], loss_fn)
    before = float(loss_fn(network, batch).detach())
    step = 1e-5
    for channel in (0, 3, 7):

        def shrink(module, inputs, output, channel=channel):
            factor = torch.ones(output.shape[1], dtype=output.dtype)
            factor[channel] = 1 - step
            return output * factor[:, None, None]

        handle = network.head.register_forward_hook(shrink)
        after = float(loss_fn(network, batch).detach())
        handle.remove()
        assert abs(after - before) / step == pytest.approx(importance.channels["head"][channel], rel=1e-3, abs=1e-9)


def test_a_channel_that_nothing_reads_matters_least_to_taylor():
    spec = tiny("b0")
    network = build_trained(spec, resolution=SIDE)
    with torch.no_grad():
        network.classifier.weight[:, 5] = 0
    found = taylor_importance(network, batches(spec), cross_entropy()).channels["head"]
    assert found[5] == 0
    assert (np.delete(found, 5) > 0).any()


def test_a_block_that_adds_nothing_is_worth_nothing():
    spec = tiny("b0")
    i, j = next((i, j) for i, row in enumerate(spec.stages) for j, b in enumerate(row) if b.residual == "identity")
    network = build_trained(spec, resolution=SIDE)
    norm = network.stages[i][j].project.norm
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.zeros_(norm.bias)
    state = state_arrays(network)
    assert taylor_importance(network, batches(spec), cross_entropy()).blocks[f"stages.{i}.{j}"] == 0
    for method in ("l1", "l2", "bn"):
        assert weight_importance(spec, state, method=method).blocks[f"stages.{i}.{j}"] == 0


def test_taylor_leaves_the_network_as_it_was():
    spec = tiny("b0")
    network = build_trained(spec, resolution=SIDE)
    network.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    taylor_importance(network, batches(spec), cross_entropy())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_weights_are_judged_with_their_norm_and_each_layer_alike():
    spec = tiny("lite0")
    network = build(spec, seed=0)
    with torch.no_grad():
        network.head.norm.weight[2] = 100.0
        network.head.conv.weight *= 1e-3  # a layer's own size does not matter
    for method in ("l1", "l2", "bn"):
        found = weight_importance(spec, state_arrays(network), method=method).channels["head"]
        assert found.argmax() == 2
        assert found.mean() == pytest.approx(1.0)


def test_what_cannot_be_judged_is_refused():
    spec = tiny("b0")
    network = build(spec, seed=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    with pytest.raises(InputError, match="folded away"):
        weight_importance(spec, state_arrays(network), method="bn")
    with pytest.raises(InputError, match="one of taylor, l1, l2, bn"):
        weight_importance(spec, state_arrays(network), method="l3")
    with pytest.raises(InputError, match="taylor_importance"):
        weight_importance(spec, state_arrays(network), method="taylor")
    with pytest.raises(InputError, match="at least one batch"):
        taylor_importance(network, [], cross_entropy())
