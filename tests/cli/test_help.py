"""The words of the command line, which a change must not alter unseen."""

import typing
from pathlib import Path

import pytest
from typer.models import OptionInfo
from verbs import verbs

import effnet

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
VERBS = (
    "fit", "train", "search", "predict", "embed", "align", "zeroshot", "find", "suggest", "pretrain", "explain",
    "serve", "watch", "evaluate", "monitor", "export", "bench", "quantize", "prune", "profile", "recipes", "models",
    "data", "runs",
)  # fmt: skip


def test_the_help_of_the_program_is_its_golden_file(run_cli, check_golden):
    ran = run_cli("--help")
    assert (ran.code, ran.err) == (0, "")
    check_golden(GOLDEN / "effnet.txt", ran.out)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_its_golden_file(verb, run_cli, check_golden):
    ran = run_cli(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    check_golden(GOLDEN / f"{verb}.txt", ran.out)


@pytest.mark.parametrize("name", [name for name, _ in verbs() if " " in name])
def test_the_help_of_a_verb_in_a_group_is_its_golden_file(name, run_cli, check_golden):
    ran = run_cli(*name.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    check_golden(GOLDEN / f"{name.replace(' ', '-')}.txt", ran.out)


def test_verbs_have_eight_options_at_most_and_these_more():
    """`--set` and `--help-all`, which give the rest, do not count. `models scale` has four ways of scaling.

    `data inspect` judges labels as well; `pretrain` has weights, a teacher and a probe; `serve` has a page, and three
    options of what it does instead of serving; `evaluate` has four of corrupted and attacked images.
    """
    most = {
        "fit": 17, "pretrain": 9, "train": 9, "serve": 13, "models scale": 12, "data inspect": 9, "evaluate": 11,
    }  # fmt: skip
    for name, verb in verbs():
        hints = typing.get_type_hints(verb, include_extras=True)
        options = [
            option
            for option, hint in hints.items()
            if typing.get_args(hint) and isinstance(typing.get_args(hint)[1], OptionInfo)
        ]
        assert len({*options} - {"set_", "help_all"}) <= most.get(name, 8), (name, options)


def test_every_golden_file_is_of_a_verb():
    names = {name.replace(" ", "-") for name, _ in verbs()} | {*VERBS, "effnet"}
    assert {path.stem for path in GOLDEN.glob("*.txt")} == names


def test_every_verb_is_tested_and_listed(run_cli):
    text = run_cli("--help").out.partition("Commands:")[2].partition("Exit codes")[0]
    assert tuple(line.split()[0] for line in text.splitlines() if line.strip()) == VERBS


def test_the_version_is_printed(run_cli):
    ran = run_cli("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"effnet {effnet.__version__}\n", "")


def test_no_words_print_the_help_and_end_with_code_2(run_cli):
    ran = run_cli()
    assert ran.code == 2
    assert ran.err == run_cli("--help").out


@pytest.mark.parametrize(
    "words", [["fitt"], ["predict"], ["models", "cost"], ["models", "cost", "b0", "--format", "xml"], ["fit", "--no"]]
)
def test_a_wrong_command_line_ends_with_code_2_and_says_how_to_get_help(words, run_cli):
    ran = run_cli(*words)
    assert ran.code == 2
    assert "--help' for help." in ran.err
    assert "Error: " in ran.err
    assert ran.out == ""
