"""The pace of the machine, and that a busy one is told from a calm one."""

import os
import subprocess
import sys

import pytest

from effnet.measure.pace import calm_pace_ms, pace_ms


def test_the_pace_is_a_short_time_and_the_calmest_is_no_longer():
    some = [pace_ms() for _ in range(20)]
    assert 0 < calm_pace_ms(seconds=0.1) <= max(some) < 500


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep processes to one core")
def test_processes_that_share_the_core_slow_it_down():
    """Whatever else runs, a core that is shared by three is slower than in its calmest moment alone."""
    before, core = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    loop = f"import os\nos.sched_setaffinity(0, [{core}])\nprint(flush=True)\nwhile True: pass"
    os.sched_setaffinity(0, [core])
    calm, neighbours = calm_pace_ms(seconds=0.3), []
    try:
        for _ in range(2):
            neighbours.append(subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE))
            neighbours[-1].stdout.readline()
        slow = max(pace_ms() for _ in range(200))
    finally:
        os.sched_setaffinity(0, before)
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.stdout.close()
            neighbour.wait()
    assert slow > 1.5 * calm
