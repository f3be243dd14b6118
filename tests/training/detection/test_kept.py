"""The decoder learns from kept feature maps as it would from the views that they were made of."""

import numpy as np
import pytest
import torch
from rectangles import PREPROCESS, narrow_detector, rectangle_set

from effnet.progress import EpochEnd
from effnet.training.detection import inputs
from effnet.training.detection.kept import kept_dataset, kept_recipe, kept_views_within
from effnet.training.detection.learning import bound
from effnet.training.detection.staged import DECODER, train_detector
from effnet.training.device import to_input
from effnet.training.losses import Batch
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.state.checkpoint import load_best

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RECIPE = with_values(
    Recipe(),
    {
        "train.epochs": 1, "train.batch_size": 8, "train.lr": 0.01, "train.frozen_norms": True,
        "kept.views": 2, "kept.epochs": 3, "kept.lr": 0.02,
    },
)  # fmt: skip


def test_the_loss_and_the_validation_are_those_of_the_views():
    model, dataset = narrow_detector().eval(), rectangle_set(12, 5)
    kept = kept_dataset(model, dataset, RECIPE, PREPROCESS, device=CPU)
    rows = np.array([3, 12 + 3, 12 + 7])  # row v x images + i is view v of image i
    ours = bound(kept).loss_of(kept, RECIPE, preprocess=PREPROCESS, device=CPU)
    found = ours(model, Batch(images=torch.zeros(3, 1, 1, 1), labels=torch.from_numpy(rows)))
    views = inputs.views(dataset.train, RECIPE, PREPROCESS, limit=10**9)
    pairs = [views.view(i, RECIPE, np.random.default_rng([0, v, i])) for v, i in ((0, 3), (1, 3), (1, 7))]
    batch = Batch(
        images=to_input(np.stack([image for image, _ in pairs]), PREPROCESS, CPU),
        labels=torch.from_numpy(views.stack([rows for _, rows in pairs])),
    )
    whole = bound(dataset).loss_of(dataset, RECIPE, preprocess=PREPROCESS, device=CPU)(model, batch)
    assert float(found.detach()) == pytest.approx(float(whole.detach()), rel=2e-3)  # feature maps are fp16
    results = []
    for data in (kept, dataset):
        learning = bound(data)
        held_out = learning.inputs.held_out(data.val, RECIPE, PREPROCESS, batch_size=2, limit=10**9)
        results.append(learning.validate(model, held_out(), PREPROCESS, CPU))
    assert results[0].loss == pytest.approx(results[1].loss, rel=2e-3)
    assert results[0].ap == pytest.approx(results[1].ap, abs=1e-3)


def test_the_decoder_is_trained_alone_and_then_with_the_backbone(tmp_path):
    model, dataset, said = narrow_detector(), rectangle_set(), []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = train_detector(model, dataset, RECIPE, PREPROCESS, folder=tmp_path, listener=said.append)
    first = [event for event in said if isinstance(event, EpochEnd)][:3]
    assert first[-1].loss < first[0].loss
    assert result.history[0]["loss"] < first[0].loss
    alone = load_best(tmp_path / DECODER)
    for name, tensor in before.items():
        backbone = name.startswith(("stem.", "stages."))
        if backbone:
            assert torch.equal(alone[name], tensor), name
    changed = [name for name, tensor in result.model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert any(name.startswith("stages.") for name in changed)
    again = train_detector(narrow_detector(), dataset, RECIPE, PREPROCESS, folder=tmp_path, deadline_seconds=1.0)
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in result.model.state_dict().items())


def test_views_that_do_not_fit_into_memory_are_left_out():
    model, size = narrow_detector(), (64, 64)
    assert kept_views_within(model, 10, RECIPE, size) == 2
    assert kept_views_within(model, 10**9, RECIPE, size) == 0
    recipe = kept_recipe(RECIPE, 7)
    assert (recipe.train.epochs, recipe.train.frozen_stages, recipe.augment.jitter) == (3, 7, 0.0)
