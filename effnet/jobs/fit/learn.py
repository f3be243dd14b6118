"""The training of an attempt: from pretrained weights, from scratch, or of a network that answers in the image."""

from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.jobs.fit.dense import learn_in_images
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.prune import learning_minutes, use_for
from effnet.jobs.fit.resume import Attempt, write_recipe
from effnet.jobs.fit.transfer.finetune import Learned, train_in, transfer
from effnet.jobs.fit.transfer.pooled import pooled_stages
from effnet.nn.network import zero_classifier_
from effnet.planner.space import Candidate
from effnet.training.loop import TrainResult
from effnet.training.state.checkpoint import trained_seconds
from effnet.training.state.state import network_for


def learn(candidate: Candidate, attempt: Attempt, dataset: Dataset, *, folder: Path, job: Job) -> Learned:
    """Return the candidate's trained network; its training in `folder` is resumed, and a finished one found again."""
    spec = candidate.whole or candidate.spec

    # Decided once, so that learning never takes what is kept for the rest.
    use = use_for(candidate, dataset, job)
    later = use.later

    def left() -> float:
        return max(0.0, job.deadline.left() - later)

    if attempt.strategy != "scratch" and spec.decoder is None:
        learned = transfer(
            spec,
            attempt,
            dataset,
            weights=candidate.weights,
            model=str(job.config.model) or None,
            epochs=job.config.epochs or job.asked.value("train.epochs"),
            settings=job.asked.settings,
            minutes=learning_minutes(candidate, job),
            pace=job.pace if job.deadline.limited else None,
            left=left,
            students=use.unlabelled if job.deadline.limited else job.time_for_students,
            folder=folder,
            listener=job.listener,
            ranks=job.ranks,
            checkpoint_seconds=job.procedure.checkpoint_seconds,
            pooled=pooled_stages(spec, candidate, job),
            reads=job.config.head_features,
        )
        if learned.recipe is not None:
            write_recipe(learned.recipe, job.out)
        return learned
    seconds = None if job.time_limit is None else 66 * job.time_limit
    if job.deadline.limited:
        seconds = trained_seconds(folder) + left()
    if spec.decoder is not None:
        return learn_in_images(
            spec, attempt, dataset, weights=candidate.weights, seconds=seconds, folder=folder, job=job
        )
    if attempt.recipe.kept.views:
        job.say("No feature maps are kept: there are no pretrained weights, and all stages must be trained")
    write_recipe(attempt.recipe, job.out)
    training = train_fresh(spec, attempt, dataset, folder=folder, seconds=seconds, job=job)
    return Learned(method="scratch", training=training, recipe=attempt.recipe)


def train_fresh(
    spec: ArchSpec, attempt: Attempt, dataset: Dataset, *, folder: Path, seconds: float | None, job: Job
) -> TrainResult:
    """Train a network from random weights in `folder`, or resume that; a finished training is found again."""
    recipe = attempt.recipe
    job.say(f"Training {spec.title} for {recipe.train.epochs} epochs", heading=True)
    model = network_for(spec, recipe)
    if recipe.model.zero_classifier:
        zero_classifier_(model)
    return train_in(folder, model, dataset, recipe, attempt=attempt, job=job, seconds=seconds)
