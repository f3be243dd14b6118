import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import build_trained

from effnet import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, EffnetError, ImageError
from effnet.nn.network import build
from effnet.training.batches import cached_loader, eval_batches, num_batches, train_batches
from effnet.training.checkpoint import CHECKPOINT, METRICS, save_tensors
from effnet.training.events import EpochEnd, Step
from effnet.training.loop import train, validate
from effnet.training.losses import cross_entropy
from effnet.training.recipe import Recipe
from effnet.training.recipe_file import with_values


def tiny_dataset(num=48, classes=3, side=16):
    """Pictures whose class is their brightness, with noise: learnable, but not at once."""
    rng = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % classes
        base = (60 + 70 * labels)[:, None, None, None]
        pictures = np.clip(base + rng.normal(0, 30, (count, side, side, 1)), 0, 255).astype(np.uint8)
        return Split(sources=list(pictures), labels=labels.astype(np.int64))

    names = tuple(f"class {i}" for i in range(classes))
    return Dataset(
        name="tiny", class_names=names, channels=1, train=split(num), val=split(12), test=split(12), mirror_safe=True
    )


def tiny_spec(classes=3):
    """The narrowest network, without its last stages: what is tested here is not how well it learns."""
    spec = with_total_stride(scale(get_spec("b0", num_classes=classes, in_channels=1), phi=-20, resolution=16), 8)
    return dataclasses.replace(spec, stages=spec.stages[:3])


pytestmark = pytest.mark.usefixtures("one_thread")

PREPROCESS = Preprocess(resolution=16, crop=1.0, mean=(0.5,), std=(0.25,))
RECIPE = with_values(
    Recipe(),
    {"train.epochs": 3, "train.batch_size": 16, "train.lr": 5e-3, "model.dropout": 0.2, "model.drop_path": 0.1},
)
TUNING = with_values(RECIPE, {"train.layer_decay": 0.7, "train.frozen_norms": True, "train.start_counts": True})
RECIPES = pytest.mark.parametrize("recipe", [RECIPE, TUNING], ids=["anew", "tuning"])


def run(folder, *, listener=None, recipe=RECIPE, **kwargs):
    model = build(tiny_spec(), dropout=recipe.model.dropout, drop_path=recipe.model.drop_path, seed=0)
    return train(model, tiny_dataset(), recipe, PREPROCESS, folder=folder, listener=listener, **kwargs)


def weights(result):
    return {name: tensor.clone() for name, tensor in result.model.state_dict().items()}


def test_training_learns_and_says_so(tmp_path):
    events = []
    result = run(
        tmp_path,
        listener=events.append,
        recipe=with_values(
            Recipe(), {"train.epochs": 24, "train.batch_size": 8, "train.lr": 1e-2, "augment.view": "none"}
        ),
    )
    assert result.history[result.best_epoch - 1]["val_accuracy"] >= 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    steps, epochs = ([e for e in events if isinstance(e, kind)] for kind in (Step, EpochEnd))
    assert [e.epoch for e in epochs] == list(range(1, 25))
    assert len(steps) == steps[-1].total_steps == 24 * 6
    assert steps[-1].seconds_left == 0
    assert result.stopped == "finished 24 epochs"


def test_metrics_and_tensorboard_are_written(tmp_path):
    result = run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert rows == list(result.history)
    assert {"epoch", "loss", "val_loss", "val_accuracy", "learning_rate", "seconds"} <= rows[0].keys()
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path):
    first, second = weights(run(tmp_path / "a")), weights(run(tmp_path / "b"))
    other = weights(run(tmp_path / "c", recipe=with_values(RECIPE, {"train.seed": 1})))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


class Stop(Exception):
    pass


