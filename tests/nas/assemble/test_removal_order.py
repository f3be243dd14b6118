"""The order of channels against brute force, and Fisher's information against its definition."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_trained

from effnet import get_spec
from effnet.arch.scale import scale
from effnet.compression.reconstruct import Sums, held
from effnet.nas.assemble.order import gradient_moments, removal_order

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed, *, channels=6, outputs=3, rows=80):
    """Return correlated inputs, weights, a metric, and the sums of the inputs."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, channels)) @ rng.standard_normal((channels, channels))
    weight, root = rng.standard_normal((outputs, channels)), rng.standard_normal((outputs, outputs))
    sums = Sums()
    sums.add(torch.from_numpy(mixed), torch.zeros(rows, 0))
    return mixed, torch.from_numpy(weight), torch.from_numpy(root @ root.T), sums


def lost(sums, weight, metric, kept):
    """Return the loss, in the metric, of the outputs that the kept inputs reproduce best; solved by numpy at once."""
    mean = sums.x / sums.count
    spread = held(sums.xx / sums.count - torch.outer(mean, mean)).numpy()
    rest = [channel for channel in range(len(spread)) if channel not in kept]
    gone = weight.numpy()[:, rest]
    moved = np.linalg.lstsq(spread[np.ix_(kept, kept)], spread[np.ix_(kept, rest)], rcond=None)[0]
    left = spread[np.ix_(rest, rest)] - spread[np.ix_(rest, kept)] @ moved
    return float(np.trace(metric.numpy() @ gone @ left @ gone.T))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_removed_channel_is_the_one_that_costs_least(seed):
    _, weight, metric, sums = drawn(seed)
    order = removal_order(sums, weight, metric)
    assert sorted(order) == list(range(6))
    for count in range(1, 6):
        left = order[: count + 1]
        costs = {gone: lost(sums, weight, metric, [c for c in left if c != gone]) for gone in left}
        assert costs[order[count]] <= 1.000001 * min(costs.values()) + 1e-9


def test_a_channel_that_another_repeats_goes_first():
    rows, weight, metric, _ = drawn(0)
    rows[:, 4] = rows[:, 1]
    sums = Sums()
    sums.add(torch.from_numpy(rows), torch.zeros(len(rows), 0))
    assert removal_order(sums, weight, metric)[-1] in (1, 4)


def test_the_moments_are_those_of_the_gradients_of_every_class():
    """Against the expectation over all classes, of few images drawn often."""
    spec = scale(get_spec("lite0", num_classes=3), phi=-14, resolution=16)
    network = build_trained(spec, resolution=16).eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    module = network.stages[0][0].project.conv
    outputs = []
    handle = module.register_forward_hook(lambda *given: outputs.append(given[2]))
    logits = network(images)
    handle.remove()
    logs, exact = logits.log_softmax(1), 0.0
    for image, label in itertools.product(range(4), range(3)):
        gradient = torch.autograd.grad(logs[image, label], outputs[0], retain_graph=True)[0]
        rows = gradient.transpose(0, 1).flatten(1)
        exact = exact + logs[image, label].detach().exp() * (rows @ rows.T).double()
    draws = 120
    found = gradient_moments(network, {"part": module}, [images] * draws, seed=0)["part"] / draws
    assert float((found - exact).norm() / exact.norm()) < 0.2
    assert not any(parameter.grad is not None for parameter in network.parameters())
