"""The final of a search: its best networks are measured, then trained to their end beside the best scaled one."""

import dataclasses
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RUN
from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.jobs.fit.learn import train_fresh
from effnet.jobs.fit.time_left import FILLED, measured_epoch
from effnet.jobs.search.checks import config_of
from effnet.jobs.search.plan import attempt_of
from effnet.jobs.search.widths import Figures, Measured, as_wide_as_allowed, meets
from effnet.jobs.search.worker import Worker
from effnet.nas.finals import Finalist, ranked
from effnet.nas.history import Trained
from effnet.nas.spaces.space import Genome
from effnet.nas.study import Unit, seed_of
from effnet.nas.trials import scratch_folder
from effnet.planner.events import Counted
from effnet.system.text import percent
from effnet.tasks.registry import find_task
from effnet.training.state.checkpoint import trained_seconds

FINAL = "final"
"""The folder of the final's trainings in that of the run."""
# This many networks that exceed the budget when measured are replaced by the next ones.
_MOST_MISSED = 6


def choose_finalists(worker: Worker, history: Sequence[Trained]) -> dict[Genome, Measured]:
    """Return the networks of the final, the best scaled one first, each as wide as its measured figures allow."""
    unit = worker.after(0)
    found = worker.study.in_turn(
        [unit],
        lambda _: {
            "finalists": [(genome, spec_to_dict(spec), figures) for genome, spec, figures in _measured(worker, history)]
        },
    )
    return {tuple(genome): (spec_from_dict(spec), figures) for genome, spec, figures in found[unit]["finalists"]}


def _measured(worker: Worker, history: Sequence[Trained]) -> list[tuple[Genome, ArchSpec, Figures]]:
    """Return the best networks that meet the budget when they are measured; if none does, the nearest to it."""
    budget, finalists = worker.job.budget.with_margin(), worker.plan.finalists
    kept: dict[bool, list[tuple[Genome, ArchSpec, Figures]]] = {True: [], False: []}
    missed: list[tuple[float, Genome, ArchSpec, Figures]] = []
    known = {row.genome: (worker.spec(row.genome), row.figures) for row in history if row.network and row.figures}
    for genome in ranked(history):
        kind = genome in worker.scaled
        if len(kept[kind]) >= (1 if kind else finalists) or len(missed) >= _MOST_MISSED:
            continue
        spec, figures = known.get(genome) or as_wide_as_allowed(worker, genome)
        if meets(worker, figures):
            kept[kind].append((genome, spec, figures))
        else:
            missed.append((budget.share(figures), genome, spec, figures))
        done = len(kept[True] + kept[False]) + len(missed)
        total = finalists + 1 + len(missed)
        worker.job.listener(Counted(label="finalists measured", done=done, total=total))
    return kept[True] + kept[False] or [min(missed, key=lambda each: each[0])[1:]]


def hold_final(
    worker: Worker, history: Sequence[Trained], genomes: Sequence[Genome]
) -> tuple[list[Finalist], tuple[int, ...]]:
    """Train the finalists, or this worker's part of them; return all for which there was time, and their epochs.

    The epochs are the fewest and the most of a training, none if there was no time for any.
    """
    job = worker.job
    epochs, seeds = _settled(worker, genomes)
    length = epochs_in_words((min(epochs.values()), max(epochs.values())))
    job.say(f"The final: {len(genomes)} networks, for {length}", heading=True)
    plan, done = worker.plan, {genome: list[Mapping[str, Any]]() for genome in genomes}
    for number in range(seeds):
        # A training with another seed is not begun where there is no time for all of it.
        share = plan.proving + (plan.deciding / (len(genomes) * seeds) if number else 0.0)
        units = {_unit(worker, genomes, genome, number): genome for genome in genomes}
        found = worker.study.in_turn(
            list(units),
            lambda unit: _trained(worker, units[unit], unit, number, epochs[units[unit]]),  # noqa: B023
            late=lambda: worker.late(share),  # noqa: B023
        )
        for unit, row in found.items():
            done[units[unit]].append(row)
    # Means of unequal numbers of trainings are not compared: if time ran out, the last seeds do not count.
    equal = max(1, min(map(len, done.values())))
    finalists = [_finalist(worker, genome, rows[:equal]) for genome, rows in done.items() if rows]
    for finalist in finalists:
        kind = " (scaled)" if finalist.scaled else ""
        job.say(f"{worker.spec(finalist.genome).title}{kind}: {percent(finalist.mean, 1)}")
    if not finalists:
        return [_without_final(worker, history, genomes)], ()
    return finalists, (min(epochs.values()), max(epochs.values()))


def epochs_in_words(epochs: Sequence[int]) -> str:
    """Return the fewest and the most epochs of a training of the final."""
    least, most = epochs
    if least < most:
        return f"{least} to {most} epochs, in equal time"
    return f"{most} epochs" if most > 1 else "one epoch"


def _unit(worker: Worker, genomes: Sequence[Genome], genome: Genome, number: int) -> Unit:
    """Return the unit of a finalist's training with a seed."""
    return worker.after(1, number * len(genomes) + genomes.index(genome))


