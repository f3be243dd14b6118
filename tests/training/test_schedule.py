"""The learning rate against torch's and timm's schedulers and TensorFlow's formula."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from benchmarks.peers import import_timm
from effnet.training.optim.schedule import learning_rate
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe, Schedule, Train

NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


def rates(values, *, total, epoch_steps=10, lr=1.0):
    recipe = with_values(Recipe(), {"train.lr": lr} | {f"schedule.{name}": value for name, value in values.items()})
    return [learning_rate(recipe, step, total_steps=total, epoch_steps=epoch_steps) for step in range(total)]


def torchs(make, *, total, lr=1.0):
    """Return the learning rates of a torch scheduler over its steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, found = make(optimizer), []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_learning_rate_rises_then_falls_to_a_hundredth():
    found = rates({"warmup": 0.1}, total=100)
    assert found[9] == 1.0
    assert found == sorted(found[:10]) + sorted(found[10:], reverse=True)
    assert 0.01 <= found[-1] < 0.02


@pytest.mark.parametrize("total, share", [(100, 0.3), (37, 0.3), (64, 0.25), (10, 0.15)])
def test_one_cycle_is_torchs(total, share):
    ours = rates({"name": "one_cycle", "warmup": share, "final": 1 / 25 / 1e4}, total=total, lr=0.4)

    theirs = torchs(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.4, total_steps=total, pct_start=share, cycle_momentum=False
        ),
        total=total,
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_cosine_is_torchs_after_the_warm_up():
    ours = rates({"warmup": 0.2, "final": 0.05}, total=50)
    theirs = torchs(
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.05),
            ],
            milestones=[10],
        ),
        total=50,
        lr=1.0,
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("name", ["step", "exponential"])
def test_decay_by_epochs_is_torchs(name):
    ours = rates({"name": name, "warmup": 0.0, "decay_epochs": 3, "decay_rate": 0.5}, total=60, lr=0.3)

    def make(optimizer):
        if name == "step":
            return torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.5)
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5 ** (1 / 30))

    np.testing.assert_allclose(ours, torchs(make, total=60, lr=0.3), rtol=1e-9)


def test_a_constant_rate_stays_and_a_warm_up_may_begin_above_nothing():
    assert rates({"name": "constant", "warmup": 0.0}, total=5, lr=0.2) == [0.2] * 5
    found = rates({"name": "constant", "warmup_epochs": 1, "warmup_from": 0.5}, total=20)
    np.testing.assert_allclose(found, [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, *[1.0] * 11])


def tensorflows(step, *, epoch_steps, peak, epochs=2.4, warmup_epochs=5, rate=0.97):
    """lr of tensorflow/tpu, efficientnet/utils.py, build_learning_rate: exponential_decay(staircase), then warm-up."""
    decay_steps, warmup_steps = epoch_steps * epochs, int(epoch_steps * warmup_epochs)
    # Integers, since in floating point 24 / (10 * 2.4) could be less than 1.
    count = (10 * step) // round(10 * decay_steps)
    return peak * step / warmup_steps if step < warmup_steps else peak * rate**count


@pytest.mark.parametrize("epoch_steps", [10, 625, 17])
def test_the_staircase_is_tensorflows(epoch_steps):
    """Ours is one step ahead during the warm-up, since TensorFlow's first step has a rate of 0."""
    values = {"name": "step", "warmup_epochs": 5, "decay_epochs": 2.4, "decay_rate": 0.97}
    ours = rates(values, total=20 * epoch_steps, epoch_steps=epoch_steps, lr=0.128)
    rise = 5 * epoch_steps
    theirs = [tensorflows(step, epoch_steps=epoch_steps, peak=0.128) for step in range(20 * epoch_steps)]
    np.testing.assert_allclose(ours[rise:], theirs[rise:], rtol=1e-9)
    np.testing.assert_allclose(ours[: rise - 1], theirs[1:rise], rtol=1e-9)
    # 5 epochs hold two decays of 2.4: the rate falls from the peak at once.
    assert ours[rise] == pytest.approx(0.128 * 0.97**2)


@pytest.mark.elsewhere
@NEEDS_TIMM
def test_the_staircase_is_timms_at_the_beginning_of_every_epoch():
    import_timm()
    from timm.scheduler.step_lr import StepLRScheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.048)
    # When its recipe was published timm counted the decays from the first epoch, as TensorFlow does.
    theirs = StepLRScheduler(
        optimizer, decay_t=2.4, decay_rate=0.97, warmup_t=3, warmup_lr_init=1e-6, warmup_prefix=False
    )
    values = {
        "name": "step", "warmup_epochs": 3, "decay_epochs": 2.4, "decay_rate": 0.97, "warmup_from": 1e-6 / 0.048,
    }  # fmt: skip
    ours = rates(values, total=400, lr=0.048)
    for epoch in range(3, 40):
        theirs.step(epoch)
        assert ours[10 * epoch] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert ours[29] == 0.048  # the end of the warm-up; timm's rises once an epoch


@pytest.mark.elsewhere
@NEEDS_TIMM
def test_cosine_is_timms():
    import_timm()
    from timm.scheduler.cosine_lr import CosineLRScheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = CosineLRScheduler(
        optimizer, t_initial=40, lr_min=0.005, warmup_t=10, warmup_lr_init=0.0, warmup_prefix=True, t_in_epochs=False
    )
    ours = rates({"warmup": 0.2, "final": 0.01}, total=50, lr=0.5)
    for step in range(10, 50):
        theirs.step_update(step)
        assert ours[step] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "step"])
def test_a_warm_up_of_epochs_takes_half_of_a_short_run_at_the_most(name):
    found = rates({"name": name, "warmup_epochs": 5}, total=20)
    assert max(found) == pytest.approx(1.0)
    assert found.index(max(found)) in (9, 10)
    assert found[:9] == sorted(found[:9])


def test_the_rate_grows_with_the_batch_that_it_is_meant_for():
    recipe = with_values(Recipe(), {"train.lr": 0.016, "train.lr_batch": 256, "train.batch_size": 4096})
    assert recipe.train.peak_lr == pytest.approx(0.256)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "constant", "step", "exponential"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_run_of_very_few_steps_has_rates_within_bounds(name, total):
    for values in ({}, {"warmup_epochs": 5}, {"warmup": 0.0}):
        found = rates({"name": name} | values, total=total)
        assert all(0 <= rate <= 1 for rate in found)


@pytest.mark.parametrize("name", ["step", "exponential", "cosine", "one_cycle", "constant"])
@pytest.mark.parametrize("epochs, rate", [(1e-3, 1e-30), (1e-3, 1.0), (1e6, 0.5)])
def test_the_most_extreme_schedules_overflow_nowhere(name, epochs, rate):
    schedule = Schedule(name=name, decay_epochs=epochs, decay_rate=rate, warmup_epochs=1e6, final=0.0)
    recipe = Recipe(train=Train(lr=1e6, lr_batch=1, batch_size=1_000_000), schedule=schedule)
    for step in (0, 1, 10**9 - 1):
        assert 0 <= learning_rate(recipe, step, total_steps=10**9, epoch_steps=1) <= recipe.train.peak_lr
