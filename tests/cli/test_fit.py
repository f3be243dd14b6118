"""fit and train on the command line: refusals, exit codes, output."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from messages import refused

pytestmark = pytest.mark.usefixtures("one_thread")


def result_lines(out):
    """Return what was printed without the lines on guessing and on classes: how a tiny network does is no matter."""
    others = ("Always answering ", "WARNING: ", "Balanced accuracy ", "Lowest recall: ")
    return [line for line in out.splitlines() if not line.startswith(others)]


@pytest.mark.parametrize("verb", ["fit", "train"])
@pytest.mark.parametrize(
    "words, message",
    [
        (["--epochs", 0], "epochs must lie in 1..100000; got 0"),
        (["--minutes", "nan"], "minutes must be positive and finite; got nan"),
        (["--minutes", "inf"], "minutes must be positive and finite; got inf"),
        (["--minutes", -1], "minutes must be positive and finite; got -1.0"),
        (["--epochs", 1, "--minutes", 1], "give --epochs or --minutes, not both"),
        (["--seed", -1], "the seed must lie in 0..4294967295; got -1"),
        (["--set", "fit.channels=0"], "channels must lie in 1..4096; got 0"),
        (
            ["--set", "fit.resize=pat"],
            "fit.resize must be one of auto, center, squash, pad; got 'pat'; did you mean 'pad'?",
        ),
        (["--set", "fit.resise=pad"], "fit.channels, fit.strict"),
        (["--set", "fit.strict=yes"], "--set fit.strict must be true or false; got 'yes'"),
        (["--set", "fit.seed=1"], "seed has an option of its own, --seed; got --set 'fit.seed=1'"),
        (["--set", "augment.flip"], "--set must be FIELD=VALUE, such as train.lr=0.1; got 'augment.flip'"),
    ],
)
def test_options_out_of_range_are_refused(verb, words, message, tiny_images, tmp_path, run_cli):
    assert message in refused(run_cli(verb, tiny_images, *words, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "fit.threads=0"], "threads must lie in 1..1024; got 0"),
        (["--max-latency-ms", -1], "the budget of latency must be positive and finite; got -1.0"),
        (["--max-latency-ms", "nan"], "the budget of latency must be positive and finite; got nan"),
        (["--max-size-mb", 0], "the budget of size on disk must be positive and finite; got 0.0"),
        (["--max-memory-mb", "inf"], "the budget of peak memory must be positive and finite; got inf"),
        (["--max-macs", 0], "the budget of MACs must be positive and finite; got 0.0"),
        (["--set", "fit.max_params=-5M"], "an amount must be a positive number, with k, M or G after it or nothing"),
        (["--set", "fit.max_params="], "an amount must be a positive number, with k, M or G after it or nothing"),
    ],
)
def test_budgets_out_of_range_are_refused(words, message, tiny_images, tmp_path, run_cli):
    assert message in refused(run_cli("fit", tiny_images, *words, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["fit", "train"])
@pytest.mark.parametrize("where", ["inside", "same", "above", "linked", "here"])
def test_a_bundle_is_never_written_among_the_images(verb, where, tiny_images, tmp_path, run_cli, monkeypatch):
    data = shutil.copytree(tiny_images, tmp_path / "photos")
    (tmp_path / "link").symlink_to(data)
    out = {
        "inside": data / "new" / "b",
        "same": data,
        "above": tmp_path,
        "linked": tmp_path / "link" / "b",
        "here": None,
    }
    monkeypatch.chdir(data)
    words = ["."] if where == "here" else [data, "--out", out[where]]
    message = refused(run_cli(verb, *words))
    assert message.startswith("--out must be outside of DATA (")
    how = {"same": "is that folder", "above": "contains it"}.get(where, "is inside it")
    advice = {"here": "effnet-photos", "inside": "b", "linked": "b"}.get(where, "effnet-model")
    assert message.endswith(f" {how}: give --out ../{advice}")
    assert sorted(path.name for path in data.iterdir()) == ["dark", "light", "middle"]


@pytest.mark.parametrize("words", [["--epochs", "1.5"], ["--minutes", "soon"], ["--max-latency-ms", "5ms"]])
def test_words_that_are_no_numbers_are_refused(words, tiny_images, run_cli):
    ran = run_cli("fit", tiny_images, *words)
    assert ran.code == 2
    assert f"Invalid value for '{words[0]}'" in ran.err


@pytest.mark.parametrize(
    "folders, message",
    [
        (None, "DATA must be a folder, a CSV or JSONL manifest, .tar shards, hf:NAME or one of digits; there is no"),
        ([], "is empty; expected one subfolder per class"),
        (["dark"], r"(2|two) classes"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(folders, message, tiny_images, tmp_path, run_cli):
    data = tmp_path / "data"
    if folders is not None:
        data.mkdir()
        for name in folders:
            (data / name).symlink_to(tiny_images / name)
    assert re.search(message, refused(run_cli("fit", data, "--epochs", 1, "--out", tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_budget_that_nothing_keeps_ends_with_code_3_and_the_nearest_that_can_be_kept(run_cli, tmp_path):
    ran = run_cli("fit", "digits", "--set", "fit.max_params=100", "--out", tmp_path / "out")
    assert ran.code == 3
    assert re.search(r"^effnet: no network .* parameters of at most 100: .*, so ask for [\d,]+ or more\n$", ran.err)
    assert not (tmp_path / "out").exists()


def test_an_unknown_network_is_suggested_before_anything_is_read(run_cli, tmp_path):
    ran = run_cli("train", "digits", "--model", "b00", "--out", tmp_path / "out")
    assert "did you mean 'b0'?" in refused(ran)
    assert ran.out == ""


def test_a_fit_says_what_it_does_and_what_came_of_it(run_cli, tiny_images, tmp_path):
    out = tmp_path / "out"
    ran = run_cli("fit", tiny_images, "--set", "fit.max_params=12k", "--max-macs", "200k", "--epochs", 2, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    for words in (
        "Reading",
        "60 images, 3 classes",
        "Planning",
        "taken",
        "epoch 1: loss",
        "epoch 2: loss",
        "Exporting",
    ):
        assert words in ran.out
    lines = result_lines(ran.out)
    mistakes = json.loads((out / "report.json").read_text(encoding="utf-8"))["report_images"]
    warning = f"report.html holds {mistakes} of your test images: share it only if you may share them"
    assert (lines.pop() == warning) if mistakes else (warning not in lines)
    assert (out / "report.html").read_text(encoding="utf-8").count('alt="the test image"') == mistakes
    last = lines[-4:]
    assert re.fullmatch(
        r"Test accuracy [\d.]+% on 9 images \(95 % confidence .*\), scored on the exported file", last[0]
    )
    assert re.fullmatch(r"parameters: [\d,]+ of 12,000", last[1])
    assert re.fullmatch(r"MACs: [\d,]+ of 200,000", last[2])
    assert last[3] == f"Bundle: {out}    Report: {out / 'report.html'}"


def test_a_fit_on_a_file_of_weights_says_whose_it_is_and_what_became_of_every_wish(
    run_cli, photos, tiny_images, lite0_file, tmp_path
):
    out = tmp_path / "out"
    words = ["--weights", lite0_file, "--set", "fit.strategy=head", "--set", "fit.coverage=0.9"]
    words += ["--set", f"fit.unknown_from={tiny_images}", "--set", "fit.report_images=false"]
    ran = run_cli("fit", photos, "--max-macs", "35M", *words, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert f"Training a head on {lite0_file}" in ran.out
    also = r"( and of stages [\d, and]+( \(without: [\d.]+%\))?)?"
    assert re.search(
        rf"A head on frozen features of tf_efficientnet_lite0\.safetensors{also}: validation accuracy", ran.out
    )
    last = result_lines(ran.out)[-6:]
    assert last[0] == "A linear head on the frozen features of tf_efficientnet_lite0.safetensors."
    assert last[1].startswith("Test accuracy ")
    assert re.fullmatch(r"Threshold [\d.]+: [\d.]+% are answered, [\d.]+% of them wrong", last[2])
    assert re.fullmatch(r"Unknown images: [\d.]+% rejected, AUROC [\d.]+ on 60", last[3])
    assert last[4] == "MACs: 31,345,344 of 35,000,000"
    assert 'alt="the test image"' not in (out / "report.html").read_text(encoding="utf-8")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    again = ["effnet", "fit", photos, "--max-macs", 35_000_000, *words, "--out", out]
    assert report["command"] == shlex.join(map(str, again))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Their licence: unknown: ask the author of the weights." in card


def test_ctrl_c_ends_a_fit_with_code_130_and_says_how_to_go_on(tiny_images, tmp_path):
    words = ["fit", str(tiny_images), "--set", "fit.max_params=4k", "--epochs", "5000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "effnet", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has its children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        assert any(line.startswith("epoch 1:") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
    assert (process.returncode, err) == (130, "effnet: interrupted; continue with the same command and --resume\n")


@pytest.mark.parametrize(
    "path, where", [("out/run/plan.json", " at out/run/plan.json"), (None, ", or standard output cannot be written")]
)
def test_a_full_disk_is_told_as_one(path, where, run_cli, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device", *([path] if path else []))

    monkeypatch.setattr("effnet.cli.main._command", lambda: full)
    ran = run_cli("fit", "digits")
    assert ran.code == 1
    assert ran.err.startswith(f"effnet: the disk is full{where}: free some space")
