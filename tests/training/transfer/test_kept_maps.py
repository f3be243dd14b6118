"""The later stages learn from kept feature maps as they would from the views that they were made of."""

import numpy as np
import pytest
import torch
from tiny_runs import PREPROCESS, TUNING, Stop, tiny_dataset, tiny_spec

from effnet.nn.network import build
from effnet.progress import EpochEnd
from effnet.training.device import to_input
from effnet.training.input.batches import augmented, cached_loader
from effnet.training.input.own import Lazy
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.transfer.kept import front_of, keep, kept_learning, kept_recipe, tail_of

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RECIPE = with_values(TUNING, {"kept.stages": 1, "kept.views": 2, "kept.epochs": 2, "augment.jitter": 0.2})


def kept_of(model, dataset, folder, recipe=RECIPE):
    plan = recipe.kept
    return keep(model, dataset, recipe, PREPROCESS, stages=plan.stages, views=plan.views, folder=folder, device=CPU)


def trained(folder, *, recipe=RECIPE, listener=None):
    model, dataset = build(tiny_spec(), dropout=0.2, seed=0), tiny_dataset()
    kept = Lazy(lambda: kept_of(model, dataset, folder / "maps", recipe))
    result = train(
        tail_of(model, recipe.kept.stages),
        dataset,
        kept_recipe(recipe),
        PREPROCESS,
        folder=folder,
        listener=listener,
        learning=kept_learning(dataset, kept),
        device=CPU,
        checkpoint_seconds=0.0,
    )
    return model, result


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_the_tail_follows_the_front(stages):
    model = build(tiny_spec(), seed=0).eval()
    images = torch.rand(2, 1, 16, 16)
    tail = tail_of(model, stages)
    torch.testing.assert_close(tail(front_of(model, stages)(images)), model(images))
    assert set(tail.state_dict()) <= set(model.state_dict())
    assert not any(name.startswith(("stem.", *(f"stages.{i}." for i in range(stages)))) for name in tail.state_dict())


def test_rows_are_the_views_of_training_and_the_held_out_images(tmp_path):
    model, dataset = build(tiny_spec(), seed=0).eval(), tiny_dataset(num=40)
    recipe = with_values(RECIPE, {"augment.jitter": 0.0})
    kept = kept_of(model, dataset, tmp_path, recipe)
    load, front = cached_loader(dataset.train, PREPROCESS), front_of(model, 1)
    for number, index in ((0, 3), (1, 39)):
        view = augmented(load(index), recipe, PREPROCESS, rng=np.random.default_rng([0, number, index]))
        expected = front(to_input(view[None], PREPROCESS, CPU))[0].detach().permute(1, 2, 0).numpy()
        np.testing.assert_allclose(kept.train.values[number * 40 + index], expected, rtol=2e-3, atol=2e-3)
    learning = kept_learning(dataset, Lazy(lambda: kept))
    held_out = learning.inputs.held_out(dataset.val, recipe, PREPROCESS, batch_size=5, limit=0)
    found = learning.validate(tail_of(model, 1).eval(), held_out(), PREPROCESS, CPU)
    images = [(np.stack(dataset.val.sources), dataset.val.labels)]
    whole = learning.validate(model, images, PREPROCESS, CPU)
    assert found.accuracy == whole.accuracy
    assert found.loss == pytest.approx(whole.loss, rel=2e-3)


def test_only_what_follows_is_trained_and_it_is_resumed_to_the_same_weights(tmp_path):
    said = []
    model, result = trained(tmp_path / "whole", listener=said.append)
    losses = [event.loss for event in said if isinstance(event, EpochEnd)]
    assert losses[-1] < losses[0]
    before = build(tiny_spec(), dropout=0.2, seed=0).state_dict()
    after = model.state_dict()
    same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    early = {name for name in after if name.startswith(("stem.", "stages.0."))}
    assert early <= same
    assert not {name for name in same - early if name.endswith("weight")}

    def stop(event):
        if isinstance(event, EpochEnd):
            raise Stop

    with pytest.raises(Stop):
        trained(tmp_path / "cut", listener=stop)
    _, again = trained(tmp_path / "cut")
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in result.model.state_dict().items())


def test_an_unreadable_image_gives_way_to_the_next(tmp_path):
    dataset = tiny_dataset(num=6)
    dataset.train.sources[2] = str(tmp_path / "absent.png")
    kept = kept_of(build(tiny_spec(), seed=0), dataset, tmp_path)
    assert kept.train.indices.tolist() == [0, 1, 3, 3, 4, 5] * 2
    inputs = kept_learning(dataset, Lazy(lambda: kept)).inputs
    _, label = inputs.view(2, RECIPE, np.random.default_rng(0))
    assert label == dataset.train.labels[3]
