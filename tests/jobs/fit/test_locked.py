"""Two processes with one --out: one makes a complete bundle, the other names the process that holds it."""

import os
import re
import subprocess
import sys

import effnet
from effnet.data.datasets import read_dataset
from effnet.measurement.evaluate import evaluate


def test_of_two_fits_of_a_head_into_one_folder_one_is_refused(small_bundle, tiny_images, tmp_path):
    """A head writes no checkpoint, so only the fit's own lock can keep the other out."""
    (tmp_path / "link").symlink_to(tmp_path)
    words = [
        "fit",
        tiny_images,
        "--weights",
        small_bundle,
        "--set",
        "fit.strategy=head",
        "--max-latency-ms",
        "1000",
        "--out",
    ]
    outs = [tmp_path / "out", tmp_path / "link" / "out"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "effnet", *words, out],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for out in outs
    ]
    said = {process.pid: process.communicate(timeout=300)[1] for process in processes}
    assert sorted(process.returncode for process in processes) == [0, 2]
    winner, loser = sorted(processes, key=lambda process: process.returncode)
    assert said[winner.pid] == ""
    who = f"(process {winner.pid}|another process)"  # between taking the lock and writing its number it is nameless
    in_the_way = rf"only one effnet process at a time may write to {tmp_path}/out; {who} does\."
    over_already = r".*out must be new or empty; it is not"  # if the machine ran one after the other
    assert re.match(rf"effnet: ({in_the_way}|{over_already})", said[loser.pid])
    assert said[loser.pid].count("\n") == 1
    model = effnet.load(tmp_path / "out")
    assert model.config.class_names == ("dark", "light", "middle")
    assert evaluate(model, read_dataset(tiny_images).test).images == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]
