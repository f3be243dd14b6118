"""Batch augmentation: bounded, repeatable, and without effect on other random state."""

import dataclasses
import random
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess, normalize
from effnet.errors import DataError, InputError
from effnet.nn.network import build
from effnet.progress import Step
from effnet.training.input.augment import augment_batch, draw_plan
from effnet.training.input.draws import Draws
from effnet.training.input.policies import draw_policy
from effnet.training.input.prepare import prepare
from effnet.training.loop import train
from effnet.training.recipe.augment import Augment, Policy
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

POLICIES = [name for name in get_args(Policy) if name != "none"]
EVERYTHING = {
    "augment.policy": "randaugment", "augment.magnitude_std": 0.5, "augment.rotation": 15.0, "augment.jitter": 0.3,
    "augment.erasing": 0.4, "augment.erasing_fill": "noise", "augment.mixup": 0.4, "augment.cutmix": 1.0,
}  # fmt: skip
MEAN = (0.4, 0.5, 0.6)


def make_images(count=12, side=16, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def augmented(images, augment, *, step=0, seed=0, first=0, mean=MEAN):
    return augment_batch(images, augment, mean=mean, seed=seed, step=step, first=first)


def everything() -> Augment:
    return with_values(Recipe(), EVERYTHING).augment


def test_an_augment_that_does_nothing_copies_nothing():
    images = make_images()
    assert augmented(images, Augment()) is images


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_and_step_do_the_same_and_others_something_else(policy):
    images, augment = make_images(), Augment(policy=policy)
    before = images.clone()
    first, again = augmented(images, augment, step=3), augmented(images, augment, step=3)
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert not torch.equal(first, augmented(images, augment, step=4))
    assert not torch.equal(first, augmented(images, augment, step=3, seed=1))


def test_no_other_randomness_is_touched():
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    recipe = with_values(Recipe(), EVERYTHING)
    images, labels = make_images().permute(0, 2, 3, 1).numpy(), np.arange(12)
    prepare(images, labels, recipe, Preprocess(resolution=16), device=torch.device("cpu"), step=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "randaugment_timm", "trivialaugment"])
@pytest.mark.parametrize("cuts", [(5,), (1, 2, 9)])
def test_a_step_that_is_divided_is_varied_as_if_it_were_not(policy, cuts):
    images, augment = make_images(), dataclasses.replace(everything(), policy=policy)
    parts, first = [], 0
    for part in images.tensor_split(cuts):
        parts.append(augmented(part, augment, step=2, first=first))
        first += len(part)
    assert torch.equal(torch.cat(parts), augmented(images, augment, step=2))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(POLICIES), st.integers(1, 5), st.sampled_from([1, 2, 3, 4]), st.integers(1, 20),
    st.floats(0, 30), st.floats(0, 5), st.integers(0, 2**31), st.integers(1, 4),
)  # fmt: skip
def test_any_batch_keeps_its_shape_and_its_numbers_finite(policy, count, channels, side, level, spread, seed, num_ops):
    augment = dataclasses.replace(
        everything(), policy=policy, magnitude=level, magnitude_std=spread, num_ops=num_ops, erasing=1.0
    )
    images = make_images(count, side, channels)
    result = augmented(images, augment, seed=seed, mean=(0.5,) * channels)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    plan = draw_plan(augment, size=count, side=side, seed=seed, step=0)
    assert all(np.isfinite(slot.values).all() for slot in plan.slots)
    assert len(plan.slots) == 1 + {"trivialaugment": 1}.get(policy, num_ops if "rand" in policy else 2) + 3


def test_magnitude_spreads_around_what_is_asked():
    augment = Augment(policy="randaugment", magnitude=8.0, magnitude_std=1.5)
    slot = draw_policy(augment, size=40_000, side=64, draws=Draws(seed=0, step=0, purpose="test"))[0]
    levels = np.abs(slot.values[slot.names == "rotate"]) / 3
    assert levels.mean() == pytest.approx(8, abs=0.1)
    assert levels.std() == pytest.approx(1.5, abs=0.1)
    assert (slot.values[slot.names == "rotate"] < 0).mean() == pytest.approx(0.5, abs=0.04)


def test_without_a_magnitude_randaugment_moves_nothing():
    augment = Augment(policy="randaugment", magnitude=0.0, num_ops=1)
    plan = draw_plan(augment, size=200, side=16, seed=0, step=0)
    moved = np.isin(plan.slots[0].names, ["rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout"])
    assert moved.sum() > 20
    images = make_images(200)
    assert torch.equal(augmented(images, augment)[moved], images[moved])


