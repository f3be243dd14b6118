"""The words of the command line, which a change must not alter unseen."""

from pathlib import Path

import pytest

import effnet

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
VERBS = (
    "fit", "train", "runs", "compare", "predict", "evaluate", "export", "bench", "profile", "prune", "quantize",
    "inspect", "shard", "models", "show", "cost", "scale", "recipes", "pull", "import", "weights",
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


@pytest.mark.parametrize("verb", ["list", "info", "convert"])
def test_the_help_of_a_verb_of_weights_is_its_golden_file(verb, run_cli, check_golden):
    ran = run_cli("weights", verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    check_golden(GOLDEN / f"weights-{verb}.txt", ran.out)


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


@pytest.mark.parametrize("words", [["fitt"], ["predict"], ["cost"], ["cost", "b0", "--format", "xml"], ["fit", "--no"]])
def test_a_wrong_command_line_ends_with_code_2_and_says_how_to_get_help(words, run_cli):
    ran = run_cli(*words)
    assert ran.code == 2
    assert "--help' for help." in ran.err
    assert "Error: " in ran.err
    assert ran.out == ""
