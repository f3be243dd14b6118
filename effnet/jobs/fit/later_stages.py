"""The first step of fine-tuning: the later stages alone, on kept feature maps of the earlier ones."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.nn.network import Network
from effnet.planner.events import Counted, Listener, Said
from effnet.training.checkpoint import trained_seconds
from effnet.training.device import pick_device
from effnet.training.loop import TrainResult, train
from effnet.training.recipe.schema import Recipe
from effnet.training.transfer.kept import keep, kept_learning, kept_recipe, tail_of

LATER = "later_stages"
"""The folder of this step in that of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The training of what follows the first `stages` stages, on `views` views of each image.

    `training` has the whole network as its model. `best_epoch` 0 means that no epoch was better than the head alone.
    """

    stages: int
    views: int
    training: TrainResult

    def to_facts(self) -> dict[str, Any]:
        """Return what a report says of it."""
        found = self.training
        return {
            "stages": self.stages, "views": self.views, "epochs": len(found.history), "best_epoch": found.best_epoch,
            "seconds": round(found.seconds, 1),
        }  # fmt: skip


def later_stages_(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    folder: Path,
    listener: Listener,
    deadline_seconds: float | None = None,
) -> Later:
    """Train the stages after `recipe.kept.stages` in place, or resume that, within `deadline_seconds`.

    These are the seconds of this session and, as those of the result, of earlier ones; the maps count.
    """
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
        deadline_seconds=None if deadline_seconds is None else deadline_seconds - (time.monotonic() - begun),
    )  # fmt: skip
    network.load_state_dict(found.model.state_dict(), strict=False)
    shutil.rmtree(maps)
    seconds = before + time.monotonic() - begun
    training = replace(found, model=network.eval(), seconds=seconds)
    return Later(stages=plan.stages, views=plan.views, training=training)
