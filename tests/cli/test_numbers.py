"""Every numeric option with absurd numbers: one message and exit code 2, or it works."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captioned
import pytest
from bundles import make_bundle
from procedures import fit, made_up
from verbs import verbs

from effnet.cli.recipes import read_settings
from effnet.errors import InputError
from effnet.jobs.align.config import AlignConfig
from effnet.jobs.fit.config import FitConfig, TrainConfig
from effnet.jobs.pretrain.config import PretrainConfig
from effnet.jobs.prune.config import PruneConfig
from effnet.jobs.quantize.config import QuantizeConfig
from effnet.jobs.search.config import SearchConfig
from effnet.serving.settings import ServeOptions
from effnet.system.options import options_of
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe, Stage
from effnet.watching.settings import Settings as WatchSettings

NO_NUMBERS = ("nan", "inf", "-inf", "1e999", "", "abc", "9" * 5000)
ABSURD = ("1e308", str(10**30))
VALUES = (*NO_NUMBERS, *ABSURD, "-1", "0", "1e-320", str(2**31))
# An empty list shows nothing, and exact counting accepts any integer.
ANY_SIZE = {"shard_mb", "per_shard", "top", "images", "resolution"}
# Texts that are numbers, or lists of them.
TEXTS = {"max_macs", "max_params", "batch", "threads", "powers"}
# Numbers that are given as --set FIELD=VALUE.
FIELDS = (("export", "images"), *(("models import", name) for name in ("resolution", "crop", "mean", "std")))
# The functions that start the work; the numbers must be valid by then.
STOPS = {
    "fit": "effnet.jobs.fit.reading.inspect_and_join",
    "train": "effnet.jobs.fit.reading.inspect_and_join",
    "search": "effnet.jobs.fit.reading.inspect_and_join",
    "export": "effnet.measurement.verify.eager_outputs",
    "profile": "effnet.jobs.profile.profile_networks",
    "prune": "effnet.jobs.prune.api.prune_in_steps",
    "quantize": "effnet.compression.ladder._Climb.go",
    "models import": "effnet.jobs.import_checkpoint.read_network",
    "align": "effnet.jobs.align.job.new_bundle",
    "pretrain": "effnet.jobs.pretrain.job.make_run",
    "serve": "effnet.serving.run.serve",
    "watch": "effnet.watching.run.watch",
}
WORDS = {
    "fit": "{data} --out {new}",
    "train": "{data} --out {new}",
    "search": "{data} --max-latency-ms 5 --out {new}",
    "predict": "{bundle} {data}/dark",
    "explain": "{bundle} {data}/dark",
    "monitor": "{bundle} {data}/dark --reference {data}",
    "evaluate": "{bundle} {data}",
    "export": "{bundle} --to onnx-int8 --data {data} --out {new}",
    "bench": "{bundle}",
    "profile": "--out {new}.json",
    "prune": "{bundle} {data} --out {new}",
    "quantize": "{bundle} {data} --out {new}",
    "serve": "{bundle}",
    "watch": "{data}/dark --model {bundle}",
    "data inspect": "{data}",
    "data shard": "{data} {new}",
    "models show": "b0",
    "models cost": "b0 --training",
    "models scale": "b0",
    "embed": "{bundle} {data}/dark --out {new}.npz",
    "models import": "{bundle}/model.safetensors --classes imagenet --out {new}",
    "align": "{captions} --text title --words {glove} --weights {bundle} --out {new}",
    "suggest": "{data} --weights {bundle}",
    "pretrain": "{data} --weights {bundle} --out {new}",
    "find": "{bundle} {data}/dark --image {data}/dark/{first}",
}


CONFIGS = {
    "fit": FitConfig, "train": TrainConfig, "search": SearchConfig, "prune": PruneConfig, "quantize": QuantizeConfig,
    "align": AlignConfig, "pretrain": PretrainConfig, "serve": ServeOptions, "watch": WatchSettings,
}  # fmt: skip


class _Reached(BaseException):
    """The work begins."""


def _kinds(annotation: Any) -> set[type]:
    base = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    return set(typing.get_args(base)) if isinstance(base, types.UnionType) else {base}


def _options() -> Iterator[tuple[str, str]]:
    for name, verb in verbs():
        hints = typing.get_type_hints(verb, include_extras=True)
        for option in inspect.signature(verb).parameters:
            kinds = _kinds(hints[option])
            if kinds & {int, float} or (str in kinds and option in TEXTS):
                yield name, option
    for name, config in CONFIGS.items():
        for option, found in options_of(config).items():
            if not found.main and (found.kind in (int, float) or option == "batch"):
                yield name, f"{config.PREFIX}.{option}"
    yield from FIELDS


OPTIONS = sorted(_options())


@pytest.fixture(scope="module")
def bundle(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A tiny bundle trained on the classes of `tiny_images`."""

    def make(folder: Path) -> None:
        folder.mkdir()
        make_bundle(folder, class_names=("dark", "light", "middle"))

    return made_once("numbers", make)


