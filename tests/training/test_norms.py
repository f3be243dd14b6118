import pytest
import torch
from strategies import build_trained
from tiny_runs import PREPROCESS, RECIPE, tiny_dataset, tiny_spec

from effnet.training.loop import train
from effnet.training.recipe_file import with_values

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
