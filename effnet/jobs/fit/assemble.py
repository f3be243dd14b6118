"""A trained network made smaller by a search: alternatives of its blocks are assembled to meet the device's budget."""

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.describe import stage_rows
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import read_config, write_text
from effnet.bundle.formats import Precision
from effnet.bundle.names import CONFIG
from effnet.bundle.weights import load_state, save_bundle
from effnet.compression.prune import vector_width
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.jobs.fit.choice.measuring import measured_figures, measuring
from effnet.jobs.fit.deploy.device import device_of, predicted_figures
from effnet.jobs.fit.job import Job
from effnet.measurement.profile.table import fit_latency, fit_memory
from effnet.nas.assemble.alternatives import alternatives, assembled_spec
from effnet.nas.assemble.assemble import Assembled, Settings, assemble
from effnet.nas.assemble.figures import FiguresOf, Kept
from effnet.nas.assemble.finalist import Scores
from effnet.planner.oracle import training_speed
from effnet.planner.space import Candidate, in_precision, only_candidate
from effnet.report.search.searched import FinalRow, Searched, SearchedRow, changes_of
from effnet.system.files import read_json
from effnet.system.records import from_data, to_data

FACTS = "assembled.json"
# Networks that predictions of latency and memory are fitted to.
_PROFILED = 24
# Scoring alternatives takes this share of the time, in at most two rounds; an alternative costs about an inference of
# each calibration image (measured: Lite2 at 260 pixels, 149 inferences). Fewer images than these say nothing.
_SCORING_SHARE, _MOST_ROUNDS, _LEAST_IMAGES = 0.35, 2, 128
# The least and the most epochs of the last recovery; the share of the time for training, of which the finalists take
# about 0.6 epochs for each of the last one; the speed of a step with a teacher, relative to one without.
_LEAST_EPOCHS, _MOST_EPOCHS, _TRAINING_SHARE, _ALL_EPOCHS, _WITH_TEACHER = 2, 30, 0.5, 1.6, 0.6


def assembled(
    bundle: Path, candidate: Candidate, dataset: Dataset, *, job: Job, out: Path, copy: Path, seconds: float
) -> tuple[Path, dict[str, Any]]:
    """Assemble the network in `bundle` within `seconds`; return the new bundle `copy` and the modifications.

    A finished one in `out` is found again. A network that meets the budget as it is stays so.
    """
    config = read_config(bundle)
    folder, known = bundle.with_name("assembling"), bundle.with_name("measured")
    if not (out / CONFIG).is_file():
        with _figures(candidate.precision, config.arch, known, job) as (predict, measure):
            if not job.budget.with_margin().exceeded(measure(config.arch)):
                job.say(f"{config.arch.title} meets the budget as it is: nothing is assembled")
                return bundle, {}
            job.say("Smaller and faster: assembling alternatives of the network's blocks", heading=True)
            started = time.monotonic()
            found = assemble(
                Subject(config=config, state=load_state(bundle)),
                dataset,
                budget=job.budget.with_margin(),
                predict=predict,
                measure=measure,
                epochs=_epochs(config.arch, dataset, job, seconds=seconds),
                folder=folder,
                settings=_settings(config.arch, job, seconds=seconds),
                seed=job.seed,
                listener=job.listener,
            )
        facts = _facts(config.arch, found, seconds=round(time.monotonic() - started, 1))
        write_text(bundle.with_name(FACTS), json.dumps(to_data(facts)) + "\n")
        save_bundle(out, found.subject.config, found.subject.state)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(out, copy)
    left = cost(read_config(out).arch).macs / cost(config.arch).macs
    done = assembled_facts(bundle.parent)
    took = done.seconds if done else 0.0
    return copy, {"kept": round(left, 4), "kept_of": "macs", "activation": "", "recovery_seconds": took}


def assembled_facts(folder: Path) -> Searched | None:
    """Return the report's part on assembling in an attempt's folder; None if nothing was assembled."""
    path = folder / FACTS
    if not path.is_file():
        return None
    found: Searched = from_data(Searched, read_json(path), where=str(path))
    return found


