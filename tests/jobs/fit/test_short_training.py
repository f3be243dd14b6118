"""Short trainings: a representative part of the images, a network that learns from it, and no files left over."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import tiny_dataset, tiny_spec

from effnet.bundle.names import RUN
from effnet.data.datasets import Split, read_dataset
from effnet.data.inspection.inspect import inspect_dataset
from effnet.data.order import Blocks, epoch_order
from effnet.jobs.fit.choice import short_training as shorts
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.nas.trials import ROUNDS
from effnet.planner.space import only_candidate
from effnet.progress import EpochEnd

pytestmark = pytest.mark.usefixtures("one_thread")

CANDIDATE = only_candidate(tiny_spec())


def job(out, **settings):
    return job_of(FitConfig("unread", out=out, weights="none", **({"minutes": 1.0} | settings)))


def short(out, dataset, *, seconds=0.0):
    return shorts.short_training(job(out), dataset, inspect_dataset(dataset), seconds=seconds)


@pytest.fixture(autouse=True)
def known_speed(monkeypatch):
    """A machine that trains a thousand images per second."""
    monkeypatch.setattr(shorts, "training_speed", lambda spec: 1000.0)


@pytest.fixture
def used(monkeypatch):
    """The data sets that trainings received; none is run."""
    found = []

    def record(model, dataset, *_, listener, **__):
        found.append(dataset)
        row = EpochEnd(epoch=1, loss=1.0, val_loss=1.0, learning_rate=0.1, seconds=1.0, images_per_second=1.0)
        listener(dataclasses.replace(row, figures={"val_accuracy": 0.5, "val_balanced_accuracy": 0.5}))
        return SimpleNamespace(model=model)

    monkeypatch.setattr(shorts, "train", record)
    return found


@pytest.mark.elsewhere
def test_a_network_learns_in_nine_rounds_and_leaves_nothing(tmp_path):
    heard = []

    def hear(number, accuracy):
        heard.append((number, accuracy))
        return True

    best = short(tmp_path / "out", tiny_dataset(num=200), seconds=2.0)(CANDIDATE, hear)
    assert [number for number, _ in heard] == list(range(1, ROUNDS + 1))
    assert best == max(accuracy for _, accuracy in heard)
    assert best > 0.6  # three classes
    assert not list((tmp_path / "out" / RUN).iterdir())


def test_a_trial_that_fell_behind_ends_at_once_with_what_it_reached(tmp_path):
    heard = []

    def hear(number, accuracy):
        heard.append(accuracy)
        return len(heard) < 2

    assert short(tmp_path, tiny_dataset())(CANDIDATE, hear) == max(heard)
    assert len(heard) == 2
    assert not list((tmp_path / RUN).iterdir())


def test_the_time_decides_how_many_images_each_class_sends(used, tmp_path):
    digits = read_dataset("digits")
    short(tmp_path, digits, seconds=4.5)(CANDIDATE, lambda *_: True)
    (some,) = used
    assert len(some.train) == pytest.approx(4.5 * 1000 / ROUNDS, abs=5)  # each class rounds its own share
    shares = [np.bincount(split.labels) / len(split) for split in (digits.train, some.train)]
    np.testing.assert_allclose(*shares, atol=0.003)
    whole = {image.tobytes(): label for image, label in zip(digits.train.sources, digits.train.labels, strict=True)}
    assert all(
        whole[image.tobytes()] == label for image, label in zip(some.train.sources, some.train.labels, strict=True)
    )
    assert some.val is digits.val
    assert some.test is digits.test


def test_however_short_the_time_every_class_has_some_images(used, tmp_path):
    short(tmp_path, read_dataset("digits"), seconds=1e-6)(CANDIDATE, lambda *_: True)
    assert np.bincount(used[0].train.labels).min() >= 19


def test_without_validation_images_those_of_training_are_asked(used, tmp_path):
    dataset = tiny_dataset()
    empty = dataclasses.replace(dataset, val=Split(sources=[], labels=np.zeros(0, np.int64)))
    short(tmp_path, empty)(CANDIDATE, lambda *_: True)
    assert used[0].val is dataset.train


def sharded(*, blocks, a_block, sorted_by_class=False):
    """Images in blocks of which two can be kept on disk."""
    dataset = tiny_dataset(num=blocks * a_block)
    labels = np.sort(dataset.train.labels) if sorted_by_class else dataset.train.labels
    train = Split(
        sources=dataset.train.sources,
        labels=labels,
        blocks=Blocks(numbers=np.repeat(np.arange(blocks), a_block), mixed=2),
    )
    return dataclasses.replace(dataset, train=train)


def test_of_a_set_too_large_for_the_disk_few_blocks_are_drawn_and_visited_in_turn(used, tmp_path):
    """Otherwise each image of a trial would be downloaded with all others of its shard, and again in the next round."""
    dataset = sharded(blocks=50, a_block=30)
    short(tmp_path, dataset, seconds=0.9)(CANDIDATE, lambda *_: True)
    split = used[0].train
    assert len(split) == pytest.approx(100, abs=3)
    block = {id(source): i // 30 for i, source in enumerate(dataset.train.sources)}
    np.testing.assert_array_equal([block[id(source)] for source in split.sources], split.blocks.numbers)
    assert len(np.unique(split.blocks.numbers)) == 4  # of thirty images each
    order = split.blocks.numbers[epoch_order(len(split), seed=0, epoch=1, blocks=split.blocks)]
    due = [len(set(order[:i]) & set(order[i:])) for i in range(len(order))]
    assert max(due) <= split.blocks.mixed + 1


def test_blocks_of_one_class_each_leave_no_class_out(used, tmp_path):
    dataset = sharded(blocks=12, a_block=30, sorted_by_class=True)
    short(tmp_path, dataset, seconds=0.54)(CANDIDATE, lambda *_: True)
    assert np.bincount(used[0].train.labels).min() >= 10
