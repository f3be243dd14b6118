import copy
import dataclasses

import numpy as np
import pytest
import torch
from strategies import build_trained
from tiny_runs import PREPROCESS, RECIPE, TUNING, Stop, run, run_saving, tiny_dataset, tiny_spec, weights
from torch import nn

from effnet.data.datasets import Split
from effnet.errors import DataError, InputError
from effnet.nn.network import build, fuse_
from effnet.progress import Noted, Step
from effnet.training.device import to_input
from effnet.training.loop import train
from effnet.training.optim.norms import freeze_norms_, norms_of, precise_norms
from effnet.training.recipe.file import with_values

pytestmark = pytest.mark.usefixtures("one_thread")


def norm_statistics(model):
    return {name: t.clone() for name, t in model.state_dict().items() if "running_" in name or "num_batches" in name}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics_bit_for_bit_and_learn_gain_and_bias(tmp_path, frozen):
    model = build_trained(tiny_spec(), resolution=16)
    before, start = norm_statistics(model), {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = with_values(RECIPE, {"train.frozen_norms": frozen})
    result = train(model, tiny_dataset(), recipe, PREPROCESS, folder=tmp_path)
    for trained in (model, result.model):
        kept = [torch.equal(tensor, before[name]) for name, tensor in norm_statistics(trained).items()]
        assert all(kept) if frozen else not any(kept)
        moved = [not torch.equal(p, start[name]) for name, p in trained.named_parameters()]
        assert all(moved)


def images():
    split = tiny_dataset().train
    return to_input(np.stack(split.sources), PREPROCESS, torch.device("cpu"))


def test_precise_statistics_are_those_of_all_images_however_they_are_batched():
    """The statistics of the first BatchNorm's input, exactly; uneven batches are weighted by size."""
    model, x = build_trained(tiny_spec(), resolution=16), images()
    before, momenta = norm_statistics(model), [norm.momentum for norm in norms_of(model)]
    with torch.no_grad():
        given = model.stem.conv(x)
    with precise_norms(model, [x[:20], x[20:41], x[41:]]):
        torch.testing.assert_close(model.stem.norm.running_mean, given.mean((0, 2, 3)))
        torch.testing.assert_close(model.stem.norm.running_var, given.var((0, 2, 3)))
        assert not model.training
        assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm_statistics(model).items())
    assert [norm.momentum for norm in norms_of(model)] == momenta


def test_precise_statistics_of_one_batch_are_what_torch_takes_from_it_in_every_norm():
    model, x = build_trained(tiny_spec(), resolution=16), images()
    plain = copy.deepcopy(model).train()
    for norm in norms_of(plain):
        norm.momentum = 1.0
    with torch.no_grad():
        plain(x)
    with precise_norms(model, [x, x[:1]]):  # a single image has no batch statistics
        for mine, theirs in zip(norms_of(model), norms_of(plain), strict=True):
            torch.testing.assert_close(mine.running_mean, theirs.running_mean)
            torch.testing.assert_close(mine.running_var, theirs.running_var)


def test_a_run_with_precise_norms_returns_them_and_resumes_to_the_same_weights(tmp_path):
    recipe = with_values(RECIPE, {"train.precise_norms": 48})
    whole = run_saving(tmp_path / "whole", recipe=recipe)
    with torch.no_grad():
        given = whole.model.stem.conv(images())
    torch.testing.assert_close(whole.model.stem.norm.running_mean, given.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(whole.model.stem.norm.running_var, given.var((0, 2, 3)), rtol=1e-3, atol=1e-5)

    def stop(event):
        if isinstance(event, Step) and event.step == 5:
            raise Stop

    with pytest.raises(Stop):
        run_saving(tmp_path / "parts", recipe=recipe, listener=stop)
    resumed = weights(run_saving(tmp_path / "parts", recipe=recipe))
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in resumed.items())


