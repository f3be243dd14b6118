import json

import numpy as np
import pytest
import torch
from more import more
from tiny_runs import PREPROCESS, RECIPE, TUNING, Stop, run, tiny_dataset, tiny_spec, weights

from effnet.bundle.names import METRICS
from effnet.nn.kernels.library import Kernels
from effnet.nn.network import build
from effnet.progress import EpochEnd, Noted, Step
from effnet.training.classification.learning import validate
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_training_leaves_the_arithmetic_of_the_callers_thread_alone(tmp_path):
    run(tmp_path, recipe=with_values(Recipe(), {"train.epochs": 1, "train.batch_size": 16}))
    assert np.float32(1e-30) * np.float32(1e-10) > 0


def validated(model):
    """Return accuracy and minus the loss on the validation split."""
    split = tiny_dataset().val
    found = validate(model, [(np.stack(split.sources), split.labels)], PREPROCESS, torch.device("cpu"))
    return found.accuracy, -round(found.loss, 6)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, one_thread):
    """Return the state of a network already trained on the images."""
    recipe = with_values(Recipe(), {"train.epochs": 8, "train.batch_size": 8, "train.lr": 1e-2, "augment.view": "none"})
    result = run(tmp_path_factory.mktemp("learned"), recipe=recipe)
    assert validated(result.model)[0] >= 0.6
    return weights(result)


def tune(folder, learned, *, listener=None, checkpoint_seconds=20.0, **changes):
    recipe = with_values(TUNING, {f"train.{name}": value for name, value in changes.items()})
    model = build(tiny_spec(), dropout=recipe.model.dropout, drop_path=recipe.model.drop_path)
    model.load_state_dict(learned)
    return train(
        model, tiny_dataset(), recipe, PREPROCESS, folder=folder, listener=listener,
        checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip


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


@pytest.mark.parametrize("at, seconds", [(1, 0.0), more(4, 0.0), (2, 1000.0), more(7, 1000.0)])  # between checkpoints
def test_the_start_counts_in_a_resumed_run_too(tmp_path, learned, at, seconds):
    def stop(event):
        if isinstance(event, Step) and event.step == at:
            raise Stop

    with pytest.raises(Stop):
        tune(tmp_path, learned, listener=stop, checkpoint_seconds=seconds, **SPOILING)
    result = tune(tmp_path, learned, checkpoint_seconds=seconds, **SPOILING)
    assert result.best_epoch == 0
    assert len(result.history) == 3
    assert all(torch.equal(tensor, learned[name]) for name, tensor in weights(result).items())


def test_a_run_says_once_that_it_goes_without_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.training.loop.find_kernels", lambda: Kernels(note="no C compiler"))
    events = []
    run(tmp_path / "run", recipe=with_values(RECIPE, {"train.epochs": 1}), listener=events.append)
    assert [event.text for event in events if isinstance(event, Noted)] == ["no C compiler"]
    events.clear()
    plain = with_values(RECIPE, {"train.epochs": 1, "train.fused": False})
    run(tmp_path / "plain", recipe=plain, listener=events.append)
    assert not any(isinstance(event, Noted) for event in events)
