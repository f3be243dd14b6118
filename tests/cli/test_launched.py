"""The command line in two processes that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_to_dict
from effnet.arch.scale import scale, truncate
from effnet.cli.launched import is_first, says
from effnet.errors import EffnetError, InputError, SaidElsewhere


@pytest.mark.parametrize(
    "rank, local_rank, error, spoken",
    [
        (0, 0, InputError("no such network"), True),
        (1, 1, InputError("no such network"), False),
        (8, 0, InputError("no such network"), True),  # of another machine, whose files may differ
        (1, 1, EffnetError("the first process has died"), True),
        (0, 0, SaidElsewhere(2), False),
    ],
)
def test_one_process_a_machine_says_what_the_caller_got_wrong(monkeypatch, rank, local_rank, error, spoken):
    for name, value in {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 16}.items():
        monkeypatch.setenv(name, str(value))
    assert says(error) is spoken
    assert is_first() is (rank == 0)


def launch(*words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "-m", "effnet", "train", *words]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, env=env)
    return done.returncode, done.stdout, done.stderr


def test_two_processes_make_one_bundle_and_say_everything_once(tmp_path, tiny_images):
    network = tmp_path / "tiny.json"
    network.write_text(json.dumps(spec_to_dict(truncate(scale(get_spec("lite0"), phi=-20), 3))))
    words = (tiny_images, "--model", network, "--resolution", 32, "--epochs", 1, "--out", tmp_path / "out")
    code, out, err = launch(*words)
    assert code == 0, err
    assert "effnet" not in err
    for part in ("Reading", "Training ", " for 1 epochs", "epoch 1: ", "Test accuracy", "Bundle: "):
        assert out.count(part) == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "model.onnx", "report.html", "run"} <= names
    code, out, err = launch(*words)
    assert code != 0
    assert out == ""
    assert err.count("effnet: ") == 1
    assert "must be new or empty" in err
