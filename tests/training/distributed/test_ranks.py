"""Two gloo processes against one; rank_runs.py has the runs."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import rank_runs
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import HELPERS, ROOT
from rank_runs import EVEN, SYNCED, trained
from tiny_runs import RECIPE, run

from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.recipe.file import with_values

pytestmark = pytest.mark.usefixtures("one_thread")


def launch(*words, processes=2):
    """Return the exit code and the output of the processes, without torchrun's own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, *words]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HELPERS, ROOT)))}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, env=env)
    return done.returncode, done.stdout, done.stderr


def launch_cases(folder, *names):
    return launch(rank_runs.__file__, folder, *names)


@pytest.fixture(scope="module")
def together(tmp_path_factory, one_thread):
    """Return the files and output of two processes in all cases that they survive, one after the other."""
    folder = tmp_path_factory.mktemp("together")
    names = ("plain", "even", "synced", "precise", "validated", "unreadable", "broken", "interrupted")
    _, out, err = launch_cases(folder, *names)
    assert 'Traceback (most recent call last):\n  File "' + rank_runs.__file__ not in err
    return folder, out


def left_by(folder, name):
    """Return the losses, the rows of history and the checkpoint of a run."""
    losses, history = json.loads((folder / f"{name}-0.json").read_text())
    return np.array(losses), history, safetensors.torch.load_file(folder / name / "0" / "checkpoint.safetensors")


def differences(one, other, prefix):
    return {name: (one[name] - other[name]).abs().max().item() for name in one if name.startswith(prefix)}


def test_two_processes_take_the_very_steps_that_one_takes_in_two_micro_batches(tmp_path, together):
    """BatchNorm statistics are those of 8 images in both; their moving average differs, and is left out."""
    trained(tmp_path / "even", ALONE, with_values(EVEN, {"train.micro_batch": 8}))
    alone, shared = left_by(tmp_path, "even"), left_by(together[0], "even")
    np.testing.assert_allclose(shared[0], alone[0], rtol=0, atol=1e-6)
    found = differences(alone[2], shared[2], "model.")
    assert max(value for name, value in found.items() if "running" not in name and "num_batches" not in name) <= 1e-6


def test_with_synchronised_norms_uneven_shares_give_what_one_process_gives(tmp_path, together):
    trained(tmp_path / "synced", ALONE, SYNCED)
    alone, shared = left_by(tmp_path, "synced"), left_by(together[0], "synced")
    np.testing.assert_allclose(shared[0], alone[0], rtol=0, atol=1e-5)
    assert max(differences(alone[2], shared[2], "model.").values()) <= 1e-4
    assert max(differences(alone[2], shared[2], "average.").values()) <= 1e-4
    for one, other in zip(alone[1], shared[1], strict=True):
        assert one["val_accuracy"] == other["val_accuracy"]
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=1e-4)


@pytest.mark.parametrize("name", ["plain", "synced", "precise"])
def test_all_processes_end_with_the_same_weights_and_the_first_alone_writes(together, name):
    folder, _ = together
    first, second = (safetensors.torch.load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert (
        json.loads((folder / f"{name}-0.json").read_text())[1] == json.loads((folder / f"{name}-1.json").read_text())[1]
    )
    assert [path.name for path in (folder / name).iterdir()] == ["0"]
    assert json.loads((folder / f"{name}-1.json").read_text())[0] == []  # the other's listener is not called


def test_validation_counts_each_image_once(tmp_path, together):
    rank_runs.validated(tmp_path / "validated", ALONE)
    alone = json.loads((tmp_path / "validated-0.json").read_text())
    for rank in (0, 1):
        found = json.loads((together[0] / f"validated-{rank}.json").read_text())
        assert [row[1:] for row in found] == [row[1:] for row in alone]
        assert [np.sum(row[2]) for row in found] == [71, 1]
        assert [row[0] for row in found] == pytest.approx([row[0] for row in alone], rel=1e-6)


def test_what_fails_on_one_process_ends_all_and_is_said_once(together):
    folder, out = together
    assert re.findall("unreadable: .*", out) == [
        "unreadable: 16 images in a row cannot be read; the last: no such image"
    ]
    (broken,) = re.findall("broken: .*", out)
    assert "the loss became nan at step 3 of epoch 1" in broken
    assert "every layer's output is finite, but the loss is not" in broken  # which only the other process has seen
    batch = safetensors.torch.load_file(folder / "broken" / "0" / "diverged.safetensors")["batch.labels"]
    assert len(batch) == RECIPE.train.batch_size  # of both


def test_ctrl_c_at_one_process_ends_all_after_the_same_step(tmp_path, together):
    folder, out = together
    # Both write to one pipe, so a line of one may follow that of the other before its end.
    assert sorted(re.findall("interrupted: process (.) interrupted", out)) == ["0", "1"]
    with safetensors.safe_open(folder / "interrupted" / "0" / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["position"])["step"] == 2


def test_a_killed_process_ends_the_run_in_words_and_it_resumes_to_the_same_weights(tmp_path, together):
    code, out, _ = launch_cases(tmp_path, "killed")
    assert code != 0
    (said,) = re.findall("killed: (.*)", out)
    assert re.search(r"another (process of this training has|of its processes has) died.*--resume", said)
    (tmp_path / "killed").rename(tmp_path / "plain")
    code, out, err = launch_cases(tmp_path, "plain")
    assert (code, out) == (0, ""), err
    losses, history, found = left_by(tmp_path, "plain")
    assert 0 < len(losses) < 9  # it continued
    whole = left_by(together[0], "plain")
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in whole[1]]
    assert all(torch.equal(tensor, whole[2][name]) for name, tensor in found.items())


def test_a_run_that_goes_on_with_another_number_of_processes_says_so(tmp_path, together):
    folder, events = tmp_path / "interrupted" / "0", []
    folder.parent.mkdir()
    (together[0] / "interrupted" / "0").rename(folder)
    run(folder, listener=events.append)
    assert "began with 2 process(es) and continues with 1" in events[0].text


@given(count=st.integers(2, 300), size=st.integers(1, 9), least=st.integers(1, 2))
def test_shares_cover_a_step_once_or_weigh_less(count, size, least):
    shares = [Ranks(rank=rank, size=size).share(count, least=least) for rank in range(size)]
    assert sum(share.weight for share in shares) == pytest.approx(1)
    seen = np.zeros(count)
    for share in shares:
        seen[share.first : share.last] += share.weight * count / (share.last - share.first)
        assert share.smallest <= share.last - share.first <= share.largest
        assert share.last - share.first >= min(least, count)
    np.testing.assert_allclose(seen, 1)