def take_training(worker: Worker, genomes: Sequence[Genome], winner: Genome) -> tuple[int, bool]:
    """Make the winner's first training in the final that of the first attempt; return its epochs, and if it is here.

    The epochs are 0 if there was no time for it, or other ones were requested. Another worker may have trained it, on
    another machine.
    """
    row = worker.study.results().get(_unit(worker, genomes, winner, 0))
    if row is None or worker.job.config.epochs not in (None, row["epochs"]):
        return 0, False
    folder, attempt = Path(row["folder"]), worker.job.out / RUN / "attempt-1"
    if not attempt.exists() and folder.is_dir() and row["host"] == socket.gethostname():
        with scratch_folder(attempt.parent) as beside:
            shutil.copytree(folder, beside)
            beside.replace(attempt)
    return row["epochs"], attempt.exists()


def _settled(worker: Worker, genomes: Sequence[Genome]) -> tuple[dict[Genome, int], int]:
    """Return the epochs of each finalist's training, which take equal time, and the number of seeds.

    The final has all the time that is left but the proof's: the search may have taken less or more than planned.
    """

    def settle() -> Mapping[str, Any]:
        plan, deadline = worker.plan, worker.job.deadline
        left = FILLED * (deadline.left() - plan.proving * deadline.seconds)
        took = [_epoch_seconds(worker, genome) for genome in genomes]
        each = [sum(took) / len(took)] * len(took) if config_of(worker.job).strict_paper else took
        epochs = [max(1, min(plan.most_epochs, int(left / (len(genomes) * seconds)))) for seconds in each]
        seeds = left / sum(number * seconds for number, seconds in zip(epochs, took, strict=True))
        return {"epochs": epochs, "seeds": max(1, min(worker.job.procedure.search.seeds, int(seeds)))}

    unit = worker.after(0, 1)
    found = worker.study.in_turn([unit], lambda _: settle())[unit]
    return dict(zip(genomes, found["epochs"], strict=True)), found["seeds"]


def _epoch_seconds(worker: Worker, genome: Genome) -> float:
    """Return the seconds of an epoch of a finalist, measured."""
    plan, spec = worker.plan, worker.spec(genome)
    attempt = attempt_of(worker.job, worker.source, plan.precision, spec, plan.most_epochs)
    return measured_epoch(spec, attempt, worker.source.dataset)


def _finalist(worker: Worker, genome: Genome, rows: Sequence[Mapping[str, Any]]) -> Finalist:
    return Finalist(
        genome=genome,
        scaled=genome in worker.scaled,
        values=tuple(row["value"] for row in rows),
        nlls=tuple(row["nll"] for row in rows),
        right=tuple(tuple(mark == "1" for mark in row["right"]) for row in rows),
    )


def _without_final(worker: Worker, history: Sequence[Trained], genomes: Sequence[Genome]) -> Finalist:
    """Return the best network of the search, if there was no time for a final."""
    best = next(genome for genome in ranked(history) if genome in genomes)
    trained = max((each for each in history if each.genome == best), key=lambda each: each.share)
    return Finalist(genome=best, scaled=best in worker.scaled, values=(trained.accuracy,), nlls=(trained.nll or 0.0,))


def _trained(worker: Worker, genome: Genome, unit: Unit, number: int, epochs: int) -> Mapping[str, Any]:
    """Train a finalist as fit trains a network, so that the winner's training need not be repeated."""
    job, dataset, spec = worker.job, worker.source.dataset, worker.spec(genome)
    job = job if not number else dataclasses.replace(job, seed=seed_of(worker.extent.key, *unit))
    attempt = attempt_of(job, worker.source, worker.plan.precision, spec, epochs)
    folder, seconds = job.out / RUN / FINAL / str(unit.slot), None
    if job.deadline.limited:
        left = job.deadline.left() - worker.plan.proving * job.deadline.seconds
        seconds = trained_seconds(folder) + max(1.0, left)
    found = train_fresh(spec, attempt, dataset, folder=folder, seconds=seconds, job=job)
    figure = find_task(dataset.task).selected_by(balanced=bool(attempt.recipe.balance.removed))
    best = found.history[found.best_epoch - 1]
    return {
        "value": figure.better(best[f"val_{figure.key}"]),
        "nll": best["val_loss"],
        "right": _right(found.model, attempt.preprocess, dataset.val),
        "epochs": epochs,
        "folder": str(folder.absolute()),
        "host": socket.gethostname(),
    }


def _right(model: Any, preprocess: Preprocess, val: Split) -> str:
    """Return for each validation image whether the network's answer is right, "1" or "0"."""
    import torch

    from effnet.training.device import pick_device, to_input
    from effnet.training.input.batches import eval_batches

    device, marks = pick_device(), []
    model.to(device).eval()
    with torch.no_grad():
        for images, indices in eval_batches(val, preprocess):
            answers = model(to_input(images, preprocess, device)).argmax(1).cpu().numpy()
            marks.append(np.equal(answers, val.labels[indices]))
    return "".join("1" if mark else "0" for mark in np.concatenate(marks))
