"""Distillation from feature maps, and how often the teacher runs."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_runs import PREPROCESS, RECIPE, tiny_dataset, tiny_spec
from torch import nn

from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import load_module, save_bundle, state_arrays
from effnet.errors import InputError
from effnet.nn.network import build
from effnet.training.distill import attention_loss, distillation, keeping_answers, make_loss
from effnet.training.input.batches import cached_loader, train_batches
from effnet.training.loop import train
from effnet.training.losses import Batch
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Loss

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return a bundle with the classes of the tiny images and random weights."""
    folder, spec = tmp_path_factory.mktemp("teacher") / "bundle", tiny_spec()
    names = tiny_dataset().class_names
    config = ModelConfig(arch=spec, preprocess=PREPROCESS, class_names=names)
    save_bundle(folder, config, state_arrays(build(spec, seed=7)))
    return folder


def test_looks_are_compared_as_published():
    """Return the distance of eq. 2 of Zagoruyko & Komodakis 2017, as their code computes `at`."""
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.randn(3, width, 4, 4, generator=generator) for width in (5, 9))

    def at(x):
        return nn.functional.normalize(x.pow(2).mean(1).view(x.size(0), -1))

    expected = (at(mine) - at(theirs)).pow(2).sum(1).mean()
    torch.testing.assert_close(attention_loss([mine], [theirs]), expected)


def test_the_channels_of_a_map_count_for_nothing_but_where_they_are_active():
    maps = [torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4, 4)]
    shuffled = [3 * found.flip(1) for found in maps]
    assert float(attention_loss(maps, shuffled)) == pytest.approx(0, abs=1e-6)
    left, right = torch.zeros(1, 2, 4, 4), torch.zeros(1, 6, 4, 4)
    left[..., :2], right[..., 2:] = 1, 1
    assert float(attention_loss([left], [right])) == pytest.approx(2)


def test_stages_are_paired_by_their_size_from_the_last_backwards():
    """Ignored are the first of two feature maps of one size, and a size that only the teacher has."""
    large, small = torch.rand(1, 2, 8, 8), torch.rand(1, 2, 4, 4)
    taught = [torch.rand(1, 2, 16, 16), torch.rand(1, 5, 8, 8), large, small]
    assert float(attention_loss([large, small], taught)) == pytest.approx(0, abs=1e-6)


def test_a_teacher_of_another_resolution_looks_at_the_same_places():
    energy = torch.zeros(1, 1, 4, 4)
    energy[..., 1:3, 1:3] = 1
    larger = energy.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(attention_loss([energy], [larger])) < 0.1 < float(attention_loss([energy], [larger.roll(4, 3)]))


def test_training_towards_the_looks_alone_brings_them_together():
    student, teacher = build(tiny_spec(), seed=0), build(tiny_spec(), seed=1).requires_grad_(False)
    images = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=images, labels=torch.zeros(16, dtype=torch.int64))
    plan = Loss(teacher="unread", teacher_weight=0.0, feature_weight=1.0)
    with_looks = distillation(teacher, plan, preprocess=PREPROCESS, teacher_preprocess=PREPROCESS)
    without = distillation(
        teacher, dataclasses.replace(plan, feature_weight=0.0), preprocess=PREPROCESS, teacher_preprocess=PREPROCESS
    )
    student.eval()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)

    def looks():
        return with_looks(student, batch) - without(student, batch)

    before = float(looks().detach())
    for _ in range(12):
        optimizer.zero_grad()
        looks().backward()
        optimizer.step()
    assert float(looks().detach()) < 0.5 * before


def test_looks_are_asked_of_networks_only():
    plan = Loss(teacher="unread", feature_weight=1.0)
    loss = distillation(build(tiny_spec()), plan, preprocess=PREPROCESS, teacher_preprocess=PREPROCESS)
    batch = Batch(images=torch.zeros(2, 1, 16, 16), labels=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"loss\.feature_weight needs networks .* got Flatten"):
        loss(nn.Flatten(), batch)


class Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, 0

    def forward(self, x):
        self.asked += len(x)
        return self.network(x)


def test_a_teacher_is_asked_once_for_each_view():
    teacher = Counting(build(tiny_spec(), seed=0).eval())
    answer, images = keeping_answers(teacher), torch.randn(6, 1, 16, 16)
    with torch.no_grad():
        first = answer(images)
        again = answer(images[[5, 0, 3]])
        assert teacher.asked == 6
        torch.testing.assert_close(again, first[[5, 0, 3]])
        changed = images.clone()
        changed[2, 0, 0, 0] += 1e-3
        torch.testing.assert_close(answer(changed), teacher.network(changed), rtol=1e-4, atol=1e-5)
        assert teacher.asked == 7


@pytest.mark.parametrize("view", ["crop", "shift", "none"])
def test_views_come_back_after_so_many_epochs(view):
    data = tiny_dataset()
    recipe = with_values(RECIPE, {"augment.view": view, "loss.teacher": "somewhere", "loss.teacher_views": 2})

    def views(epoch):
        load = cached_loader(data.train, PREPROCESS)
        batches = train_batches(load, data.train.labels, recipe, PREPROCESS, epoch=epoch)
        return {image.tobytes() for images, _ in batches for image in images}

    assert views(0) == views(2) == views(4)
    assert views(1) == views(3)
    assert views(0) != views(1)


def test_a_run_with_kept_answers_is_the_run_without(teacher, tmp_path):
    """With the same views, running the teacher each time or once per view gives the same weights."""
    recipe = with_values(RECIPE, {"loss.teacher": str(teacher), "loss.teacher_views": 1, "train.epochs": 2})
    data, found = tiny_dataset(), {}
    counting = Counting(load_module(teacher)).requires_grad_(False)
    for name, views in (("kept", 1), ("asked", 0)):
        plan = dataclasses.replace(recipe.loss, teacher_views=views)
        loss = distillation(counting, plan, preprocess=PREPROCESS, teacher_preprocess=PREPROCESS)
        before = counting.asked
        result = train(build(tiny_spec(), seed=0), data, recipe, PREPROCESS, folder=tmp_path / name, loss_fn=loss)
        found[name] = state_arrays(result.model), counting.asked - before
    (kept, few), (asked, many) = found["kept"], found["asked"]
    assert (few, many) == (len(data.train), 2 * len(data.train))
    for name in kept:
        np.testing.assert_allclose(kept[name], asked[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"augment.mixup": 0.2}, r"augment\.mixup changes them at every step"),
        (
            {"augment.policy": "trivialaugment", "augment.erasing": 0.1},
            r"policy, augment\.erasing change them",
        ),
        ({"loss.feature_weight": 1.0}, r"caches logits only"),
    ],
)
def test_answers_that_cannot_be_kept_are_refused(teacher, values, message):
    recipe = with_values(RECIPE, {"loss.teacher": str(teacher), "loss.teacher_views": 2} | values)
    with pytest.raises(InputError, match=message):
        make_loss(recipe, preprocess=PREPROCESS, class_names=tiny_dataset().class_names)


@pytest.mark.parametrize("wrong", [{"loss.feature_weight": -1.0}, {"loss.teacher_views": -1}])
def test_weights_and_views_below_zero_are_refused(wrong):
    with pytest.raises(InputError, match=rf"^{next(iter(wrong))} must"):
        with_values(RECIPE, wrong)
