import pytest
from tiny_runs import PREPROCESS, part_of, run, tiny_dataset, tiny_spec

from effnet.errors import EffnetError
from effnet.nn.network import build
from effnet.training.loop import train
from effnet.training.losses import cross_entropy
from effnet.training.recipe import Recipe
from effnet.training.recipe_file import with_values

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    def broken(model, batch):
        return cross_entropy()(model, batch) * float("nan")

    with pytest.raises(EffnetError, match=r"the loss became nan at step 1 of epoch 1.*use a lower one"):
        run(tmp_path, loss_fn=broken)


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