def test_a_network_with_wide_kernels_on_colour_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Their moments lie in memory as the parameters do, channels last, which a checkpoint does not keep."""
    monkeypatch.setattr("effnet.training.loop.CHECKPOINT_SECONDS", 0.0)
    grey = tiny_dataset()

    def colour(split):
        return Split(sources=[np.repeat(image, 3, axis=2) for image in split.sources], labels=split.labels)

    dataset = dataclasses.replace(
        grey, channels=3, train=colour(grey.train), val=colour(grey.val), test=colour(grey.test)
    )
    preprocess = Preprocess(resolution=16, crop=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    spec = with_total_stride(scale(get_spec("v2_b0", num_classes=3), phi=-16, resolution=16), 8)

    def go(folder, listener=None):
        model = build(spec, seed=0)
        return weights(train(model, dataset, RECIPE, preprocess, folder=folder, listener=listener))

    def stop(event):
        if isinstance(event, Step) and event.step == 5:
            raise Stop

    whole = go(tmp_path / "whole")
    with pytest.raises(Stop):
        go(tmp_path / "parts", stop)
    resumed = go(tmp_path / "parts")
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


@pytest.mark.parametrize("at, recipe", [(1, RECIPE), (3, RECIPE), (4, RECIPE), (7, RECIPE), (1, TUNING), (4, TUNING)])
def test_a_run_interrupted_at_any_step_resumes_to_the_same_weights(tmp_path, monkeypatch, at, recipe):
    monkeypatch.setattr("effnet.training.loop.CHECKPOINT_SECONDS", 0.0)  # after every step
    whole = weights(run(tmp_path / "whole", recipe=recipe))

    def stop(event):
        if isinstance(event, Step) and event.step == at + 1:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "parts", listener=stop, recipe=recipe)
    resumed = run(tmp_path / "parts", recipe=recipe)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(resumed).items())
    rows = [json.loads(line)["epoch"] for line in (tmp_path / "parts" / METRICS).read_text().splitlines()]
    assert rows == [1, 2, 3]


_KILLED = """
import sys
sys.path[:0] = {folders!r}
import torch
torch.set_num_threads(1)
import effnet.training.loop as loop
loop.CHECKPOINT_SECONDS = 0.0
from pathlib import Path
from test_loop import run
from effnet.training.recipe_file import recipe_from_dict
run(Path({folder!r}), recipe=recipe_from_dict({recipe!r}), listener=lambda event: print("event", flush=True))
"""


@RECIPES
def test_kill_9_during_training_resumes_to_the_same_weights(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr("effnet.training.loop.CHECKPOINT_SECONDS", 0.0)
    whole = weights(run(tmp_path / "whole", recipe=recipe))
    folder = tmp_path / "killed"
    here = os.path.dirname(__file__)
    code = _KILLED.format(folders=[here, os.path.dirname(here)], folder=str(folder), recipe=recipe.to_dict())
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(4):
        assert process.stdout.readline() == "event\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (folder / CHECKPOINT).is_file()
    resumed = run(folder, recipe=recipe)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(resumed).items())


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = weights(run(tmp_path))
    events = []
    again = run(tmp_path, listener=events.append)
    assert events == []
    assert all(torch.equal(first[name], tensor) for name, tensor in weights(again).items())


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"\0" * 100)
    with pytest.raises(BundleError, match=r"checkpoint.*cannot be resumed.*remove the folder"):
        run(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path)
    model = build(scale(tiny_spec(), width=2.0, resolution=16), seed=0)
    with pytest.raises(BundleError, match="cannot be resumed"):
        train(model, tiny_dataset(), RECIPE, PREPROCESS, folder=tmp_path)


def test_early_stop_ends_training_and_keeps_the_best(tmp_path):
    recipe = with_values(Recipe(), {"train.epochs": 50, "train.batch_size": 16, "train.lr": 1e-9, "train.patience": 2})
    result = run(tmp_path, recipe=recipe)
    assert len(result.history) < 50
    assert "no better validation result for 2 epochs" in result.stopped
    best = max(
        range(len(result.history)), key=lambda i: (result.history[i]["val_accuracy"], -result.history[i]["val_loss"])
    )
    assert result.best_epoch == best + 1


def test_the_clock_ends_training_at_the_end_of_an_epoch(tmp_path):
    result = run(tmp_path, deadline_seconds=0.0)
    assert len(result.history) == 1
    assert result.stopped == "out of time after epoch 1 of 3"


def test_the_clock_ends_an_epoch_that_would_last_too_long(tmp_path):
    events = []
    run(
        tmp_path,
        deadline_seconds=1e-9,
        listener=events.append,
        recipe=with_values(Recipe(), {"train.epochs": 1, "train.batch_size": 4}),
    )
    assert sum(isinstance(event, Step) for event in events) == 1


def test_a_fourth_channel_does_not_change_the_others_when_pictures_are_shrunk():
    picture = np.zeros((200, 100, 4), dtype=np.uint8)
    picture[..., :3] = 200
    preprocess = Preprocess(resolution=16, mean=(0.5,) * 4, std=(0.5,) * 4)
    load = cached_loader(Split(sources=[picture], labels=np.zeros(1, np.int64)), preprocess)
    assert load(0).shape == (64, 32, 4)
    assert (load(0) == [200, 200, 200, 0]).all()


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    def broken(model, batch):
        return cross_entropy()(model, batch) * float("nan")

    with pytest.raises(EffnetError, match=r"the loss became nan at step 1 of epoch 1.*use a lower one"):
        run(tmp_path, loss_fn=broken)


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    run(tmp_path)
    good = (tmp_path / CHECKPOINT).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors({"x": torch.zeros(3)}, tmp_path / CHECKPOINT)
    assert (tmp_path / CHECKPOINT).read_bytes() == good


def test_pictures_that_cannot_be_read_are_replaced_in_training_and_left_out_of_evaluation(tmp_path):
    paths = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((16, 16), 20 * number, dtype=np.uint8)).save(path)
        paths.append(str(path))
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "5.png").unlink()
    split = Split(sources=paths, labels=np.arange(8))
    recipe = with_values(Recipe(), {"train.batch_size": 8, "augment.view": "none", "augment.flip": False})
    load = cached_loader(split, PREPROCESS)
    ((images, labels),) = train_batches(load, split.labels, recipe, PREPROCESS, epoch=0)
    assert sorted(labels) == [0, 1, 2, 4, 4, 6, 6, 7]
    assert all((image == 20 * label).all() for image, label in zip(images, labels, strict=True))
    ((images, indices),) = eval_batches(split, PREPROCESS)
    assert list(indices) == [0, 1, 2, 4, 6, 7]
    for path in paths:
        (tmp_path / path).write_bytes(b"no picture")
    with pytest.raises(ImageError, match="in a row cannot be read"):
        next(train_batches(cached_loader(split, PREPROCESS), split.labels, recipe, PREPROCESS, epoch=0))


def test_batches_are_the_same_however_many_threads_prepare_them_and_wherever_they_start():
    dataset, recipe = tiny_dataset(), with_values(Recipe(), {"train.batch_size": 8})
    load = cached_loader(dataset.train, PREPROCESS)

    def batches(**settings):
        return list(train_batches(load, dataset.train.labels, recipe, PREPROCESS, epoch=2, **settings))

    one, many, late = batches(), batches(workers=3, ahead=6), batches(start=4)
    assert len(one) == len(many) == len(late) + 4 == num_batches(48, 8)
    for (a, x), (b, y) in [*zip(one, many, strict=True), *zip(one[4:], late, strict=True)]:
        assert (a == b).all()
        assert (x == y).all()


@pytest.mark.parametrize(("images", "size"), [(2, 64), (64, 64), (65, 64), (66, 64), (128, 64), (129, 64), (7, 2)])
def test_no_batch_has_a_single_picture(images, size):
    labels = np.zeros(images, dtype=np.int64)
    picture = np.zeros((16, 16, 1), dtype=np.uint8)
    found = list(
        train_batches(
            lambda index: picture, labels, with_values(Recipe(), {"train.batch_size": size}), PREPROCESS, epoch=0
        )
    )
    assert len(found) == num_batches(images, size)
    assert min(len(labels) for _, labels in found) >= 2
    assert sum(len(labels) for _, labels in found) == images


def test_training_leaves_the_arithmetic_of_the_callers_thread_alone(tmp_path):
    run(tmp_path, recipe=with_values(Recipe(), {"train.epochs": 1, "train.batch_size": 16}))
    assert np.float32(1e-30) * np.float32(1e-10) > 0


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


def validated(model):
    """Returns accuracy and loss on the validation split, the better the greater."""
    split = tiny_dataset().val
    found = validate(model, [(np.stack(split.sources), split.labels)], PREPROCESS, torch.device("cpu"))
    return found.accuracy, -round(found.loss, 6)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, one_thread):
    """The state of a network that knows the pictures already."""
    recipe = with_values(Recipe(), {"train.epochs": 8, "train.batch_size": 8, "train.lr": 1e-2, "augment.view": "none"})
    result = run(tmp_path_factory.mktemp("learned"), recipe=recipe)
    assert validated(result.model)[0] >= 0.6
    return weights(result)


def tune(folder, learned, *, listener=None, **changes):
    recipe = with_values(TUNING, {f"train.{name}": value for name, value in changes.items()})
    model = build(tiny_spec(), dropout=recipe.model.dropout, drop_path=recipe.model.drop_path)
    model.load_state_dict(learned)
    return train(model, tiny_dataset(), recipe, PREPROCESS, folder=folder, listener=listener)


SPOILING = {"lr": 0.3, "frozen_norms": False, "layer_decay": 1.0}


def test_weights_that_training_only_spoils_are_given_back(tmp_path, learned):
    result = tune(tmp_path, learned, epochs=4, patience=2, **SPOILING)
    assert all(torch.equal(tensor, learned[name]) for name, tensor in weights(result).items())
    assert result.best_epoch == 0
    assert len(result.history) == 2
    assert result.stopped == "no better validation result for 2 epochs"
    assert max(row["val_accuracy"] for row in result.history) < validated(result.model)[0]
    spoiled = tune(tmp_path / "other", learned, epochs=2, start_counts=False, **SPOILING)
    assert validated(spoiled.model) < validated(result.model)


@pytest.mark.parametrize("changes", [{"lr": 1e-5}, {"lr": 1e-3}, {"lr": 3e-2}, SPOILING])
def test_where_the_start_counts_the_result_is_never_worse(tmp_path, learned, changes):
    model = build(tiny_spec())
    model.load_state_dict(learned)
    result = tune(tmp_path, learned, **changes)
    assert validated(result.model) >= validated(model)
    if result.best_epoch:
        row = result.history[result.best_epoch - 1]
        assert validated(result.model) == (row["val_accuracy"], -round(row["val_loss"], 6))
    else:
        assert all(torch.equal(tensor, learned[name]) for name, tensor in weights(result).items())


@pytest.mark.parametrize("at, seconds", [(1, 0.0), (4, 0.0), (2, 1000.0), (7, 1000.0)])  # between checkpoints
def test_the_start_counts_in_a_resumed_run_too(tmp_path, learned, monkeypatch, at, seconds):
    monkeypatch.setattr("effnet.training.loop.CHECKPOINT_SECONDS", seconds)

    def stop(event):
        if isinstance(event, Step) and event.step == at:
            raise Stop

    with pytest.raises(Stop):
        tune(tmp_path, learned, listener=stop, **SPOILING)
    result = tune(tmp_path, learned, **SPOILING)
    assert result.best_epoch == 0
    assert len(result.history) == 3
    assert all(torch.equal(tensor, learned[name]) for name, tensor in weights(result).items())


def part_of(name):
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "stages" else words[0]


def test_parameters_move_at_the_rate_of_their_depth(tmp_path):
    """Adam's first step is the learning rate itself, whatever the gradient."""
    recipe = with_values(
        Recipe(),
        {
            "train.epochs": 1,
            "train.batch_size": 48,
            "train.lr": 1e-3,
            "schedule.warmup": 0.0,
            "train.layer_decay": 0.6,
            "optimizer.weight_decay": 0.0,
        },
    )
    model = build(tiny_spec(), seed=0)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    result = train(model, tiny_dataset(), recipe, PREPROCESS, folder=tmp_path)
    parts = list(dict.fromkeys(part_of(name) for name in start))
    assert (parts[0], parts[-2:]) == ("stem", ["head", "classifier"])
    for below, part in enumerate(reversed(parts)):
        steps = [(p - start[name]).abs().max().item() for name, p in model.named_parameters() if part_of(name) == part]
        assert max(steps) == pytest.approx(1e-3 * 0.6**below, rel=2e-2)
    assert result.history[0]["learning_rate"] == pytest.approx(1e-3)
