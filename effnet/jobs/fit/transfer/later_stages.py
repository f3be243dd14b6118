"""The first step of fine-tuning: the later stages alone, on kept feature maps of the earlier ones."""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.nn.network import Network
from effnet.planner.dense_recipe import early_stages
from effnet.planner.events import Counted, Listener, Said
from effnet.planner.settings import MOST_TUNING_EPOCHS
from effnet.training.device import pick_device
from effnet.training.input.own import Lazy
from effnet.training.loop import TrainResult, train
from effnet.training.recipe.kept import Kept
from effnet.training.recipe.schema import Recipe
from effnet.training.speed import train_speed
from effnet.training.state.checkpoint import is_finished, trained_seconds
from effnet.training.transfer.kept import KeptMaps, keep, kept_learning, kept_recipe, map_bytes, tail_of

# The boundary: the maps after the last stage of at most this stride are a quarter of the work behind them, and small.
STRIDE = 8
# Views of each image, and the bytes of all maps on the disk.
_VIEWS, _LEAST_VIEWS, _MOST_BYTES = 4, 2, 2 * 10**9
# Epochs on the maps, and the fewest that are worth computing them.
_EPOCHS, _LEAST_EPOCHS = 30, 6
# Epochs on the whole network that are worth to follow.
_LEAST_WHOLE = 5
# A forward pass of a training step's time.
_FORWARD = 1 / 3

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


def with_later_stages(
    recipe: Recipe, spec: ArchSpec, *, num_train: int, seconds: float, whole: float, epoch_seconds: float, folder: Path
) -> Recipe:
    """Return the recipe of fine-tuning with what is trained in `seconds`: the later stages, all of them, or both.

    Where there is time for all worthwhile epochs on the whole network, nothing comes before them: the later stages
    first were better with fewer, in single runs of which there is no record.
    `whole` is the speed of the whole network in images a second, `epoch_seconds` are those of its epoch; the recipe's
    epochs are as many as may follow. The maps take at most half of the disk of `folder`.
    """
    if pick_device().type != "cpu" or _needs_images(recipe) or seconds >= MOST_TUNING_EPOCHS * epoch_seconds:
        return recipe
    stages = min(early_stages(spec, most=STRIDE), len(spec.stages) - 1)
    later = train_speed(spec, kept_stages=stages)
    most = min(_MOST_BYTES, shutil.disk_usage(folder).free // 2)
    views = min(_VIEWS, most // (map_bytes(spec, stages) * num_train))
    maps = views * num_train * _FORWARD * (1 / whole - 1 / later)
    epochs = min(_EPOCHS, int((seconds - maps) * later / num_train))
    if views < _LEAST_VIEWS or epochs < _LEAST_EPOCHS:
        return recipe
    rest = int((seconds - maps - epochs * num_train / later) / epoch_seconds)
    kept = Kept(views=views, epochs=epochs, stages=stages, alone=rest < _LEAST_WHOLE)
    train = dataclasses.replace(recipe.train, epochs=max(1, min(recipe.train.epochs, rest)))
    return dataclasses.replace(recipe, kept=kept, train=train)


def _needs_images(recipe: Recipe) -> bool:
    """Whether a recipe has what kept feature maps cannot follow: a teacher, attacks, or stages of its own."""
    return bool(recipe.loss.teacher or recipe.augment.adversarial or recipe.stages or recipe.train.micro_batch)


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
    if plan.stages >= len(network.stages):
        raise InputError(
            f"kept.stages must leave a stage to train, so be at most {len(network.stages) - 1}; got {plan.stages}: "
            "choose fewer, or set fit.strategy=head"
        )
    before = trained_seconds(own)
    maps = own / "maps"
    text = f"Training what follows stage {plan.stages}, for {plan.epochs} epochs on kept feature maps"
    listener(Said(text=text, heading=True))

    def make() -> KeptMaps:
        return keep(
            network, dataset, recipe, preprocess, stages=plan.stages, views=plan.views, folder=maps, device=device,
            progress=lambda done, total: listener(Counted(label="feature maps", done=done, total=total)),
        )  # fmt: skip

    kept, tail = Lazy(make), tail_of(network.to(device), plan.stages)
    if not is_finished(own):
        kept.get()  # before the seconds of training are counted
    found = train(
        tail, dataset, kept_recipe(recipe), preprocess, folder=own, listener=listener, device=device,
        learning=kept_learning(dataset, kept),
        deadline_seconds=None if deadline_seconds is None else deadline_seconds - (time.monotonic() - begun),
    )  # fmt: skip
    network.load_state_dict(found.model.state_dict(), strict=False)
    shutil.rmtree(maps, ignore_errors=True)
    seconds = before + time.monotonic() - begun
    training = dataclasses.replace(found, model=network.eval(), seconds=seconds)
    return Later(stages=plan.stages, views=plan.views, training=training)
