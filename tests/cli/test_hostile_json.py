"""Hostile JSON through every verb that reads JSON: an error of one line, or the rest of the folder."""

import json
import os

import pytest
from messages import refused

import effnet

TEXTS = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 150 + b"1" + b"}" * 150,
    "not a number": b'{"format": 1, "checksum": NaN}',
    "infinite": b'{"format": 1e999}',
    "huge": b'{"format": ' + b"9" * 5000 + b"}",
    "many digits": b'{"format": 1, "resolution": 99999999999999999999}',
    "half": b'{"format": 1, ',
    "empty": b"",
    "zeros": b"\0" * 100,
    "utf-16": '{"format": 1}'.encode("utf-16"),
    "a list": b"[1, 2]",
    "a text": b'"\\u001b[31m\\n"',
    "a long text": b'{"format": "' + b"x" * 100_000 + b'"}',
}
FILES = {
    "models show": ["models", "show", "{}"],
    "models cost": ["models", "cost", "{}"],
    "models scale": ["models", "scale", "{}", "--phi", "-1"],
    "train --model": ["train", "digits", "--model", "{}"],
    "train --recipe": ["train", "digits", "--recipe", "{}"],
    "recipes": ["recipes", "{}"],
    "profile --show": ["profile", "--show", "{}"],
    "fit --device": ["fit", "digits", "--device", "{}"],
}


@pytest.mark.parametrize("words", FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_line(words, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given.json"
    for name, text in TEXTS.items():
        path.write_bytes(text)
        message = refused(run_cli(*[word.format(path) for word in words]))
        assert str(path) in message, (name, message)
        assert len(message) < 500 + len(str(path)), name
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert str(path) in refused(run_cli(*[word.format(path) for word in words]))


@pytest.mark.parametrize(
    "name", ["report.json", "run/plan.json", "run/attempt-1/recipe.json", "run/attempt-1/metrics.jsonl"]
)
def test_runs_are_listed_whatever_a_file_of_one_holds(name, run_cli, tmp_path):
    run = tmp_path / "one"
    (run / "run" / "attempt-1").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "run" / "attempt-1" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 1.0, "val_accuracy": 0.5}\n')
    for text in (*TEXTS.values(), b'{"epoch": 1, "loss": 1e308, "val_accuracy": -1e308, "seconds": 9007199254740993}'):
        (run / name).write_bytes(text)
        for words in (["runs", "list", tmp_path], ["runs", "list", tmp_path, "--format", "json"]):
            ran = run_cli(*words)
            assert (ran.code, ran.err) == (0, "")
            assert len(ran.out) < 20_000
    ran = run_cli("runs", "compare", run, "--out", tmp_path / "page.html")  # of the numbers that are too large to draw
    assert ran.code == 0 or "must have finished an epoch" in refused(ran)


def test_a_profile_of_numbers_that_overflow_is_refused(run_cli, tmp_path):
    from effnet.arch.codec import spec_to_dict
    from effnet.measurement.profile.profile import checksum

    path = tmp_path / "device.json"
    spec = spec_to_dict(effnet.get_spec("b0"))
    row = {"precision": "fp32", "latency_ms": 1.0, "spread": 0.0, "memory_mb": None, "spec": spec}
    base = {"format": 1, "runtime": "onnxruntime", "threads": 1, "created": "", "seconds": 1.0, "machine": {}}
    base |= {"versions": {}, "clock": {"start_mhz": None, "end_mhz": None, "reference_ms": []}, "errors": {}}
    for number in (1e308, 2**63 - 1, 1e-320, -1, 0, "x" * 10_000, True):
        data = base | {"measured": [row | {"latency_ms": number}]}
        path.write_text(json.dumps({**data, "checksum": checksum(data)}))
        message = refused(run_cli("profile", "--show", path))
        assert message.startswith(f"{path}: latency_ms must ")
        assert len(message) < 300
