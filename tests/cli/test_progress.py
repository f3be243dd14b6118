"""Progress of training: a bar on a terminal, plain lines otherwise."""

import dataclasses
import os
import pty
import re
import select
import subprocess
import sys

import pytest

from effnet.cli.console import TerminalListener, progress_text
from effnet.planner.events import Planned
from effnet.planner.space import list_candidates
from effnet.progress import EpochEnd, Step

STEP = Step(
    epoch=3, epochs=40, step=123, total_steps=4000, loss=0.5234, val="accuracy 93.21%", images_per_second=812.4,
    seconds_left=4980.0, learning_rate=0.00123, memory_mb=743.2,
)  # fmt: skip
EPOCH = EpochEnd(
    epoch=3,
    loss=0.5,
    val_loss=0.4,
    words="accuracy 93.21%",
    learning_rate=0.00123,
    seconds=62.0,
    images_per_second=812.4,
)
WHOLE = "epoch 3/40  step 123/4000  loss 0.523  val accuracy 93.21%  lr 0.0012  812 images/s  743 MB  1:23:00 left"


def test_progress_tells_step_speed_loss_learning_rate_time_left_and_memory():
    assert progress_text(STEP) == WHOLE


@pytest.mark.parametrize(
    "columns, text",
    [
        (len(WHOLE), WHOLE),
        (len(WHOLE) - 1, WHOLE.replace("  743 MB", "")),
        (87, "epoch 3/40  step 123/4000  loss 0.523  val accuracy 93.21%  812 images/s  1:23:00 left"),
        (72, "epoch 3/40  loss 0.523  val accuracy 93.21%  812 images/s  1:23:00 left"),
        (52, "epoch 3/40  loss 0.523  812 images/s  1:23:00 left"),
        (10, "epoch 3/40  loss 0.523  1:23:00 left"),
    ],
)
def test_a_narrow_terminal_gets_what_matters_most(columns, text):
    assert progress_text(STEP, columns=columns) == text


def test_without_a_terminal_an_epoch_is_a_line_and_a_long_one_a_line_a_minute(capsys):
    now = 0.0
    with TerminalListener(clock=lambda: now) as listener:
        for _ in range(300):  # steps of a second
            now += 1.0
            listener(STEP)
        assert capsys.readouterr().out.splitlines() == [WHOLE] * 5
        now += 59.0
        listener(EPOCH)
        now += 59.0
        listener(STEP)
    expected = "epoch 3: loss 0.5000, val loss 0.4000, val accuracy 93.21%, lr 0.0012, 812 images/s, 62.0 s"
    assert capsys.readouterr().out.splitlines() == [expected]


def test_a_planned_network_is_shown_with_its_precision_unless_that_is_32_bits(capsys):
    candidates = list_candidates(num_classes=2, channels=3, short_side=32, precisions=("fp32", "int8"))
    same = [dataclasses.replace(c, status="fits") for c in candidates if c.spec == candidates[0].spec]
    with TerminalListener() as listener:
        listener(Planned(candidates=same))
    names = re.findall(r"^ (.*?)  +[0-9.]+[MG] ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(names) == [same[0].spec.title, same[0].spec.title + ", int8"]


_SHOW = """
import sys, time
from test_progress import EPOCH, STEP
from effnet.cli.console import TerminalListener, print_table
from effnet.planner.events import Counted, Said
import dataclasses
with TerminalListener() as listener:
    listener(Said(text="Training", heading=True))
    listener(Counted(label="computing features", done=1, total=2))
    for step in range(1, 31):
        listener(dataclasses.replace(STEP, step=step, total_steps=30))
        time.sleep(0.01)
    listener(EPOCH)
    listener(Said(text="Done"))
print_table(("run",), [("a",)])
"""


def show(*, terminal, columns=100, **settings):
    """Return the output of a process that trains 30 steps, on a pipe or on a terminal with some columns."""
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "TERM", "NO_COLOR", "FORCE_COLOR")}
    paths = [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "TERM": "xterm", "COLUMNS": str(columns)} | settings
    command = [sys.executable, "-c", _SHOW]
    if not terminal:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=300, check=True)
        assert done.stderr == b""
        return done.stdout.decode()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 300)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.parametrize("settings", [{}, {"FORCE_COLOR": "1", "CI": "true"}])
def test_a_pipe_gets_plain_lines_without_control_characters(settings):
    shown = show(terminal=False, **settings)
    assert re.search(r"[^\n\x20-\x7e─]", shown) is None
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert lines[0] == "Training"
    assert lines[1].startswith("epoch 3: loss 0.5000,")
    assert lines[2] == "Done"


def test_a_terminal_gets_a_bar_in_place_that_is_gone_at_the_end():
    shown = show(terminal=True, columns=120)
    assert "\x1b[" in shown
    assert "━" in shown
    assert "step 30/30  loss 0.523  val accuracy 93.21%  lr 0.0012  812 images/s  743 MB  1:23:00 left" in shown
    assert "epoch 3: " not in shown
    left = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.rpartition("\x1b[2K")[2]).split()
    assert left[0] == "Done"
    assert left[-1] == "a"
    assert "epoch" not in left


def test_the_bar_keeps_to_one_line_of_a_narrow_terminal():
    shown = show(terminal=True, columns=60)
    assert "epoch 3/40  loss 0.523  812 images/s  1:23:00 left" not in shown  # 50 columns and the bar's 13 are too many
    assert "epoch 3/40  loss 0.523  1:23:00 left" in shown
    # Moving up a line before redrawing would mean that the text had wrapped.
    assert "\x1b[1A" not in shown.partition("\x1b[?25h")[0]


def test_a_terminal_that_cannot_move_its_cursor_gets_the_lines():
    shown = show(terminal=True, TERM="dumb")
    assert "epoch 3: loss 0.5000" in shown
    assert "━" not in shown
