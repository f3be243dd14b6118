"""Short trainings of detectors and segmenters, to compare the candidates of a plan."""

import dataclasses

from effnet.data.datasets import Dataset
from effnet.jobs.fit.choice.short_training import Listening, part_of
from effnet.jobs.fit.dense import dense_attempt, started
from effnet.jobs.fit.job import Job
from effnet.nas.trials import ROUNDS, Report, Score
from effnet.planner.space import Candidate
from effnet.training.detection.kept import kept_dataset, kept_recipe, kept_views_within
from effnet.training.device import pick_device
from effnet.training.loop import train
from effnet.training.speed import run_speed

# Views of each image whose feature maps are kept, and how many times as many images as in training of the whole network
# that pays for. Both are guesses: the decoder is a small part of a step, and each view one pass through the backbone.
_VIEWS, _KEPT_GAIN = 2, 3
# Validation of an image costs a third of a training step, after each round.
_MOST_VALIDATED = 64


def dense_trial(job: Job, dataset: Dataset, *, seconds: float) -> Score:
    """Return a function that trains a candidate for about `seconds`: nine epochs on as many images as that allows.

    Of a detector on a pretrained backbone the decoder alone is trained, on kept feature maps.
    """

    def score(candidate: Candidate, heard: Report) -> float:
        attempt = dense_attempt(job, dataset, 0, candidate)
        recipe = dataclasses.replace(
            attempt.recipe,
            train=dataclasses.replace(attempt.recipe.train, epochs=ROUNDS, start_counts=False),
            kept=dataclasses.replace(attempt.recipe.kept, views=_VIEWS, epochs=ROUNDS),
        )
        preprocess, device = attempt.preprocess, pick_device()
        network, _ = started(
            candidate.spec, attempt, weights=candidate.weights, model=str(job.config.model) or None
        )  # fmt: skip
        images = int(seconds * run_speed(candidate.spec, dataset, recipe, preprocess) / ROUNDS)
        some = part_of(dataset, images, seed=job.seed, most_validated=_MOST_VALIDATED)
        if dataset.task == "detection" and candidate.weights:
            larger = part_of(dataset, _KEPT_GAIN * images, seed=job.seed, most_validated=_MOST_VALIDATED)
            if kept_views_within(network, len(larger.train), recipe, preprocess.size) >= _VIEWS:
                network.to(device)
                some = kept_dataset(network, larger, recipe, preprocess, device=device)
                recipe = kept_recipe(recipe, len(network.stages))
        with Listening(job, dataset, recipe, heard) as listening:
            train(
                network, some, recipe, preprocess, folder=listening.folder, listener=listening.hear, device=device,
                checkpoint_seconds=job.procedure.checkpoint_seconds,
            )  # fmt: skip
        return max(listening.values)

    return score
