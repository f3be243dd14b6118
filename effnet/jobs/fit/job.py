"""A running fit: its config, completed, and everything derived from it."""

import dataclasses
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from effnet.arch.codec import spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RECIPE, RUN
from effnet.bundle.spec_of import read_spec
from effnet.data.datasets import DataLike, Dataset, name_of
from effnet.data.inspection.unlabelled import Unlabelled
from effnet.data.manifests.columns import read_words
from effnet.data.sources.in_memory import MapStyle
from effnet.data.view.value_range import read_asked
from effnet.errors import InputError
from effnet.jobs.fit.asked import Asked, ask, ask_settings, settings_words, with_balance, with_recipe
from effnet.jobs.fit.config import FitConfig, Strategy, TrainConfig, read_powers
from effnet.jobs.procedure import USUAL, Procedure
from effnet.measurement.budget import Budget
from effnet.measurement.classification.calibration import Abstain
from effnet.planner.events import Listener, Said
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.target import Target
from effnet.planner.timetable import UNLIMITED, Deadline, Pace
from effnet.report.search.searched import Searched
from effnet.system.bounds import is_number
from effnet.system.options import Given, command_words, given, repeated
from effnet.system.text import brief
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.recipe.schema import Recipe

if TYPE_CHECKING:
    from effnet.jobs.search.config import SearchConfig

Config = TypeVar("Config", FitConfig, TrainConfig, "SearchConfig")