@contextmanager
def _figures(precision: Precision, spec: ArchSpec, folder: Path, job: Job) -> Iterator[tuple[FiguresOf, FiguresOf]]:
    """Yield functions that predict a network's limited figures, and that measure them on a file, once for each."""
    asked = [name for name in ("latency_ms", "memory_mb") if name in job.budget.asked()]
    device = device_of(job)
    with measuring(job) as once:

        def measured(found: ArchSpec) -> Mapping[str, float]:
            candidate = in_precision(only_candidate(found), precision)
            return measured_figures(candidate, once(candidate))

        if device is not None:
            yield lambda found: predicted_figures(device, found, precision), measured
            return
        folder.mkdir(parents=True, exist_ok=True)
        measure = Kept(measured, folder / "figures.json")
        rows = [(each, measure(each)) for each in _profiled(spec, folder)] if asked else []
        fits = {"latency_ms": fit_latency, "memory_mb": fit_memory}
        models = {name: fits[name]([each for each, _ in rows], [row[name] for _, row in rows]) for name in asked}
        yield lambda found: {name: model.predict(found) for name, model in models.items()}, measure


def _profiled(spec: ArchSpec, folder: Path) -> list[ArchSpec]:
    """Return the network and random ones of its space, the same after an interruption."""
    path = folder / "profiled.json"
    if path.is_file():
        return [spec_from_dict(data) for data in read_json(path)]
    rng, found = random.Random(0), [spec]
    wanted = alternatives(spec, round_to=vector_width())
    while len(found) < _PROFILED:
        share = rng.random()
        choice = {part: rng.choice(others) for part, others in wanted.items() if rng.random() < share}
        found.append(assembled_spec(spec, choice))
    write_text(path, json.dumps([spec_to_dict(each) for each in found]) + "\n")
    return found


def _settings(spec: ArchSpec, job: Job, *, seconds: float) -> Settings:
    """Return how thoroughly alternatives are scored: on as many images as the time allows."""
    usual = Settings()
    if not job.pace.mac:
        return usual
    inferences = sum(map(len, alternatives(spec, round_to=vector_width()).values()))
    a_round = inferences * cost(spec).macs * job.pace.mac
    images = int(_SCORING_SHARE * seconds / (_MOST_ROUNDS * a_round))
    return dataclasses.replace(usual, images=min(usual.images, max(_LEAST_IMAGES, images)))


def _epochs(spec: ArchSpec, dataset: Dataset, job: Job, *, seconds: float) -> int:
    """Return the epochs of the last recovery: as requested, or as many as fit into the time with the finalists'."""
    if job.config.epochs:
        return job.config.epochs
    epoch = len(dataset.train) / (_WITH_TEACHER * training_speed(spec))
    return int(min(_MOST_EPOCHS, max(_LEAST_EPOCHS, _TRAINING_SHARE * seconds / epoch / _ALL_EPOCHS)))


def _facts(teacher: ArchSpec, found: Assembled, *, seconds: float) -> Searched:
    winner = found.subject.config.arch
    finalists = [(number, row) for number, each in enumerate(found.rounds) for row in each.finalists]
    best = found.rounds[-1].winner.scores
    return Searched(
        algorithm="assemble",
        objective="accuracy",
        seconds=seconds,
        networks=tuple(_row(teacher, row, number) for number, row in finalists),
        finals=tuple(
            FinalRow(
                **_names(teacher, row),
                scaled=False,
                winner=row == best,
                values=(row.val_accuracy or 0.0,),
                figures=row.figures,
            )
            for row in found.rounds[-1].finalists
        ),
        gain=None,
        interval=None,
        found=False,
        base_title=teacher.title,
        base_stages=tuple(stage_rows(teacher)),
        changes=changes_of(tuple(stage_rows(teacher)), tuple(stage_rows(winner))),
        scored=sum(len(each.scored) for each in found.rounds),
    )


def _row(teacher: ArchSpec, row: Scores, number: int) -> SearchedRow:
    return SearchedRow(
        **_names(teacher, row),
        scaled=False,
        generation=number,
        seed=0,
        score=-row.divergence,
        value=row.val_accuracy or 0.0,
        nll=row.val_loss or 0.0,
        share=1.0,
        rungs=(),
        figures=row.figures,
        predicted=(),
    )


def _names(teacher: ArchSpec, row: Scores) -> dict[str, str]:
    base = dataclasses.replace(teacher, resolution=row.resolution)
    return {"name": "; ".join(row.parts) or teacher.name, "title": f"{base.title}, {len(row.parts)} parts changed"}
