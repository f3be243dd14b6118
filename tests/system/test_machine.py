"""The cores that a process may use, also under the quota of a container."""

from pathlib import Path

import pytest

from effnet.system.machine import core_quotas, usable_cores


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write the files of a system's control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quotas"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/a/cpu.max": "400000 100000", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"},
            [4, 0.5],
        ),
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/7\n",
            {
                "sys/fs/cgroup/cpu/docker/7/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/docker/7/cpu.cfs_period_us": "100000\n",
            },
            [2],
        ),
        (
            "3:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            [],
        ),
        ("", {}, []),
    ],
)  # fmt: skip
def test_the_quotas_of_all_groups_above_count(tmp_path, groups, files, quotas):
    assert list(core_quotas(system(tmp_path, groups, files))) == quotas


@pytest.mark.parametrize(("quotas", "cores"), [([], 8), ([3.9], 3), ([0.5], 1), ([16.0, 2.0], 2)])
def test_a_quota_gives_its_whole_cores(monkeypatch, quotas, cores):
    monkeypatch.setattr("effnet.system.machine.sys.platform", "linux")
    monkeypatch.setattr("effnet.system.machine.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("effnet.system.machine.core_quotas", lambda: iter(quotas))
    assert usable_cores() == cores
