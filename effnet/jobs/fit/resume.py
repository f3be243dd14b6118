"""The state of a fit on disk, from which a killed fit resumes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import numpy as np

from effnet.bundle.config import write_text
from effnet.bundle.names import PLAN, RECIPE, RUN
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.data.sources.source import source_name
from effnet.errors import InputError
from effnet.jobs.fit.config import Strategy
from effnet.jobs.fit.job import Job
from effnet.planner.space import Candidate, candidate_from_dict, is_amount
from effnet.planner.timetable import Pace
from effnet.system.files import read_json
from effnet.system.options import options_of
from effnet.training.recipe.file import recipe_from_dict
from effnet.training.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One network to train: its candidate, its recipe and its preprocessing.

    With a `strategy` other than scratch it starts from the candidate's weights, and `recipe` is the one for training
    from scratch, which fine-tuning changes.
    """

    candidate: int
    recipe: Recipe
    preprocess: Preprocess
    strategy: Strategy = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything decided before training; `options` are the fit's own, which a resumed one must repeat.

    `task` is the name of the data's task, which `runs` reads.
    `busy` warns of measurements under background load; empty on a quiet machine. `pace` is the speed of the machine if
    minutes were given, and `left_out` lists the steps for which there was no time. It `reserves` time for students of
    unlabelled images if one can be trained in it.
    """

    task: str
    options: Mapping[str, Any]
    fingerprint: str
    candidates: Sequence[Candidate]
    attempts: Sequence[Attempt]
    failed: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    busy: str = ""
    pace: Pace = field(default_factory=Pace)
    left_out: Sequence[str] = ()
    reserves: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping) or not isinstance(self.fingerprint, str):
            raise InputError(f"options must be an object and the fingerprint a string; got {self.fingerprint!r}")
        if not isinstance(self.busy, str):
            raise InputError(f"busy must be a string; got {self.busy!r}")
        if not all(is_amount(seconds) for seconds in asdict(self.pace).values()):
            raise InputError(f"a pace must be numbers of at least 0; got {self.pace!r}")
        if not all(isinstance(sentence, str) for sentence in self.left_out):
            raise InputError(f"left_out must be strings; got {self.left_out!r}")
        if not isinstance(self.reserves, bool):
            raise InputError(f"reserves must be true or false; got {self.reserves!r}")
        if not is_amount(self.seconds):
            raise InputError(f"seconds must be a number of at least 0; got {self.seconds!r}")
        for attempt in self.attempts:
            if type(attempt.candidate) is not int or not 0 <= attempt.candidate < len(self.candidates):
                raise InputError(f"an attempt must name a candidate by its number; got {attempt.candidate!r}")
            if attempt.strategy not in get_args(Strategy):
                raise InputError(f"a strategy must be one of {get_args(Strategy)}; got {attempt.strategy!r}")
        if len(self.failed) >= len(self.attempts):
            raise InputError(f"fewer attempts must have failed than {len(self.attempts)}; got {len(self.failed)}")
        for failed in self.failed:
            if not isinstance(failed, Mapping) or not is_amount(failed.get("seconds")):
                raise InputError(f"a failed attempt must hold the seconds that it took; got {failed!r}")


def fingerprint(dataset: Dataset) -> str:
    """Return a string that changes when classes, splits, paths, names or images in memory do; files are not read."""
    total = crc32(repr(dataset.class_names).encode())
    for split in (dataset.train, dataset.val, dataset.test):
        objects = split.labels.dtype == object  # masks, whose bytes would be addresses
        total = crc32(repr(split.labels.tolist()).encode() if objects else split.labels.tobytes(), total)
        for source in split.sources:
            if isinstance(source, np.ndarray):
                data = source.tobytes()
            else:
                data = source_name(source, "").encode("utf-8", "surrogateescape")
            total = crc32(data, total)
        if split.blocks is not None:  # they change the order of training
            total = crc32(split.blocks.numbers.tobytes() + str(split.blocks.mixed).encode(), total)
    return f"{total:08x}"


def write_plan(plan: Plan, out: Path) -> None:
    """Write the plan into the run folder of `out`, whole or not at all."""
    data = {
        "task": plan.task,
        "options": dict(plan.options),
        "fingerprint": plan.fingerprint,
        "candidates": [candidate.to_dict() for candidate in plan.candidates],
        "attempts": [
            {
                "candidate": a.candidate,
                "recipe": a.recipe.to_dict(),
                "preprocess": a.preprocess.to_dict(),
                "strategy": a.strategy,
            }
            for a in plan.attempts
        ],
        "failed": list(plan.failed),
        "seconds": plan.seconds,
        "busy": plan.busy,
        "pace": asdict(plan.pace),
        "left_out": list(plan.left_out),
        "reserves": plan.reserves,
    }
    write_text(out / RUN / PLAN, json.dumps(data))


def read_plan(out: Path) -> Plan | None:
    """Return the plan in `out`, or None if there is none; raise InputError if it is damaged."""
    path = out / RUN / PLAN
    try:
        data = read_json(path)
        return Plan(
            task=data["task"],
            options=data["options"],
            fingerprint=data["fingerprint"],
            candidates=[candidate_from_dict(row) for row in data["candidates"]],
            attempts=[
                Attempt(
                    candidate=a["candidate"],
                    recipe=recipe_from_dict(a["recipe"]),
                    preprocess=Preprocess.from_dict(a["preprocess"]),
                    strategy=a["strategy"],
                )
                for a in data["attempts"]
            ],
            failed=data["failed"],
            seconds=data["seconds"],
            busy=data["busy"],
            pace=Pace(**data["pace"]),
            left_out=tuple(data["left_out"]),
            reserves=data["reserves"],
        )
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise InputError(f"{path} must be the plan of an earlier fit; it lacks {error}") from error
    except (InputError, OSError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path} must be the plan of an earlier fit; it cannot be read ({error}): name another --out"
        ) from error


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Write every field of the recipe in use into the run folder of `out`, for use with `--recipe`."""
    (out / RUN).mkdir(parents=True, exist_ok=True)
    write_text(out / RUN / RECIPE, json.dumps(recipe.to_dict(), indent=1) + "\n")


def _changed(name: str, before: Any, now: Any) -> str:
    """Return the change of an option, `name` as the user writes it."""
    if name != "settings":
        return f"{name} was {before!r}, now {now!r}"
    before, now = (
        " ".join(f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in (values or {}).items())
        for values in (before, now)
    )
    return f"--set was {before or 'not given'}, now {now or 'not given'}"


def check_same(plan: Plan, job: Job, found: str) -> None:
    """Raise InputError if a resumed fit has other options or images than the one it resumes."""
    options, known = json.loads(json.dumps(job.options)), options_of(type(job.config))  # tuples are lists on the disk
    other = [
        _changed(known[name].flag if name in known else name, plan.options.get(name), value)
        for name, value in options.items()
        if plan.options.get(name) != value
    ]
    if other:
        raise InputError(f"--resume must repeat the options of the fit in {job.out}: {'; '.join(other)}")
    if plan.fingerprint != found:
        raise InputError(f"--resume needs the images that the fit in {job.out} began with; they have changed since")
