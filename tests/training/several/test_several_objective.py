"""The loss of several outputs, against torch's and the papers' formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from effnet.data.several.outputs import OutputSpec, placed
from effnet.errors import InputError
from effnet.training.losses import Batch, Mixed
from effnet.training.several.objective import Objective, asymmetric_loss, output_weights, soft_loss

SPECS = (
    OutputSpec(name="kind", kind="one", classes=("a", "b", "c")),
    OutputSpec(name="tags", kind="many", classes=("x", "y")),
    OutputSpec(name="year", kind="number", mean=2000.0, scale=4.0),
)
PLACES = tuple(placed(SPECS))


def objective(**options):
    return Objective(places=PLACES, weights=(1.0, 1.0, 1.0), known=(1.0, 1.0, 1.0), **options)


def made(seed, size=6):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=(size, 6))).float()
    targets = np.column_stack([rng.integers(0, 3, size), rng.integers(0, 2, (size, 2)), rng.normal(2000, 4, size)])
    return values, torch.from_numpy(targets.astype(np.float64))


def batch(targets, mixed=None):
    return Batch(images=torch.zeros(len(targets), 1), labels=targets, mixed=mixed)


def by_torch(values, targets, smoothing=0.0):
    """The sum of torch's own losses."""
    kind = functional.cross_entropy(values[:, :3], targets[:, 0].long(), label_smoothing=smoothing)
    tags = targets[:, 1:3].float() * (1 - smoothing) + smoothing / 2
    tags = functional.binary_cross_entropy_with_logits(values[:, 3:5], tags)
    return kind + tags + functional.mse_loss(values[:, 5], ((targets[:, 3] - 2000) / 4).float()) / 2


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
@settings(max_examples=20, deadline=None)
def test_the_loss_is_the_sum_of_torchs_losses(seed, smoothing):
    values, targets = made(seed)
    found = objective(smoothing=smoothing)(values, batch(targets))
    assert float(found) == pytest.approx(float(by_torch(values, targets, smoothing)), abs=1e-5)


def test_guesses_have_the_loss_of_their_entropies():
    targets = made(0, size=4000)[1]
    found = float(objective()(torch.zeros(4000, 6), batch(targets)))
    assert found == pytest.approx(math.log(3) + math.log(2) + 0.5, abs=0.05)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_unknown_target_gives_no_gradient_and_parts_of_a_batch_add_up(seed):
    values, targets = made(seed)
    hidden = torch.from_numpy(np.random.default_rng(seed).random((6, 3)) < 0.4)
    targets[hidden[:, [0, 1, 1, 2]]] = math.nan
    values.requires_grad_()
    known = Objective(places=PLACES, weights=(1.0, 2.0, 0.5), known=(0.7, 0.7, 0.7))
    whole = known(values, batch(targets))
    whole.backward()
    assert torch.isfinite(whole)
    assert torch.isfinite(values.grad).all()
    for place, lost in zip(PLACES, hidden.T, strict=True):
        assert not values.grad[lost][:, place.columns].any()
        assert values.grad[~lost][:, place.columns].any() or lost.all()
    halves = sum(known(values[part], batch(targets[part])) / 2 for part in (slice(0, 3), slice(3, 6)))
    assert halves.item() == pytest.approx(whole.item(), rel=1e-5)


def test_mixed_images_have_mixed_targets_and_are_unknown_if_either_is():
    values, targets = made(1, size=3)
    targets[2] = math.nan
    mixed = Mixed(partner=targets.roll(-1, 0), weight=torch.tensor([0.3, 0.3, 0.3]))
    one = batch(targets[:1], Mixed(partner=targets[1:2], weight=mixed.weight[:1]))
    found, share = objective()(values[:1], one), 0.3
    numbers = (targets[:2, 3] - 2000) / 4
    classes = sum(
        w * functional.cross_entropy(values[:1, :3], t.long()[None])
        for w, t in zip((share, 1 - share), targets[:2, 0], strict=True)
    )
    tags = functional.binary_cross_entropy_with_logits(
        values[:1, 3:5], (share * targets[0, 1:3] + (1 - share) * targets[1, 1:3]).float()[None]
    )
    wanted = share * numbers[0] + (1 - share) * numbers[1]
    expected = classes + tags + (values[0, 5] - wanted) ** 2 / 2
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    others = batch(targets[1:], Mixed(partner=mixed.partner[1:], weight=mixed.weight[1:]))
    assert float(objective()(values[1:], others)) == 0


def test_a_large_number_that_differs_by_little_keeps_its_digits():
    place = tuple(placed((OutputSpec(name="n", kind="number", mean=1e9, scale=1.0),)))
    targets = torch.tensor([[1e9 + 1]], dtype=torch.float64)
    found = Objective(places=place, weights=(1.0,), known=(1.0,))(torch.zeros(1, 1), batch(targets))
    assert float(found) == 0.5


def test_the_asymmetric_loss_is_that_of_the_paper():
    values, targets = made(3)[0][:, :2], made(3)[1][:, 1:3].float()
    p = values.sigmoid()
    shifted = (p - 0.05).clamp_min(0)  # eq. 5
    positive, negative = torch.log(p), shifted**4 * torch.log(1 - shifted)  # eq. 7
    expected = -(targets * positive + (1 - targets) * negative)
    torch.testing.assert_close(asymmetric_loss(values, targets), expected, atol=1e-5, rtol=1e-5)


def test_a_teacher_with_the_same_answers_costs_only_their_entropy_and_its_numbers_are_in_its_own_units():
    values, _ = made(4)
    same = [lambda found: 2000 + 4 * found.double()] * 3
    kind, tags, year = values[:, :3], values[:, 3:5], values[:, 5:]
    entropy = functional.binary_cross_entropy_with_logits(tags, tags.sigmoid())
    found = soft_loss(values, values, objective=objective(), temperature=2.0, teacher=same)
    assert float(found) == pytest.approx(float(entropy), abs=1e-6)
    other = torch.cat([kind, tags, (year * 4 + 2000 - 1990) / 8], dim=1)  # the same numbers, standardised otherwise
    answers = [lambda found: 1990 + 8 * found.double()] * 3
    found = soft_loss(values, other, objective=objective(), temperature=2.0, teacher=answers)
    assert float(found) == pytest.approx(float(entropy), abs=1e-6)


def test_weights_of_outputs_are_read_from_a_text():
    names = ["gender", "a=b", "year"]
    assert output_weights("", names) == (1, 1, 1)
    assert output_weights("gender=2, year=0.5", names) == (2, 1, 0.5)
    for text, said in [
        ("gendr=2", "did you mean 'gender'"),
        ("gender=-1", "of at least 0; got 'gender=-1'"),
        ("gender=x", "got 'gender=x'"),
        ("gender", "must name outputs"),
        ("gender=0,a=b=0,year=0", "above 0"),
    ]:
        with pytest.raises(InputError, match=said):
            output_weights(text, names)
