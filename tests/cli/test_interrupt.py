import json
import os
import signal
import subprocess
import sys

import pytest

import effnet

_TRAIN = """
import torch
torch.set_num_threads(1)
from effnet.cli.main import main
main()
"""


@pytest.mark.elsewhere
def test_sigterm_saves_says_how_to_go_on_and_exits_with_143(tiny_images, tmp_path):
    network, out = tmp_path / "tiny.json", tmp_path / "out"
    network.write_text(json.dumps(effnet.spec_to_dict(effnet.scale(effnet.get_spec("b0"), phi=-20, resolution=16))))
    words = ["train", str(tiny_images), "--model", str(network), "--epochs", "400", "--out", str(out)]
    command = [sys.executable, "-c", _TRAIN, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ) as process:
        assert any(line.startswith("epoch 2:") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "terminated; continue with the same command and --resume" in said
    assert "Traceback" not in said
    folder = out / "run" / "attempt-1"
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))
    assert (folder / "checkpoint.safetensors").is_file()
    assert not list(folder.glob("*.tmp"))
