"""The final of a search: its best networks are measured, then trained again beside the best scaled one."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Split
from effnet.jobs.fit.short_training import Brief, train_briefly
from effnet.jobs.search.plan import slowness_of, timed_row
from effnet.jobs.search.widths import Figures, Measured, as_wide_as_allowed, meets
from effnet.jobs.search.worker import Worker
from effnet.nas.finals import Finalist, ranked
from effnet.nas.history import Trained
from effnet.nas.space import Genome
from effnet.nas.study import seed_of
from effnet.planner.events import Counted
from effnet.system.text import percent

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
    budget, finalists = worker.job.budget.with_margin(), worker.job.procedure.search.finalists
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


def hold_final(worker: Worker, history: Sequence[Trained], genomes: Sequence[Genome]) -> list[Finalist]:
    """Train the finalists, or this worker's part of them, and return all; those without time are left out."""
    job, seeds = worker.job, worker.job.procedure.search.seeds
    job.say(f"The final: {len(genomes)} networks, trained again with {seeds} seeds each", heading=True)
    worker = _timed(worker, genomes)
    units = {worker.after(1, slot): genomes[slot % len(genomes)] for slot in range(len(genomes) * seeds)}
    done = worker.study.in_turn(
        list(units),
        lambda unit: _trained(worker, units[unit], seed=seed_of(worker.extent.key, *unit)),
        late=lambda: worker.late(worker.plan.fitting),
    )
    trained = {genome: [row for unit, row in done.items() if units[unit] == genome] for genome in genomes}
    # Means of unequal numbers of trainings are not compared: if time ran out, the last seeds do not count.
    equal = max(1, min(map(len, trained.values())))
    found = []
    for genome in genomes:
        rows = trained[genome][:equal]
        if rows:
            found.append(_finalist(worker, genome, rows))
            kind = " (scaled)" if found[-1].scaled else ""
            job.say(f"{worker.spec(genome).title}{kind}: {percent(found[-1].mean, 1)}")
    return found or [_without_final(worker, history, genomes)]


def _timed(worker: Worker, genomes: Sequence[Genome]) -> Worker:
    """Return a worker that knows how fast these networks train, so that their trainings take equal time."""
    if not worker.plan.timed:
        return worker
    unit = worker.after(0, 1)
    found = worker.study.in_turn([unit], lambda _: {"timed": [timed_row(worker.spec(each)) for each in genomes]})
    return dataclasses.replace(worker, slowness=slowness_of(worker.plan.timed, found[unit]["timed"]))


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


def _trained(worker: Worker, genome: Genome, *, seed: int) -> Mapping[str, Any]:
    found = train_briefly(
        worker.spec(genome),
        worker.job,
        worker.source.dataset,
        worker.source.report,
        **worker.views(worker.spec(genome), worker.plan.final_images, worker.plan.final_epochs),
        seed=seed,
    )
    return {"value": found.best, "nll": found.nll, "right": _right(found, worker.source.dataset.val)}


def _right(found: Brief, val: Split) -> str:
    """Return for each validation image whether the network's answer is right, "1" or "0"."""
    import torch

    from effnet.training.device import pick_device, to_input
    from effnet.training.input.batches import eval_batches

    device, marks = pick_device(), []
    found.model.to(device).eval()
    with torch.no_grad():
        for images, indices in eval_batches(val, found.preprocess):
            answers = found.model(to_input(images, found.preprocess, device)).argmax(1).cpu().numpy()
            marks.append(np.equal(answers, val.labels[indices]))
    return "".join("1" if mark else "0" for mark in np.concatenate(marks))
