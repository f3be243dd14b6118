"""The options of a fit, checked."""

import os
import re
import shlex
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from effnet.arch.codec import spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RUN
from effnet.data.datasets import DataLike, Dataset, read_dataset
from effnet.data.in_memory import MapStyle
from effnet.data.inspection.leaks import names_of
from effnet.data.inspection.shapes import Resize
from effnet.data.names import refuse_inside
from effnet.data.value_range import Asked as AskedRange
from effnet.data.value_range import number, read_asked
from effnet.errors import InputError, nearest
from effnet.jobs.fit.asked import Asked, command_words
from effnet.jobs.fit.resume import Strategy
from effnet.jobs.procedure import USUAL, Procedure
from effnet.measurement.calibration import Abstain
from effnet.measurement.unknown import unknown_images
from effnet.planner.budget import Budget
from effnet.planner.events import Listener, Said
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.target import Target
from effnet.planner.timetable import UNLIMITED, Deadline, Pace
from effnet.system.bounds import (
    MAX_CHANNELS,
    MAX_EPOCHS,
    MAX_SEED,
    MAX_SIDE,
    MAX_THREADS,
    check_minutes,
    check_whole,
)
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.weights.pretrained import find_source

# Trials are worthwhile from this many minutes on; they may take this share of the time.
_ENOUGH_FOR_TRIALS, _TRIAL_SHARE, USUAL_TRIALS = 30.0, 0.3, 8
# The recipe fields that affect a head, which is fitted without epochs.
_OF_A_HEAD = {"augment.flip", "balance.method", "balance.strength"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The options of a fit, checked and complete; `data` is only the name of a `dataset`, if there is one."""

    data: str
    budget: Budget
    threads: int
    epochs: int | None
    minutes: float | None
    seed: int
    channels: int | None
    strict: bool
    out: Path
    listener: Listener
    dataset: Dataset | MapStyle | None = None
    network: ArchSpec | None = None
    model: str = ""
    weights: str = "none"
    strategy: Strategy = "scratch"
    abstain: Abstain = field(default_factory=Abstain)
    asked: Asked = field(default_factory=Asked)
    ranks: Ranks = ALONE
    procedure: Procedure = USUAL
    auto_batch: bool = False
    target: Target = field(default_factory=Target)
    group_by: str = ""
    trials: int | None = None
    storage: str = ""
    report_images: bool = True
    resize: Resize = "auto"
    value_range: AskedRange = "auto"
    # Set by the running job: its deadline, that of its planning, and the speed of this machine.
    deadline: Deadline = UNLIMITED
    planning: Deadline = UNLIMITED
    pace: Pace = field(default_factory=Pace)

    @property
    def options(self) -> dict[str, Any]:
        """The options that a resumed fit must repeat."""
        names = (
            "data",
            "threads",
            "epochs",
            "minutes",
            "seed",
            "channels",
            "strict",
            "group_by",
            "weights",
            "strategy",
            "model",
            "trials",
            "resize",
        )
        network = None if self.network is None else spec_to_dict(self.network)
        return {name: getattr(self, name) for name in names} | {
            "value_range": None if (found := read_asked(self.value_range)) is None else [found.low, found.high],
            "budget": self.budget.to_dict(),
            "network": network,
            "abstain": asdict(self.abstain),
            "auto_batch": self.auto_batch or None,
            **self.target.options,
            **self.asked.options,
        }

    @property
    def source(self) -> DataLike:
        """The data: a path or name, or the data set."""
        return self.data if self.dataset is None else self.dataset

    @property
    def time_limit(self) -> float | None:
        """Minutes of training if no deadline limits it; None if the number of epochs is fixed."""
        fixed = self.epochs or (self.minutes is None and self.asked.value("train.epochs"))
        return None if fixed else (self.minutes or DEFAULT_MINUTES) - self.trial_minutes

    @property
    def num_trials(self) -> int:
        """The number of candidates in trials: as requested, or a few if there is time."""
        if self.trials is not None or self.network is not None:
            return self.trials or 0
        return USUAL_TRIALS if (self.minutes or 0) >= _ENOUGH_FOR_TRIALS else 0

    @property
    def trial_minutes(self) -> float:
        """Minutes that trials may take."""
        return _TRIAL_SHARE * (self.minutes or DEFAULT_MINUTES) if self.num_trials else 0.0

    def say(self, text: str, *, heading: bool = False) -> None:
        self.listener(Said(text=text, heading=heading))


def default_out(out: str | os.PathLike[str] | None, data: str) -> Path:
    """Return `out`, or a folder named after the data."""
    if out is not None:
        return Path(out)
    name = re.sub(r"[^\w.-]+", "-", Path(os.path.abspath(data)).stem).strip("-")
    return Path(f"effnet-{name or 'model'}")


def check(task: Task) -> None:
    """Raise InputError for options that contradict each other or are out of range."""
    if task.epochs is not None and task.minutes is not None:
        raise InputError("give --epochs or --minutes, not both")
    _check_one_length(task)
    _check_numbers(task)
    _check_strategy(task)
    if task.resize not in get_args(Resize):
        hint = nearest(str(task.resize), get_args(Resize))
        raise InputError(f"--resize must be one of {', '.join(get_args(Resize))}; got {task.resize!r}{hint}")
    read_asked(task.value_range)
    if task.abstain.unknown_from is not None:
        unknown_images(task.abstain.unknown_from)
    if isinstance(task.dataset, Dataset):
        _check_split(task, task.dataset)
    elif task.dataset is None:
        refuse_inside(task.out, task.data)
    _check_writable(task.out)


def _check_split(task: Task, dataset: Dataset) -> None:
    """Raise InputError if the fit would split a data set otherwise than it is, and test on images of its train."""
    if dataset.made and dataset.seed != task.seed:
        raise InputError(
            f"seed must be that of the data set's own split, {dataset.seed}; got {task.seed}: give it to the data set"
        )
    again = read_dataset(dataset, seed=dataset.seed, channels=dataset.channels)
    for name in ("train", "val", "test"):
        first, second = getattr(again, name), getattr(dataset, name)
        if list(names_of(first)) != list(names_of(second)) or not np.array_equal(first.labels, second.labels):
            raise InputError(
                f"the data set must be as read_dataset, from_arrays or from_torch returned it; its {name} split was "
                "changed: give the splits to from_arrays"
            )


def _check_one_length(task: Task) -> None:
    """Raise InputError if options and settings give different training lengths; in `train`, flags override a recipe."""
    asked = task.asked.settings.get("train.epochs")
    if task.network is not None or asked is None:
        return
    if task.minutes is not None:
        raise InputError(f"give --minutes or --set train.epochs, not both; got {_exact(task.minutes)} and {asked}")
    if task.epochs not in (None, asked):
        raise InputError(
            f"--epochs and --set train.epochs must not differ; got {_exact(task.epochs)} and {asked}: leave one out"
        )


def _check_numbers(task: Task) -> None:
    """Raise InputError for a number out of range; budget and recipe check their own."""
    if task.minutes is not None:
        check_minutes(task.minutes)
    sides = {} if task.network is None else {"the resolution": (task.network.resolution, 1, MAX_SIDE)}
    bounds = {
        "epochs": (task.epochs, 1, MAX_EPOCHS),
        "trials": (task.trials, 0, 10_000),
        "threads": (task.threads, 1, MAX_THREADS),
        "the seed": (task.seed, 0, MAX_SEED),
        "channels": (task.channels, 1, MAX_CHANNELS),
    }
    for what, (value, least, most) in (bounds | sides).items():
        if value is not None:
            check_whole(what, value, least=least, most=most)


def _check_strategy(task: Task) -> None:
    """Raise InputError if weights, strategy and model contradict each other."""
    known = get_args(Strategy)
    if task.strategy not in known:
        hint = nearest(task.strategy, known)
        raise InputError(f"the strategy must be one of {', '.join(known)}; got {task.strategy!r}{hint}")
    if task.strategy == "head" and task.epochs is not None:
        raise InputError(
            "--epochs has no effect with --strategy head (logistic regression on frozen features); leave --epochs out, "
            "or give --strategy finetune"
        )
    if task.strategy == "head" and (other := sorted({*task.asked.settings} - _OF_A_HEAD)):
        raise InputError(
            f"--set {other[0]} has no effect with --strategy head, which uses only augment.flip and balance of the "
            "recipe; leave it out, or give --strategy finetune"
        )
    if task.weights == "none" and task.strategy in ("head", "finetune"):
        raise InputError(
            f"the strategy {task.strategy} needs pretrained weights, but --weights is none; name some, or leave "
            "--strategy out"
        )
    if task.weights in ("none", "auto"):
        _refuse_model(task)
    elif task.strategy == "scratch":
        raise InputError(f"training from scratch uses no weights, but --weights is {task.weights}; give one of the two")


def _refuse_model(task: Task) -> None:
    if task.network is None and task.model:
        raise InputError(
            f"--model names the network of a --weights FILE, but --weights is {task.weights}; leave --model out, or "
            f"train this one network with: effnet train DATA --model {task.model}"
        )


def check_weights(task: Task) -> None:
    """Raise InputError if the weights of a new fit do not exist; nothing is downloaded."""
    if task.weights not in ("none", "auto") and not isinstance(find_source(task.weights), Path):
        _refuse_model(task)


def _check_writable(out: Path) -> None:
    """Raise InputError if `out` cannot be written to; after planning and training it would be too late."""
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written to; {out} cannot: {error.strerror}") from error


def command_line(task: Task) -> str:
    """Return the command line that repeats this fit."""
    data = task.data if task.dataset is None else "DATA"  # a data set of a program has no path
    words = ["effnet", "fit", data]
    if task.network is not None:
        words = ["effnet", "train", data, "--model", task.model or task.network.name]
        words += ["--resolution", str(task.network.resolution)]
        words += command_words(task.asked, run=task.out / RUN)
        words += ["--batch", "auto"] if task.auto_batch else []
    for name, value in task.budget.asked().items():
        words += [f"--max-{name.replace('_', '-')}", _exact(value)]
    if task.network is None:
        words += ["--model", task.model] if task.model else []
        words += [] if task.weights == "auto" else ["--weights", task.weights]
        words += [] if task.strategy == "auto" or task.weights == "none" else ["--strategy", task.strategy]
        words += _target_words(task.target)
        words += [] if task.trials is None else ["--trials", str(task.trials)]
        words += ["--storage", task.storage] if task.storage else []
        words += command_words(task.asked, run=task.out / RUN)
    for name, value in asdict(task.abstain).items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", value if isinstance(value, str) else _exact(value)]
    for name in ("threads", "epochs", "minutes", "seed", "channels"):
        value = getattr(task, name)
        if value is not None and (name, value) not in (("threads", 1), ("seed", 0)):
            words += [f"--{name}", _exact(value)]
    words += ["--group-by", task.group_by] if task.group_by else []
    words += [] if task.resize == "auto" else ["--resize", task.resize]
    if (found := read_asked(task.value_range)) is not None:
        words += ["--value-range", f"{number(found.low)},{number(found.high)}"]
    words += ["--strict"] if task.strict else []
    words += [] if task.report_images else ["--no-report-images"]
    return shlex.join([*words, "--out", str(task.out)])


def _target_words(target: Target) -> list[str]:
    usual = Target()
    words = [] if target.runtime == usual.runtime else ["--runtime", target.runtime]
    words += [] if target.precision == usual.precision else ["--precision", target.precision]
    words += [] if target.max_drop == usual.max_drop else ["--max-drop", _exact(round(100 * target.max_drop, 6))]
    return words + (["--device", target.profile] if target.profile else [])


def _exact(value: float) -> str:
    """Return a number as text that reads back to it, whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() else repr(value)