def test_jitter_and_rotation_stay_within_their_spread_in_every_order():
    plan = draw_plan(Augment(rotation=20.0, jitter=0.3), size=500, side=16, seed=0, step=0)
    turn, *colours = plan.slots
    assert set(turn.names) == {"rotate"}
    assert 19 < np.abs(turn.values).max() <= 20
    assert all(0.7 <= slot.values.min() < 0.72 and 1.28 < slot.values.max() <= 1.3 for slot in colours)
    orders = {tuple(slot.names[i] for slot in colours) for i in range(500)}
    assert len(orders) == 6
    assert all(set(order) == {"brightness", "contrast", "color"} for order in orders)


@pytest.mark.parametrize("fill", ["mean", "colour", "noise"])
def test_erased_rectangles_hold_what_was_asked_and_the_rest_stays(fill):
    images, augment = make_images(40), Augment(erasing=0.7, erasing_fill=fill)
    result = augmented(images, augment)
    plan = draw_plan(augment, size=40, side=16, seed=0, step=0)
    assert 15 < sum(rectangle is not None for rectangle in plan.erased) < 40
    colours = set()
    for before, after, rectangle in zip(images, result, plan.erased, strict=True):
        if rectangle is None:
            assert torch.equal(before, after)
            continue
        top, left, height, width = rectangle
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(before[:, ~inside], after[:, ~inside])
        erased = after[:, inside]
        if fill == "mean":
            assert erased.unique(dim=1).flatten().tolist() == [102, 128, 153]
        elif fill == "colour":
            assert erased.unique(dim=1).shape[1] == 1
            colours.add(tuple(erased[:, 0].tolist()))
        elif height * width > 3:
            assert erased.unique(dim=1).shape[1] > 1
    assert fill != "colour" or len(colours) > 10


def test_cutout_makes_a_square_grey():
    augment = Augment(policy="randaugment", magnitude=10.0, num_ops=1)
    plan = draw_plan(augment, size=100, side=112, seed=0, step=0)
    chosen = np.flatnonzero(plan.slots[0].names == "cutout")
    result = augmented(torch.zeros(100, 1, 112, 112, dtype=torch.uint8), augment)
    areas = (result[chosen] == 128).sum((1, 2, 3))
    assert set(result[chosen].unique().tolist()) == {0, 128}
    assert areas.max() == 40**2  # 40 of 224 on both sides of its centre; less at an edge
    assert areas.min() >= 20**2


def test_images_that_are_not_bytes_are_refused():
    with pytest.raises(DataError, match=r"images must be uint8 \[batch, channels, R, R\]; got torch.float32"):
        augmented(make_images().float(), everything())


@pytest.mark.parametrize(
    "field, value", [("policy", "autoaug"), ("magnitude", 31.0), ("magnitude_std", -1.0), ("num_ops", 0),
                     ("rotation", 181.0), ("jitter", 1.0), ("erasing", 1.5), ("mixup", -0.1), ("erasing_fill", "black")]
)  # fmt: skip
def test_a_recipe_refuses_what_cannot_be_done(field, value):
    with pytest.raises(InputError, match=f"augment.{field} must"):
        with_values(Recipe(), {f"augment.{field}": value})


@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_batch_is_normalised_as_everywhere_and_lies_channels_last(channels):
    images = make_images(4, 16, channels).permute(0, 2, 3, 1).numpy()
    preprocess = Preprocess(resolution=16, mean=MEAN[:channels], std=(0.2, 0.3, 0.4)[:channels])
    for recipe in (Recipe(), with_values(Recipe(), {"augment.policy": "randaugment", "augment.magnitude": 0.0})):
        batch = prepare(images, np.arange(4), recipe, preprocess, device=torch.device("cpu"), step=0)
        assert batch.images.permute(0, 2, 3, 1).is_contiguous()
    plain = prepare(images, np.arange(4), Recipe(), preprocess, device=torch.device("cpu"), step=0)
    assert np.allclose(plain.images.permute(0, 2, 3, 1).numpy(), normalize(images, preprocess), atol=1e-6)
    assert plain.labels.tolist() == [0, 1, 2, 3]
    assert plain.mixed is None


class Stop(Exception):
    pass


def test_a_run_with_everything_on_resumes_to_the_same_weights(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3

    def split(count):
        return Split(sources=list(rng.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)), labels=labels[:count])

    dataset = Dataset(
        name="noise", class_names=("a", "b", "c"), channels=1, train=split(24), val=split(6), test=split(6),
        mirror_safe=True,
    )  # fmt: skip
    recipe = with_values(Recipe(), {"train.epochs": 3, "train.batch_size": 8, **EVERYTHING})
    preprocess = Preprocess(resolution=16, crop=1.0, mean=(0.5,), std=(0.25,))

    def run(folder, stop_at=None):
        def listener(event):
            if isinstance(event, Step) and event.step == stop_at:
                raise Stop

        spec = with_total_stride(scale(get_spec("b0", num_classes=3, in_channels=1), phi=-20, resolution=16), 8)
        model = build(dataclasses.replace(spec, stages=spec.stages[:2]), seed=0)
        return train(model, dataset, recipe, preprocess, folder=folder, listener=listener).model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", stop_at=5)
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
