"""Available memory, read from file systems like Linux's."""

import pytest

from effnet.system.available_memory import available_bytes

GB = 2**30


def linux(root, *, groups="", files=()):
    """Write a root with 8 GB available and these control groups."""
    everything = {
        "proc/meminfo": f"MemTotal: 16777216 kB\nMemAvailable: {8 * GB // 1024} kB\n",
        "proc/self/cgroup": groups,
        **dict(files),
    }
    for name, text in everything.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {
    "sys/fs/cgroup/pod/memory.max": f"{4 * GB}\n",
    "sys/fs/cgroup/pod/memory.current": f"{3 * GB}\n",
    "sys/fs/cgroup/pod/memory.stat": f"anon {2 * GB}\ninactive_file {GB // 2}\n",
    "sys/fs/cgroup/pod/job/memory.max": "max\n",
    "sys/fs/cgroup/pod/job/memory.current": f"{GB}\n",
}
V1 = {
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GB}\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GB}\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{5 * GB}\n",
}
FULL = {"sys/fs/cgroup/memory.max": f"{GB}\n", "sys/fs/cgroup/memory.current": f"{GB + 4096}\n"}


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("", {}, 8 * GB),
        ("0::/pod/job\n", V2, 3 * GB // 2),
        ("11:cpu,cpuacct:/job\n7:memory:/job\n", V1, GB),
        ("0::/\n", FULL, 0),
    ],
)
def test_the_least_of_machine_and_groups_counts(tmp_path, groups, files, expected):
    assert available_bytes(linux(tmp_path, groups=groups, files=files)) == expected


def test_this_machine_has_some_and_one_that_does_not_tell_counts_half(tmp_path):
    assert available_bytes() > 0
    assert available_bytes(tmp_path) > 0
