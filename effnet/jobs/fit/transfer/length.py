"""The length of fine-tuning: what is trained, and for how many epochs, in the time that is left."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.bundle.names import RECIPE
from effnet.data.datasets import Dataset
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.transfer.later_stages import with_later_stages
from effnet.planner.settings import epochs_in, finetune_recipe, tuning_seconds
from effnet.planner.timetable import Pace
from effnet.training.recipe.file import with_values
from effnet.training.recipe.read import read_recipe
from effnet.training.recipe.schema import Recipe
from effnet.training.speed import train_speed
from effnet.training.state.checkpoint import trained_seconds
from effnet.weights.adapt import Arrays, has_folded_norms

# The share of the students' time that training before them may take.
_SPARE = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """The time limit of training: `minutes`, or with a `pace` the seconds that `left` returns.

    The `students` of unlabelled images get their seconds after it. If all worthwhile epochs fit with a third of these,
    training is what it would be without students: if none is better, nothing is lost.
    """

    minutes: float | None
    pace: Pace | None
    left: Callable[[], float]
    students: float = 0.0
    speeds: dict[ArchSpec, float] = dataclasses.field(default_factory=dict)

    def speed(self, spec: ArchSpec) -> float:
        """Return the training images per second of the whole network, measured once."""
        if spec not in self.speeds:
            self.speeds[spec] = train_speed(spec)
        return self.speeds[spec]

    def epoch(self, spec: ArchSpec, dataset: Dataset) -> float:
        """Return the seconds of an epoch on the whole network."""
        if self.pace is None:
            return len(dataset.train) / self.speed(spec)
        return self.pace.epoch(dataset, cost(spec).macs, images_per_second=self.speed(spec))

    def rest(self, spec: ArchSpec, dataset: Dataset, *, spent: float) -> float:
        """Return the seconds for fine-tuning after a head that took `spent` seconds."""
        rest = self.left()
        if self.pace is None:
            assert self.minutes is not None
            rest = max(6.0, 60 * self.minutes - spent)
        if self.students and tuning_seconds(self.epoch(spec, dataset)) <= rest + self._spare:
            rest += self.students  # the number of worthwhile epochs ends it, long before
        return rest

    @property
    def _spare(self) -> float:
        return _SPARE * self.students

    def epochs(self, spec: ArchSpec, dataset: Dataset, *, spent: float) -> int:
        """Return the number of epochs that fit into the rest, after a head that took `spent` seconds."""
        num_train, rest = len(dataset.train), self.rest(spec, dataset, spent=spent)
        return epochs_in(rest / 60, images_per_second=num_train / self.epoch(spec, dataset), num_train=num_train)

    def with_later_stages(
        self, recipe: Recipe, spec: ArchSpec, dataset: Dataset, *, spent: float, folder: Path
    ) -> Recipe:
        """Return the recipe with what is trained in the rest; see effnet.jobs.fit.transfer.later_stages."""
        rest = self.rest(spec, dataset, spent=spent)
        return with_later_stages(
            recipe, spec, num_train=len(dataset.train), seconds=rest, whole=self.speed(spec),
            epoch_seconds=self.epoch(spec, dataset), folder=folder,
        )  # fmt: skip

    def seconds(self, folder: Path, *, spent: float) -> float | None:
        """Return the seconds of training after which it ends, including those of earlier sessions."""
        if self.pace is not None:
            return trained_seconds(folder) + max(1.0, self.left() + self._spare)
        return None if self.minutes is None else max(1.0, 66 * self.minutes + self._spare - spent)


def tuned_recipe(
    attempt: Attempt,
    dataset: Dataset,
    spec: ArchSpec,
    state: Arrays,
    *,
    epochs: int | None,
    limit: TimeLimit,
    settings: Mapping[str, Any],
    spent: float,
    folder: Path,
    kept: bool = False,
) -> Recipe:
    """Return the recipe of fine-tuning, which is kept in `folder`, so that a resumed fit does not measure again.

    `kept` says that the later stages may be trained on kept feature maps, if time is limited.
    """
    path = folder / RECIPE
    if path.is_file():
        recipe = read_recipe(path, spec)
        if epochs is None or epochs <= recipe.train.epochs:
            return recipe
        # More epochs are requested; everything else stays.
        train, kept_first = dataclasses.replace(recipe.train, epochs=epochs), recipe.kept
        recipe = dataclasses.replace(recipe, train=train, kept=dataclasses.replace(kept_first, alone=False))
        write_text(path, json.dumps(recipe.to_dict()))
        return recipe
    timed = epochs is None
    if epochs is None:
        epochs = limit.epochs(spec, dataset, spent=spent)
    recipe = finetune_recipe(
        attempt.recipe,
        attempt.preprocess,
        num_train=len(dataset.train),
        epochs=epochs,
        folded=has_folded_norms(state, spec),
    )
    # Requested settings override those of fine-tuning; its epochs are as given.
    others = {name: value for name, value in settings.items() if name not in ("train.epochs", "train.seed")}
    recipe = with_values(recipe, others)
    if kept and timed and not any(name.startswith("kept.") for name in others):
        recipe = limit.with_later_stages(recipe, spec, dataset, spent=spent, folder=folder)
    write_text(path, json.dumps(recipe.to_dict()))
    return recipe
