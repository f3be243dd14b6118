"""A search among the parts of one network that are trained together: a supernet, for machines with a CUDA device."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RUN
from effnet.data.inspection.shapes import resized_as
from effnet.errors import BudgetError
from effnet.jobs.search.worker import Worker
from effnet.nas.algorithms.evolution import propose_evolution
from effnet.nas.generations import run_generations
from effnet.nas.history import Trained
from effnet.nas.spaces.elastic import Elastic, elastic
from effnet.nas.spaces.space import Genome
from effnet.nas.supernet import Scorer, check_device, train_supernet
from effnet.planner.events import Counted
from effnet.planner.oracle import training_speed
from effnet.planner.settings import epochs_in, make_preprocess, make_recipe
from effnet.system.machine import machine

_FOLDER, _PLACE = "supernet", -2
# The whole network has the first of these multiples of the budget at which its smallest part uses at most this share of
# it; the parts that are scored use at least the last share.
_LARGER, _SMALLEST, _LEAST = (2.0, 1.6, 1.3, 1.15), 0.8, 0.85
# A step trains four networks; scoring takes the rest of the time.
_STEPS, _TRAINING = 4, 0.8


def search_supernet(worker: Worker) -> list[Trained]:
    """Train the parts of a network together, and return the scores of those that evolution proposes.

    The genomes of the returned history are places in `worker.references`, which gets their networks. Raises InputError
    without a CUDA device.
    """
    job, policy = worker.job, worker.job.procedure.search
    device = torch.device(policy.device) if policy.device else check_device()
    base = _base(worker)
    space = elastic(base, share=worker.space.share, least=_LEAST)
    job.say(f"Training all parts of {base.title} together")
    dataset, report = worker.source.dataset, worker.source.report
    minutes = policy.searching * _TRAINING * (job.config.minutes or 0.0)
    epochs = epochs_in(minutes / _STEPS, images_per_second=training_speed(base), num_train=len(dataset.train))
    side = report.median_short_side
    recipe = make_recipe(dataset, base, epochs=epochs, short_side=side, memory_gb=machine()["memory_gb"], seed=job.seed)
    preprocess = make_preprocess(dataset, resolution=base.resolution, short_side=side, seed=job.seed)
    supernet = train_supernet(
        space,
        dataset,
        job.asked.complete(recipe, epochs=epochs, seed=job.seed),
        resized_as(preprocess, job.config.resize, report.shapes),
        folder=job.out / RUN / _FOLDER,
        device=device,
        listener=job.listener,
        deadline_seconds=60 * minutes,
    )
    scorer = Scorer(supernet, dataset, seed=job.seed)
    extent = dataclasses.replace(worker.extent, total=policy.most)
    count = 0

    def score(genome: Genome, seed: int, history: Sequence[Trained]) -> Mapping[str, Any]:
        nonlocal count
        count += 1
        job.listener(Counted(label="parts scored", done=count, total=extent.total))
        found, spec = scorer.score(genome), space.part(genome).spec
        figures = worker.figures(spec)
        total = worker.objective.score(found.score, figures=figures, nll=found.nll)
        return {"score": total, "accuracy": found.score, "nll": found.nll, "figures": figures}

    history = run_generations(worker.study, space, propose_evolution, extent, train=score)
    return [_placed(worker, space, trained) for trained in history]


def _base(worker: Worker) -> ArchSpec:
    """Return the largest scaled network of which enough parts fit the budget; raise BudgetError if there is none."""
    budget = worker.space.budget
    for factor in _LARGER:
        limits = {name: factor * limit for name, limit in budget.asked().items()}
        larger = worker.space.at(dataclasses.replace(budget, **limits))  # type: ignore[arg-type]
        for spec in filter(None, map(larger.network, larger.baselines)):
            space = elastic(spec)
            if worker.space.share(space.part(space.smallest).spec) <= _SMALLEST:
                return spec
    raise BudgetError("a supernet needs a scaled network whose parts fit the budget; there is none: use --algorithm "
                      "surrogate")  # fmt: skip


def _placed(worker: Worker, space: Elastic, trained: Trained) -> Trained:
    """Return a scored part under a genome of its own among the worker's references."""
    genome = (_PLACE, *trained.genome)
    worker.references[genome] = space.part(trained.genome).spec
    return dataclasses.replace(trained, genome=genome)
