"""The average of the weights against its closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from effnet.training.optim.ema import finish_average_, kept_share, move_average_, update_average_
from effnet.training.recipe.schema import Train


def norm(value):
    """Return a module with parameters, statistics and a count, all of one value."""
    module = nn.BatchNorm2d(2)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(value)
    return module


def averaged(values, train, *, epoch_steps):
    """Return the average after a run whose weights are values[i] after step i, as the loop updates it."""
    average = norm(0.0)
    for step, value in enumerate(values):
        batch = step % epoch_steps
        move_average_(average, norm(value), train, step=step, batch=batch)
        if batch + 1 == epoch_steps:
            finish_average_(average, norm(value), train, steps=step + 1, batches=epoch_steps)
    return average


def closed_form(values, decay):
    """Return the average of a run that begins at 0: each value has its step's weight times the share kept since."""
    keeps = np.minimum(decay, (1 + np.arange(len(values))) / (10 + np.arange(len(values))))
    return sum(v * (1 - keeps[i]) * np.prod(keeps[i + 1 :]) for i, v in enumerate(values))


def test_the_average_at_every_step_is_the_closed_form_of_weights_and_statistics():
    values = np.random.default_rng(0).normal(size=60)
    found = averaged(values, Train(ema_decay=0.9), epoch_steps=12)
    for name, tensor in found.state_dict().items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.numpy(), closed_form(values, 0.9), rtol=1e-4, atol=1e-5)
        else:
            assert (name, tensor.item()) == ("num_batches_tracked", int(values[-1]))


@given(every=st.integers(1, 9), epoch_steps=st.integers(1, 20), epochs=st.integers(1, 3), decay=st.floats(0.3, 0.9999))
def test_an_average_that_moves_rarely_is_that_of_weights_that_stand_still_in_between(every, epoch_steps, epochs, decay):
    values = np.random.default_rng(0).normal(size=epoch_steps * epochs)
    # The average sees only the last value of a block; a block ends with its epoch at the latest.
    batches = np.arange(len(values)) % epoch_steps
    ends = np.arange(len(values)) - batches + np.minimum((batches // every + 1) * every, epoch_steps) - 1
    found = averaged(values, Train(ema_decay=decay, ema_every=every), epoch_steps=epoch_steps)
    assert found.weight[0].item() == pytest.approx(closed_form(values[ends], decay), abs=1e-4)


def test_a_rare_average_follows_smooth_weights_as_closely_as_a_frequent_one():
    values = 1 - np.exp(-np.arange(400) / 80)
    often, rarely = (
        averaged(values, Train(ema_decay=0.99, ema_every=every), epoch_steps=100).weight[0].item() for every in (1, 8)
    )
    assert rarely == pytest.approx(often, abs=5e-3)


def test_several_steps_keep_the_product_of_the_ramp():
    assert kept_share(0, decay=0.999) == 1 / 10
    assert kept_share(3, decay=0.999, steps=3) == pytest.approx(2 / 11 * 3 / 12 * 4 / 13)
    assert kept_share(10**6, decay=0.99, steps=5) == pytest.approx(0.99**5)


def test_no_average_is_the_model_at_the_end_of_every_epoch():
    values = np.random.default_rng(0).normal(size=20)
    train = Train(ema_decay=0.0, ema_every=3)
    assert averaged(values, train, epoch_steps=10).weight[0].item() == np.float32(values[-1])
    assert averaged(values[:19], train, epoch_steps=10).weight[0].item() == np.float32(values[9])


def test_weights_and_statistics_move_alike():
    model, average = norm(3.0), norm(1.0)
    update_average_(average, model, step=0, decay=0.999)
    for tensor in average.state_dict().values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, 2.8 if tensor.is_floating_point() else 3))
