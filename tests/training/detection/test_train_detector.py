"""The loop trains detectors: it learns, resumes exactly, and says why if it finds nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from rectangles import NAMES, PREPROCESS, narrow_detector, rectangle_set
from tiny_runs import Stop

from effnet.arch.decoders.record import AnchorHead, Detector, Pyramid
from effnet.data.annotated.objects import CLASS, CROWD, STATE
from effnet.data.datasets import Split
from effnet.errors import DataError, InputError
from effnet.progress import EpochEnd, Noted, Step
from effnet.training.checks import check_run
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = with_values(
    Recipe(),
    {
        "train.epochs": 2, "train.batch_size": 8, "train.lr": 0.02, "boxes.zoom_out": 0.8, "boxes.zoom_in": 1.2,
        "boxes.mosaic": 0.3, "augment.jitter": 0.1,
    },
)  # fmt: skip


def run(folder, *, recipe=RECIPE, model=None, dataset=None, **options):
    return train(model or narrow_detector(), dataset or rectangle_set(), recipe, PREPROCESS, folder=folder, **options)


def test_a_detector_learns_to_find_rectangles(tmp_path):
    recipe = with_values(RECIPE, {"train.epochs": 8, "boxes.mosaic": 0.0, "train.lr": 0.03})
    rows = run(tmp_path, recipe=recipe, dataset=rectangle_set(40, 8)).history
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[0]["val_ap50"] < 0.01
    assert max(row["val_ap50"] for row in rows) > 0.1
    assert all(row["val_ap"] <= row["val_ap50"] for row in rows)


@pytest.mark.elsewhere
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    whole = run(tmp_path / "whole")
    seen = []

    def stop_after(number):
        def listener(event):
            if isinstance(event, Step):
                seen.append(event.step)
                if event.step == number:
                    raise Stop

        return listener

    for number in (2, 5):
        with pytest.raises(Stop):
            run(tmp_path / "parts", listener=stop_after(number), checkpoint_seconds=0.0)
    parts = run(tmp_path / "parts", listener=stop_after(0), checkpoint_seconds=0.0)
    assert len(seen) > len(set(seen)) or seen[-1] == 6
    assert [row["val_ap"] for row in parts.history] == [row["val_ap"] for row in whole.history]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_the_frozen_part_of_the_backbone_stays_and_the_rest_learns(tmp_path):
    recipe = with_values(RECIPE, {"train.epochs": 1, "train.frozen_stages": 2, "train.frozen_norms": True})
    before = {name: tensor.clone() for name, tensor in narrow_detector().state_dict().items()}
    after = run(tmp_path, recipe=recipe).model.state_dict()
    same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    assert {name for name in before if name.startswith(("stem.", "stages.0.", "stages.1."))} <= same
    statistics = {name for name in before if "running" in name}
    assert {name for name in statistics if name.startswith("stages.")} <= same
    assert not {name for name in statistics if not name.startswith(("stem.", "stages."))} & same
    assert not {name for name in before if name.startswith("stages.6") and name.endswith("conv.weight")} & same


def test_an_efficientdet_learns_with_its_own_loss(tmp_path):
    model = narrow_detector(
        decoder=Detector(neck=Pyramid(channels=16, cells=1, max_level=5), head=AnchorHead(repeats=1))
    )
    recipe = with_values(RECIPE, {"train.epochs": 2, "train.lr": 0.01})
    rows = run(tmp_path, recipe=recipe, model=model).history
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_run_that_finds_nothing_says_why(tmp_path):
    said = []
    run(tmp_path, recipe=with_values(RECIPE, {"train.epochs": 1, "train.lr": 1e-6}), listener=said.append)
    (end,) = [event for event in said if isinstance(event, EpochEnd)]
    assert "; it finds nearly nothing" in end.words
    assert not end.words.endswith(".")  # a comma and the learning rate follow


def changed(dataset, change):
    """Return the data set with the targets of its training images changed."""
    labels = dataset.train.labels.copy()
    change(labels)
    return dataclasses.replace(dataset, train=Split(sources=dataset.train.sources, labels=labels))


def test_what_cannot_be_learnt_is_said_before_a_run():
    model, dataset = narrow_detector(), rectangle_set()
    assert check_run(model, dataset, RECIPE) == []

    def shrink(labels):
        labels[..., 2:4] = labels[..., :2] + 3  # between the points of stride 8, or on one of them

    (sentence,) = check_run(model, changed(dataset, shrink), RECIPE)
    assert "100.00% have a side below 8 pixels" in sentence
    assert "cannot be learnt" in sentence

    def one_class(labels):
        labels[..., CLASS] = np.minimum(labels[..., CLASS], 0)

    (sentence,) = check_run(model, changed(dataset, one_class), RECIPE)
    assert sentence == f"These classes have no objects in train and cannot be learnt: {NAMES[1]}"

    def crowds(labels):
        labels[..., STATE] = CROWD

    with pytest.raises(DataError, match="must have objects that count"):
        check_run(model, changed(dataset, crowds), RECIPE)


def test_settings_and_networks_without_boxes_are_refused():
    model, dataset = narrow_detector(), rectangle_set()
    wrong = {"augment.rotation": 5.0, "augment.mixup": 0.2, "augment.policy": "randaugment"}
    with pytest.raises(InputError, match=r"augment.rotation must be 0, got 5; augment.mixup .* augment.policy"):
        check_run(model, dataset, with_values(RECIPE, wrong))
    with pytest.raises(DataError, match="as many classes as the data set, 2; it has 3"):
        check_run(narrow_detector(classes=3), dataset, RECIPE)
    with pytest.raises(InputError, match="must have the decoder of a detector"):
        check_run(torch.nn.Linear(1, 1), dataset, RECIPE)


def test_notes_reach_the_listener(tmp_path):
    said = []

    def forget(labels):
        labels[..., CLASS] = np.minimum(labels[..., CLASS], 0)

    with pytest.raises(Stop):
        run(tmp_path, dataset=changed(rectangle_set(), forget), listener=lambda event: _stop(said, event))
    assert any("cannot be learnt: dark" in event.text for event in said if isinstance(event, Noted))


def _stop(said, event):
    said.append(event)
    if isinstance(event, Step):
        raise Stop