@pytest.fixture
def captioned_places(tiny_images: Path, tmp_path: Path) -> dict[str, Any]:
    """Captions of grey images, words for them, and the name of one image."""
    images = sorted(tiny_images.rglob("*.png"))
    rows = [(str(path), f"a {list(captioned.COLOURS)[number % 8]} shirt") for number, path in enumerate(images)]
    return {
        "captions": captioned.write_rows(tmp_path / "captions.csv", rows, header=("path", "title")),
        "glove": captioned.write_glove(tmp_path / "glove.txt"),
        "first": next(path.name for path in images if path.parent.name == "dark"),
    }


@pytest.mark.parametrize("verb, option", OPTIONS, ids=[f"{verb}-{option}" for verb, option in OPTIONS])
def test_no_number_ends_in_a_traceback(
    verb, option, run_cli, bundle, tiny_images, tmp_path, monkeypatch, captioned_places
):
    def reached(*_: Any, **__: Any) -> None:
        raise _Reached

    if verb in STOPS:
        monkeypatch.setattr(STOPS[verb], reached)
    given = f"--set={option}" if "." in option or (verb, option) in FIELDS else f"--{option.replace('_', '-')}"
    for number, value in enumerate(VALUES):
        places = {"data": tiny_images, "bundle": bundle, "new": tmp_path / str(number)} | captioned_places
        words = [word.format(**places) for word in WORDS[verb].split()]
        try:
            ran = run_cli(*verb.split(), *words, f"{given}={value}", procedure=made_up(reached))
        except _Reached:
            code = 0
        else:
            code = ran.code
        if value in NO_NUMBERS or (value in ABSURD and option not in ANY_SIZE):
            assert code == 2, f"--{option}={value:.30} must be refused"
        assert code in (0, 2), ran
        if code == 2:
            ours = ran.err.startswith("effnet: ") and ran.err.count("\n") == 1
            assert ours or "\nError: Invalid value for " in ran.err, ran.err
            assert len(ran.err) < 400


def test_the_sweep_knows_every_option_that_is_a_number():
    assert {name for _, name in OPTIONS} >= {"minutes", "seed", "fit.threads", "phi", "shard_mb", "top", *TEXTS}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 0, 1e308, 10**400, "ten", True])
def test_no_number_of_the_python_api_ends_in_a_traceback(value, tmp_path, tiny_images):

    for name in ("minutes", "epochs", "threads", "max_latency_ms", "coverage", "max_error", "max_drop", "channels"):
        if (name, value) == ("max_drop", 0):
            continue
        with pytest.raises(InputError) as refused:
            fit(tiny_images, out=tmp_path / "out", **{name: value})
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300


def _numbers(kind: type, prefix: str = "") -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _numbers(hint, f"{prefix}{name}.")
        elif _kinds(hint) & {int, float}:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("field", [*_numbers(Recipe), *(f"stages.{name}" for name in _numbers(Stage))])
def test_no_number_of_a_recipe_ends_in_a_traceback(field):
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "1e308", str(10**30), "9" * 5000, "[" * 5000, '""', "-1e308"):
        (value,) = read_settings([f"x={text}"]).values()
        group, _, name = field.rpartition(".")
        values = {"stages": [{name: value}]} if group == "stages" else {field: value}
        with pytest.raises(InputError) as refused:
            with_values(Recipe(), values)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300