# Trials are worthwhile from this many minutes on; they may take this share of the time.
_ENOUGH_FOR_TRIALS, _TRIAL_SHARE, USUAL_TRIALS = 30.0, 0.3, 8
# The share of the time for training that students of unlabelled images get, by their number.
_STUDENTS_SHARE = {1: 0.6, 2: 0.75}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A fit or a training on its way.

    `config` is complete: paths are texts, and what other options or the data imply is in it. `dataset` is None if
    `config.data` is a path or a name, and `network` None if the network is to be found; `searched` is the
    search that found it, which may have trained it already, for `trained_epochs`. The minutes `began` at this time of
    the clock; by default when the job does. With `assembles` a pretrained network is fine-tuned, whatever it costs, and
    then made smaller from alternatives of its blocks. The running job sets its deadline, that of its planning, the
    speed of this machine, the `unlabelled` images once they are read, and whether it `reserves` a share of the time
    for their students, as its plan says.
    """

    config: "FitConfig | TrainConfig | SearchConfig"
    budget: Budget
    target: Target
    abstain: Abstain
    asked: Asked
    seed: int
    dataset: Dataset | MapStyle | None = None
    network: ArchSpec | None = None
    searched: Searched | None = None
    trained_epochs: int = 0
    began: float | None = None
    assembles: bool = False
    ranks: Ranks = ALONE
    deadline: Deadline = UNLIMITED
    planning: Deadline = UNLIMITED
    pace: Pace = field(default_factory=Pace)
    unlabelled: Unlabelled | None = None
    reserves: bool = True
    procedure: Procedure = USUAL

    @property
    def options(self) -> dict[str, Any]:
        """The options that a resumed fit must repeat."""
        network = None if self.network is None else spec_to_dict(self.network)
        own = {"data": self.config.data, "seed": self.seed, "network": network}
        return repeated(self.config) | own | self.asked.options

    @property
    def out(self) -> Path:
        """The folder that becomes the bundle."""
        assert self.config.out is not None
        return Path(self.config.out)

    @property
    def listener(self) -> Listener:
        """The receiver of all events."""
        return self.config.listener

    @property
    def source(self) -> DataLike:
        """The data: a path or name, or the data set."""
        return self.config.data if self.dataset is None else self.dataset

    @property
    def strategy(self) -> Strategy:
        """What to train; without pretrained weights, from scratch."""
        found = self.config.strategy
        fresh = self.network is not None or self.config.weights == "none"
        return "scratch" if fresh and found == "auto" else found

    @property
    def time_limit(self) -> float | None:
        """Minutes of training on labelled images if no deadline limits it; None if the number of epochs is fixed."""
        fixed = self.config.epochs or (self.config.minutes is None and self.asked.value("train.epochs"))
        minutes = (self.config.minutes or DEFAULT_MINUTES) - self.trial_minutes
        return None if fixed else minutes * (1 - self.students_share)

    @property
    def learns_unlabelled(self) -> bool:
        """Whether there are unlabelled images to learn from."""
        return getattr(self.config, "unlabelled", None) is not None

    @property
    def students_share(self) -> float:
        """The share of the time for training that students of unlabelled images get."""
        if not (self.learns_unlabelled and self.reserves):
            return 0.0
        return _STUDENTS_SHARE[self.config.unlabelled_rounds]  # type: ignore[union-attr]

    @property
    def time_for_students(self) -> float:
        """The seconds for students of unlabelled images if no deadline limits them; 0 if their epochs are fixed."""
        share = self.students_share
        return 60 * (self.time_limit or 0.0) * share / (1 - share)

    @property
    def num_trials(self) -> int:
        """The number of candidates in trials: as requested, or a few if there is time."""
        if self.config.trials is not None:
            return self.config.trials
        return USUAL_TRIALS if (self.config.minutes or 0) >= _ENOUGH_FOR_TRIALS else 0

    @property
    def trial_minutes(self) -> float:
        """Minutes that trials may take."""
        return _TRIAL_SHARE * (self.config.minutes or DEFAULT_MINUTES) if self.num_trials else 0.0

    def say(self, text: str, *, heading: bool = False) -> None:
        """Send a sentence to the listener."""
        self.listener(Said(text=text, heading=heading))


def job_of(config: "FitConfig | TrainConfig | SearchConfig") -> Job:
    """Return the job of a config; raise InputError for a wrong value."""
    return _training(config) if isinstance(config, TrainConfig) else _fit(config)


def _fit(config: Any) -> Job:
    if not is_number(config.max_drop):
        raise InputError(f"max_drop must lie in 0..100 percentage points; got {brief(config.max_drop)}")
    settings = with_recipe(config.settings, getattr(config, "recipe", None))
    asked = ask_settings(with_balance(settings, config.balance))
    config = _completed(config, settings=asked.settings)
    unknown = None if config.unknown_from is None else os.fspath(config.unknown_from)
    return _job(
        config,
        asked,
        budget=Budget(
            latency_ms=config.max_latency_ms,
            params=config.max_params,
            macs=config.max_macs,
            size_mb=config.max_size_mb,
            memory_mb=config.max_memory_mb,
        ),
        target=Target(
            runtime=config.runtime,
            precision=config.precision,
            max_drop=config.max_drop / 100,
            profile=os.fspath(config.device or ""),
        ),
        abstain=Abstain(
            coverage=config.coverage, max_error=config.max_error, unknown_from=unknown, score=config.unknown_score
        ),
    )


def _training(config: TrainConfig) -> Job:
    network = config.model if isinstance(config.model, ArchSpec) else read_spec(config.model)
    if config.resolution is not None:
        network = dataclasses.replace(network, resolution=config.resolution)
    sizes = {} if config.batch in (None, "auto") else {"train.batch_size": config.batch}
    asked = ask(config.recipe, {**with_balance(config.settings, config.balance), **sizes}, spec=network)
    config = _completed(
        config,
        model=network.name if isinstance(config.model, ArchSpec) else config.model,
        resolution=network.resolution,
        batch="auto" if config.batch == "auto" else None,
        settings=asked.settings,
    )
    if asked.recipe is not None:
        made = isinstance(config.recipe, Recipe)
        recipe = os.path.join(str(config.out), RUN, RECIPE) if made else asked.name
        config = dataclasses.replace(config, recipe=recipe, settings={} if made else asked.settings)
    return _job(config, asked, budget=Budget(), target=Target(precision="fp32"), abstain=Abstain(), network=network)


def _completed(config: Config, **values: Any) -> Config:
    """Return the config with `values`, texts for paths, and what the data imply."""
    data = config.data
    own = data.group_by if isinstance(data, Dataset) else ""
    found = read_asked(config.value_range)
    values |= {
        "out": default_out(config.out, name_of(data)),
        "group_by": config.group_by or own,
        "outputs": ",".join(read_words(config.outputs)),
        "value_range": "auto" if found is None else found if isinstance(found, str) else found.asked,
        "balance": None,
    }
    paths = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "data"} | values
    texts = {name: os.fspath(value) for name, value in paths.items() if isinstance(value, os.PathLike)}
    return dataclasses.replace(config, **(values | texts))


def _job(config: Config, asked: Asked, **parts: Any) -> Job:
    """Return the job, with the seed: the one given, else the recipe's, else that of a data set's split, else 0."""
    data, given = config.data, config.seed if config.seed is not None else asked.value("train.seed")
    seed = given or 0 if given is not None or not isinstance(data, Dataset) else data.seed
    usual = seed == 0 and not asked.value("train.seed")
    config = dataclasses.replace(config, data=name_of(data), seed=None if usual else seed)
    dataset = None if isinstance(data, str | os.PathLike) else data
    procedure = config.procedure or USUAL
    if (powers := getattr(config, "powers", None)) is not None:
        found = read_powers(powers if isinstance(powers, str) else ",".join(map(str, powers)))
        procedure = dataclasses.replace(procedure, space=dataclasses.replace(procedure.space, powers=found))
    return Job(config=config, asked=asked, seed=seed, dataset=dataset, procedure=procedure, **parts)


def default_out(out: str | os.PathLike[str] | None, data: str) -> Path:
    """Return `out`, or a folder named after the data."""
    if out is not None:
        return Path(out)
    name = re.sub(r"[^\w.-]+", "-", Path(os.path.abspath(data)).stem).strip("-")
    return Path(f"effnet-{name or 'model'}")


def options_given(job: Job) -> tuple[Given, ...]:
    """Return the options of this job, with the fields of the recipe that it sets, for its report."""
    words = settings_words(job.config.settings)[1::2]
    fields = [word.partition("=") for word in words]
    about = "A field of the recipe."
    settings = [
        Given(option=f"--set {name}", value=value, usual="", changed=True, about=about) for name, _, value in fields
    ]
    return (*settings, *given(job.config))


def command_line(job: Job) -> str:
    """Return the command line that repeats this job."""
    data = str(job.config.data) if job.dataset is None else "DATA"  # a data set of a program has no path
    words = ["effnet", job.config.VERB, data, *command_words(job.config), *settings_words(job.config.settings)]
    return shlex.join([*words, "--out", str(job.out)])
