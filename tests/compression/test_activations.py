"""Replaced activations: the same layers and weights, another function, and retraining to recover."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from patterns import LEARNING, patterns
from strategies import specs
from tiny_runs import PREPROCESS

from effnet import get_spec
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.bundle.config import write_config
from effnet.compression.activations import standins, train_replaced, with_activation, with_spec
from effnet.compression.recovery import network_of, recover, recovery_epochs, recovery_recipe, save_teacher
from effnet.data.datasets import Split
from effnet.measurement.answers import predict_split
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=40, deadline=None)
@given(specs())
def test_only_functions_change(spec):
    for found in standins(spec):
        assert found.activation != spec.activation
        assert cost(found).params == cost(spec).params
        for (name, layer), (other, changed) in zip(named_layers(spec), named_layers(found), strict=True):
            assert name == other
            assert layer._replace(function="") == changed._replace(function="")


def test_the_gate_loses_its_exponential_where_there_is_one():
    found = with_activation(get_spec("b0"), "relu6")
    assert (found.activation, found.se_gate) == ("relu6", "hard_sigmoid")
    lite = get_spec("tf_efficientnet_lite0")
    assert with_activation(dataclasses.replace(lite, activation="silu"), "relu6") == lite
    assert standins(lite) == ()


def test_a_replaced_network_learns_what_it_has_lost_and_exports(good, tmp_path):
    """SiLU for ReLU is not an offered replacement, but one that hurts; afterwards the usual files are written."""
    data = patterns()
    spec = with_activation(good.config.arch, "silu")
    recipe = recovery_recipe(data, PREPROCESS, epochs=3, teacher=save_teacher(good, tmp_path / "teacher"), lr=2e-3)
    recipe = dataclasses.replace(recipe, augment=LEARNING.augment)

    def right(subject, name):
        folder = tmp_path / name
        folder.mkdir()
        write_config(subject.config, folder)
        export_onnx(folder, subject.config, subject.state)
        probabilities, _ = predict_split(Predictor(folder), data.test)
        return (probabilities.argmax(1) == data.test.labels).mean()

    untrained = with_spec(good, spec)
    state = recover(network_of(untrained), untrained, data, recipe, folder=tmp_path / "run")
    found = dataclasses.replace(untrained, state=state)
    assert right(found, "after") > right(untrained, "before") + 0.05
    assert right(found, "again") > right(good, "original") - 0.1


def test_train_replaced_returns_the_new_spec_with_new_weights(good, tmp_path):
    data = patterns()
    small = dataclasses.replace(data, train=Split(sources=data.train.sources[:32], labels=data.train.labels[:32]))
    silu = with_spec(good, dataclasses.replace(good.config.arch, activation="silu"))
    recipe = recovery_recipe(small, PREPROCESS, epochs=1, teacher=save_teacher(silu, tmp_path / "teacher"))
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, start_counts=False))
    found = train_replaced(silu, standins(silu.config.arch)[0], small, recipe, folder=tmp_path / "run")
    assert found.config.arch.activation == "relu6"
    assert found.config.class_names == silu.config.class_names
    assert set(found.state) == set(silu.state)
    assert not np.array_equal(found.state["stem.conv.weight"], silu.state["stem.conv.weight"])
    # BatchNorm statistics are frozen.
    np.testing.assert_array_equal(found.state["stem.norm.running_mean"], silu.state["stem.norm.running_mean"])


@pytest.mark.parametrize(
    "num_train, minutes, expected",
    [(60, None, 100), (400, None, 64), (8000, None, 4), (100_000, None, 3), (8000, 1.0, 1), (1000, 1.0, 4)],
)
def test_recovery_takes_the_steps_it_needs_or_the_time_it_has(num_train, minutes, expected):
    assert recovery_epochs(num_train, batch_size=32, images_per_second=100.0, minutes=minutes) == expected


def test_recovery_takes_no_more_epochs_than_it_may():
    assert recovery_epochs(60, batch_size=32, images_per_second=100.0, minutes=None, most=2) == 2
    assert recovery_epochs(8000, batch_size=32, images_per_second=100.0, minutes=None, most=9) == 4
