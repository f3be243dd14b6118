import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from more import more
from tiny_runs import PREPROCESS, RECIPE, Stop, run, run_saving, weights

from effnet.progress import Step
from effnet.training.losses import cross_entropy
from effnet.training.recipe.file import with_values
from effnet.training.recipe.progressive import recipe_at, resolution_at, stage_at
from effnet.training.recipe.schema import Recipe, Stage, Train

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = [
    {"share": 1, "resolution": 8, "dropout": 0.0, "micro_batch": 8},
    {"share": 2, "resolution": 12, "dropout": 0.1},
    {"share": 1, "dropout": 0.3},
]
GROWING = with_values(RECIPE, {"train.epochs": 4, "stages": STAGES})


def test_the_stages_of_efficientnet_v2_s():
    """Four equal parts of 350 epochs: sizes 128 to 300, RandAugment 5 to 15, dropout 0.1 to 0.3 (Tan & Le, Table 6)."""
    sizes, magnitudes, rates = [128, 185, 242, 300], [5, 8, 12, 15], [0.1, 0.17, 0.23, 0.3]
    rows = [
        {"resolution": size, "magnitude": magnitude, "dropout": rate, "mixup": 0.0}
        for size, magnitude, rate in zip(sizes, magnitudes, rates, strict=True)
    ]
    recipe = with_values(Recipe(), {"train.epochs": 350, "augment.mixup": 0.5, "stages": rows})
    seen = [resolution_at(recipe, epoch, final=384) for epoch in range(350)]
    assert [seen.count(size) for size in sizes] == [88, 87, 87, 88]
    assert seen == sorted(seen)
    for epoch in (0, 100, 200, 349):
        now, number = recipe_at(recipe, epoch), sizes.index(seen[epoch])
        assert (now.augment.magnitude, now.model.dropout) == (magnitudes[number], rates[number])
        assert now.augment.mixup == 0
        assert now.stages == ()
        assert now.train == recipe.train


@given(shares=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), epochs=st.integers(1, 40))
def test_stages_follow_each_other_and_the_last_one_always_comes(shares, epochs):
    stages = tuple(Stage(share=share, resolution=8 + number) for number, share in enumerate(shares))
    recipe = Recipe(train=Train(epochs=epochs), stages=stages)
    order = [stages.index(stage_at(recipe, epoch)) for epoch in range(epochs)]
    assert order == sorted(order)
    assert order[-1] == len(stages) - 1
    for number in range(len(shares) - 1):  # each ends within an epoch of its share
        assert abs(sum(n <= number for n in order) - epochs * sum(shares[: number + 1]) / sum(shares)) <= 1.001


def test_a_recipe_without_stages_is_the_same_in_every_epoch():
    assert recipe_at(RECIPE, 2) is RECIPE
    assert resolution_at(RECIPE, 2, final=16) == 16


def test_training_sees_each_stage_and_validation_the_final_size(tmp_path):
    seen = []

    def loss_fn(network, batch):
        seen.append((len(batch.labels), batch.images.shape[-1], network.dropout.p))
        return cross_entropy()(network, batch)

    result = run(tmp_path, recipe=GROWING, loss_fn=loss_fn)
    assert seen == [(8, 8, 0.0)] * 6 + [(16, 12, 0.1)] * 6 + [(16, 16, 0.3)] * 3
    images = torch.zeros(2, 1, PREPROCESS.resolution, PREPROCESS.resolution)
    assert result.model(images).shape == (2, 3)


@pytest.mark.parametrize("at", [2, more(3), more(5), more(9), 11])
def test_a_run_resumes_within_any_stage_to_the_same_weights(tmp_path, at):
    whole = weights(run_saving(tmp_path / "whole", recipe=GROWING))

    def stop(event):
        if isinstance(event, Step) and event.step == at + 1:
            raise Stop

    with pytest.raises(Stop):
        run_saving(tmp_path / "parts", recipe=GROWING, listener=stop)
    events = []
    resumed = weights(run_saving(tmp_path / "parts", recipe=GROWING, listener=events.append))
    assert next(event.step for event in events if isinstance(event, Step)) == at + 1
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_images_are_kept_no_larger_than_a_stage_needs(tmp_path, monkeypatch):
    from effnet.training.input import shares as portions

    sides = []
    plain = portions.cached_loader

    def watched(split, preprocess, **limit):
        load = plain(split, preprocess, **limit)
        sides.append(preprocess.resolution)
        return lambda index: np.asarray(load(index))

    monkeypatch.setattr(portions, "cached_loader", watched)
    run(tmp_path, recipe=GROWING)
    assert sides[-3:] == [8, 12, 16]
