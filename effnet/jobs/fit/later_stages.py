"""The first step of fine-tuning: the later stages alone, on kept feature maps of the earlier ones."""

import shutil
import time
from pathlib import Path

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.nn.network import Network
from effnet.planner.events import Counted, Listener, Said
from effnet.training.checkpoint import trained_seconds
from effnet.training.device import pick_device
from effnet.training.loop import train
from effnet.training.recipe.schema import Recipe
from effnet.training.transfer.kept import keep, kept_learning, kept_recipe, tail_of

LATER = "later_stages"
"""The folder of this step in that of the run."""


def later_stages_(
    network: Network, dataset: Dataset, recipe: Recipe, preprocess: Preprocess, *, folder: Path, listener: Listener
) -> float:
    """Train the stages after `recipe.kept.stages` in place, or resume that; return the seconds that it took."""
    begun, device, own, plan = time.monotonic(), pick_device(), folder / LATER, recipe.kept
    before = trained_seconds(own)
    maps = own / "maps"
    text = f"Training what follows stage {plan.stages}, for {plan.epochs} epochs on kept feature maps"
    listener(Said(text=text, heading=True))
    kept = keep(
        network, dataset, recipe, preprocess, stages=plan.stages, views=plan.views, folder=maps, device=device,
        progress=lambda done, total: listener(Counted(label="feature maps", done=done, total=total)),
    )  # fmt: skip
    tail = tail_of(network, plan.stages)
    found = train(
        tail, dataset, kept_recipe(recipe), preprocess, folder=own, listener=listener, device=device,
        learning=kept_learning(dataset, kept),
    )  # fmt: skip
    network.load_state_dict(found.model.state_dict(), strict=False)
    shutil.rmtree(maps)
    return before + time.monotonic() - begun
