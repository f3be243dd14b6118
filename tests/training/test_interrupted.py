import json
import os
import signal

import pytest
import safetensors.torch
import torch
from more import more
from places import HELPERS
from tiny_runs import RECIPE, TUNING, Stop, run, run_saving, weights

from effnet.bundle.names import CHECKPOINT, METRICS
from effnet.errors import InputError
from effnet.progress import Step
from effnet.system.signals import Interrupt
from effnet.training.recipe.file import with_values

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "at, recipe", [(1, RECIPE), more(3, RECIPE), (4, RECIPE), more(7, RECIPE), more(1, TUNING), (4, TUNING)]
)
def test_a_run_interrupted_at_any_step_resumes_to_the_same_weights(tmp_path, at, recipe):
    whole = weights(run_saving(tmp_path / "whole", recipe=recipe))

    def stop(event):
        if isinstance(event, Step) and event.step == at + 1:
            raise Stop

    with pytest.raises(Stop):
        run_saving(tmp_path / "parts", listener=stop, recipe=recipe)
    resumed = run_saving(tmp_path / "parts", recipe=recipe)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(resumed).items())
    rows = [json.loads(line)["epoch"] for line in (tmp_path / "parts" / METRICS).read_text().splitlines()]
    assert rows == [1, 2, 3]


# Runs in one folder, one after the other, each in a process of its own (forked, to spare the imports) that is killed:
# some after a time, some in the middle of writing a file.
_KILLED = """
import io, json, os, pathlib, random, signal, sys, time, traceback
sys.path[:0] = {folders!r}
import torch, safetensors.torch, torch.utils.tensorboard
torch.set_num_threads(1)
from effnet.training.state import tensorfile
from tiny_runs import run_saving
from effnet.training.recipe.file import recipe_from_dict
recipe = recipe_from_dict({recipe!r})
root = pathlib.Path({root!r})

def go(folder, writes=None):
    left = [writes]
    class Dying(io.FileIO):
        def write(self, data):
            left[0] -= 1
            if left[0] <= 0:
                super().write(bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(data)
    if writes is not None:
        tensorfile.open = Dying
    result = run_saving(folder, recipe=recipe)
    safetensors.torch.save_file(dict(result.model.state_dict()), folder / "result.safetensors")

def fork(*arguments):
    process = os.fork()
    if process == 0:
        try:
            go(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return process

go(root / "whole")  # imports what torch imports late, so that no fork has to
chance, ends, halves = random.Random({seed}), [], 0
for number in range({kills}):
    if number % 2:
        process = fork(root / "parts", chance.randrange(1, 400))
    else:
        process = fork(root / "parts")
        time.sleep(chance.uniform(0.05, 0.2))
        os.kill(process, signal.SIGKILL)
    ends.append(os.WTERMSIG(os.waitpid(process, 0)[1]))
    halves += bool(list((root / "parts").glob("*.tmp")))
assert os.waitpid(fork(root / "parts"), 0)[1] == 0
print(json.dumps([ends, halves]))
"""


@pytest.mark.elsewhere
def test_kill_9_at_random_moments_resumes_to_the_same_weights(tmp_path, run_python):
    recipe = with_values(
        RECIPE, {"train.epochs": 5, "train.batch_size": 8, "train.keep_checkpoints": 2, "train.fused": False}
    )
    code = _KILLED.format(folders=[str(HELPERS)], root=str(tmp_path), recipe=recipe.to_dict(), seed=7, kills=10)
    ran = run_python("-c", code)
    assert ran.code == 0, ran.err
    ends, halves = json.loads(ran.out)
    assert ends.count(signal.SIGKILL) >= 8  # a fast machine may be done before the last ones
    assert halves >= 4  # files that were being written
    whole, parts = (safetensors.torch.load_file(tmp_path / name / "result.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], tensor) for name, tensor in parts.items())
    lines = [(tmp_path / name / METRICS).read_text().splitlines() for name in ("whole", "parts")]
    rows = [[json.loads(line)["val_loss"] for line in each] for each in lines]
    assert rows[0] == rows[1]


def signalled(folder, at, *, times):
    """Press Ctrl-C `times` times after a step; return the steps that were run."""
    steps = []

    def press(event):
        if isinstance(event, Step):
            steps.append(event.step)
            for _ in range(times if event.step == at else 0):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(folder, listener=press)
    return steps


def test_ctrl_c_saves_the_step_that_is_done_and_the_run_goes_on_from_it(tmp_path):
    whole = weights(run(tmp_path / "whole"))
    handler = signal.getsignal(signal.SIGINT)
    assert signalled(tmp_path / "parts", 5, times=1) == [1, 2, 3, 4, 5]
    assert signal.getsignal(signal.SIGINT) is handler
    events = []
    resumed = weights(run(tmp_path / "parts", listener=events.append))
    assert [event.step for event in events if isinstance(event, Step)] == [6, 7, 8, 9]
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_ctrl_c_while_validating_ends_without_waiting_for_it(tmp_path, monkeypatch):
    whole = weights(run(tmp_path / "whole"))
    plain = Interrupt.between

    def press(self, items):
        signal.raise_signal(signal.SIGINT)
        return plain(self, items)

    monkeypatch.setattr(Interrupt, "between", press)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    assert (tmp_path / "parts" / METRICS).read_text() == ""  # the first epoch has no result yet
    monkeypatch.undo()
    resumed = weights(run(tmp_path / "parts"))
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_a_second_ctrl_c_ends_at_once_and_saves_nothing(tmp_path):
    assert signalled(tmp_path, 2, times=2) == [1, 2]
    assert not (tmp_path / CHECKPOINT).exists()


def test_ctrl_c_after_the_last_step_ends_a_finished_run(tmp_path):
    signalled(tmp_path, 9, times=1)
    events = []
    run(tmp_path, listener=events.append)
    assert not [event for event in events if isinstance(event, Step)]


def test_a_second_run_in_one_folder_is_refused_until_the_first_ends(tmp_path):
    found = []

    def try_another(event):
        if not found:
            with pytest.raises(InputError, match=rf"only one effnet process .*; process {os.getpid()} does") as caught:
                run(tmp_path)
            found.append(caught.value)

    first = weights(run(tmp_path, listener=try_another))
    assert found
    assert all(torch.equal(first[name], tensor) for name, tensor in weights(run(tmp_path)).items())


@pytest.mark.parametrize("at", [2, more(3), more(5)])
def test_an_average_that_moves_every_few_steps_is_finished_once_an_epoch(tmp_path, monkeypatch, at):
    """Interrupt before and during validation; an epoch has three steps, so that one is left over for the average."""
    recipe = with_values(RECIPE, {"train.ema_every": 2})
    whole = weights(run_saving(tmp_path / "whole", recipe=recipe))

    def press(event):
        if isinstance(event, Step) and event.step == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_saving(tmp_path / "parts", recipe=recipe, listener=press)
    validating = []
    plain = Interrupt.between

    def press_again(self, items):
        if not validating:
            signal.raise_signal(signal.SIGINT)
        validating.append(True)
        return plain(self, items)

    monkeypatch.setattr(Interrupt, "between", press_again)
    with pytest.raises(KeyboardInterrupt):
        run_saving(tmp_path / "parts", recipe=recipe)
    resumed = weights(run_saving(tmp_path / "parts", recipe=recipe))
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
