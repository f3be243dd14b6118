"""A new option of fit is one field: help, --set, resume, report, repeat command and docs follow from it."""

import dataclasses
import inspect
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from pages import page_of, sample, words_of
from typer.testing import CliRunner

import effnet
from effnet.cli.configs import takes_options
from effnet.cli.options import Data
from effnet.errors import InputError
from effnet.jobs.align.config import AlignConfig
from effnet.jobs.fit.config import FitConfig, TrainConfig
from effnet.jobs.fit.job import command_line, job_of, options_given
from effnet.jobs.fit.resume import check_same
from effnet.jobs.pretrain.config import PretrainConfig
from effnet.jobs.prune.config import PruneConfig
from effnet.jobs.quantize.config import QuantizeConfig
from effnet.jobs.search.config import SearchConfig
from effnet.serving.settings import ServeOptions
from effnet.system.options import markdown, option, options_of, takes
from effnet.system.records import to_data
from effnet.watching.settings import Settings as WatchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(FitConfig):
    """The options of fit and a new one."""

    sweetness: float = option("Sugar of the network, in cubes.", default=0.5, metavar="CUBES")


@pytest.fixture
def run():
    """Return a function that runs a command with the toy's options; it returns what was printed, and the values."""
    found = {}

    @takes_options(ToyConfig, data=Data)
    def fit(values):
        """Train."""
        found.update(values)

    def go(*words):
        app = typer.Typer(rich_markup_mode=None)
        app.command()(fit)
        return CliRunner().invoke(app, words, catch_exceptions=False).output, found

    return go


def test_the_help_of_everything_lists_it(run):
    text, _ = run("--help-all")
    assert "fit.sweetness=CUBES" in text
    assert "Sugar of the network, in cubes.  [default: 0.5]" in re.sub(r"\n +", " ", text)
    assert "sweetness=CUBES" not in run("--help")[0]


def test_it_is_set(run):
    _, values = run("digits", "--set", "fit.sweetness=2", "--set", "train.lr=0.1", "--max-macs", "5M")
    assert values["sweetness"] == 2.0
    assert (values["data"], values["max_macs"], values["settings"]) == ("digits", 5e6, {"train.lr": 0.1})
    with pytest.raises(InputError, match=r"--set fit\.sweetness must be a number; got 'much'"):
        run("digits", "--set", "fit.sweetness=much")
    with pytest.raises(InputError, match=r"did you mean 'fit\.sweetness'\?"):
        run("digits", "--set", "fit.sweetnes=1")


def test_a_resumed_fit_must_repeat_it():
    first, second = (job_of(ToyConfig("digits", epochs=1, out="out", sweetness=cubes)) for cubes in (1.0, 2.0))
    plan = SimpleNamespace(options=first.options, fingerprint="0")
    with pytest.raises(InputError, match=r"must repeat .*: --set fit\.sweetness was 1\.0, now 2\.0$"):
        check_same(plan, second, "0")


def test_the_command_of_the_report_gives_it_again(run):
    config = ToyConfig("digits", max_macs=5e6, out="out", sweetness=2.0, group_by="a b", settings={"train.lr": 0.1})
    said = command_line(job_of(config))
    assert said == (
        "effnet fit digits --max-macs 5000000 --set fit.sweetness=2 --set 'fit.group_by=a b' --set train.lr=0.1 "
        "--out out"
    )
    _, values = run(*shlex.split(said)[2:])
    assert command_line(job_of(ToyConfig(values.pop("data"), **values))) == said


def test_the_report_has_it_above_the_options_that_were_left_alone():
    job = job_of(ToyConfig("digits", epochs=1, sweetness=2.0, settings={"train.lr": 0.1}))
    options = [to_data(row) for row in options_given(job)]
    page = words_of(page_of({**sample(), "options": options}, draws=False))
    assert (
        "Options Option Value Default What it does --set train.lr 0.1 – A field of the recipe. --set fit.sweetness 2 "
        "0.5 Sugar of the network, in cubes. --epochs 1 – Training epochs."
    ) in page
    assert page.index("Training epochs") < page.index("--precision auto auto Precision")
    assert "--resume" not in page


def test_the_table_of_the_docs_has_it():
    assert "| `--set fit.sweetness=CUBES` | `0.5` | Sugar of the network, in cubes. |" in markdown(ToyConfig)


def test_a_function_takes_it_by_its_name():
    @takes(ToyConfig)
    def eat(config: ToyConfig) -> float:
        """Return the cubes."""
        return config.sweetness

    assert eat("digits", sweetness=3.0) == 3.0
    assert inspect.signature(eat).parameters["sweetness"].default == 0.5
    with pytest.raises(TypeError, match=r"eat.*unexpected keyword argument 'salt'"):
        eat("digits", salt=1)


@pytest.mark.parametrize(
    ("config", "most", "function"),
    [
        (FitConfig, 17, effnet.fit),
        (TrainConfig, 9, effnet.train),
        (PruneConfig, 8, effnet.prune),
        (SearchConfig, 8, effnet.search),
        (QuantizeConfig, 8, effnet.quantize),
        (AlignConfig, 8, effnet.align),
        (PretrainConfig, 9, effnet.pretrain),
    ],
)
def test_the_help_stays_short_and_the_functions_take_every_option(config, most, function):
    options = options_of(config)
    assert sum(found.main for found in options.values()) <= most
    assert options.keys() <= inspect.signature(function).parameters.keys()
    assert {field.name for field in dataclasses.fields(config)} == inspect.signature(function).parameters.keys()


PAGE = """# Options of fit, train, search, prune, quantize, align, pretrain, serve and watch

`effnet fit --help` lists the main options, `effnet fit --help-all` those with `--set` as well. In Python all of them
are arguments: `effnet.fit("photos/", max_latency_ms=5, threads=2)`. `train` takes `fit.NAME` too, as `train.NAME` is a
field of the recipe: `--set train.lr=0.1`. tests/contributing/test_a_fit_option.py writes this page.
"""


def test_the_page_of_the_docs_has_every_option(check_golden):
    verbs = {
        "fit": FitConfig, "train": TrainConfig, "search": SearchConfig, "prune": PruneConfig,
        "quantize": QuantizeConfig, "align": AlignConfig, "pretrain": PretrainConfig,
        "serve": ServeOptions, "watch": WatchSettings,
    }  # fmt: skip
    tables = [f"\n## {verb}\n\n{markdown(config)}" for verb, config in verbs.items()]
    check_golden(Path(__file__).parents[2] / "docs" / "reference" / "options.md", PAGE + "".join(tables))