def stepped(recompute, *, fused, frozen):
    """Return loss, gradients, statistics and bytes saved for the backward pass, with drop-path and dropout."""
    model = build(tiny_spec(), dropout=0.5, drop_path=0.5, seed=0)
    model.to(memory_format=torch.channels_last).train().recompute = recompute
    if fused and not fuse_(model):
        pytest.skip("no compiler for the fused kernels")
    if frozen:
        freeze_norms_(model)
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(images().contiguous(memory_format=torch.channels_last)).square().mean()
    loss.backward()
    drawn = torch.rand(3)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), "drawn": drawn} | gradients | norm_statistics(model), sum(kept)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_recomputed_stages_change_nothing_but_what_is_kept(fused, frozen):
    plain, kept = stepped(False, fused=fused, frozen=frozen)
    again, kept_less = stepped(True, fused=fused, frozen=frozen)
    assert plain.keys() == again.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4 * fused, atol=1e-6 * fused, msg=name)
    assert kept_less < 0.6 * kept


def test_a_run_that_recomputes_gives_the_same_weights(tmp_path):
    recipe = with_values(RECIPE, {"train.fused": False})
    plain = weights(run(tmp_path / "plain", recipe=recipe))
    again = weights(run(tmp_path / "again", recipe=with_values(recipe, {"train.recompute": "stages"})))
    assert all(torch.equal(tensor, again[name]) for name, tensor in plain.items())


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"train.micro_batch": 1}, r"train\.micro_batch must be at least 2, .*got 1"),
        ({"stages": [{"micro_batch": 1}, {}]}, r"train\.micro_batch must be at least 2, .*got 1"),
        ({"train.precise_norms": 8, "train.frozen_norms": True}, "set one of them"),
        ({"train.precise_norms": 1}, "at least 2 images; got 1"),
    ],
)
def test_what_norms_cannot_do_is_refused_before_the_first_step(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        run(tmp_path, recipe=with_values(RECIPE, changes))


def test_single_images_train_where_norms_are_frozen(tmp_path):
    result = run(tmp_path, recipe=with_values(TUNING, {"train.micro_batch": 1, "train.epochs": 1}))
    assert len(result.history) == 1


def test_a_single_training_image_is_refused(tmp_path):
    dataset = tiny_dataset(num=1, classes=1)
    with pytest.raises(DataError, match="training needs at least 2 images; got 1"):
        train(build(tiny_spec(1), seed=0), dataset, RECIPE, PREPROCESS, folder=tmp_path)


def test_recomputing_needs_stages(tmp_path):
    recipe = with_values(RECIPE, {"train.recompute": "stages"})
    with pytest.raises(InputError, match=r"made by effnet\.build; got Sequential"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), tiny_dataset(), recipe, PREPROCESS, folder=tmp_path)


def without_class(split, number):
    """Return the split without the images of a class."""
    rows = np.flatnonzero(split.labels != number)
    return Split(sources=[split.sources[i] for i in rows], labels=split.labels[rows])


def test_a_class_that_train_lacks_is_refused_and_one_that_val_lacks_is_said(tmp_path):
    whole = tiny_dataset()
    lacking = dataclasses.replace(whole, train=without_class(whole.train, 1))
    with pytest.raises(DataError, match="none there: class 1"):
        train(build(tiny_spec(), seed=0), lacking, RECIPE, PREPROCESS, folder=tmp_path)
    events = []
    unseen = dataclasses.replace(whole, val=without_class(whole.val, 2))
    train(build(tiny_spec(), seed=0), unseen, RECIPE, PREPROCESS, folder=tmp_path, listener=events.append)
    assert [e.text for e in events if isinstance(e, Noted)] == [
        "Validation has no images of these classes and cannot assess them: class 2"
    ]


def test_a_network_of_other_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="as many outputs as the data set has classes, 3; it has 5: build it with"):
        train(build(tiny_spec(5), seed=0), tiny_dataset(), RECIPE, PREPROCESS, folder=tmp_path)
