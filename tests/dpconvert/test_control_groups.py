"""Limits of containers and batch jobs, from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpconvert.runtime import control_groups
from dpconvert.runtime.processes import processors

GIB = 1 << 30
JOB = "system.slice/slurmstepd.scope/job_7"
MEMINFO = "MemTotal:       16777216 kB\nMemFree:          102400 kB\nMemAvailable:   12582912 kB\nHugePages_Total: 0\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GiB, 12 of them available, most as cached files; its processes are in no group."""
    for name, text in (("own", ""), ("meminfo", MEMINFO)):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
    monkeypatch.setattr(control_groups, "MEMORY", tmp_path / "meminfo")
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_cached_files_count_as_available(system: Path) -> None:
    assert control_groups.memory() == (16 * GIB, 12 * GIB)
    assert control_groups.processors() is None


@pytest.mark.parametrize("own", [f"0::/{JOB}/step_0\n", "0::/\n"], ids=["batch job", "container"])
def test_the_nearest_limits_of_version_2_count(own: str, system: Path) -> None:
    """In a container, the group of the process is the root; in a batch job, the limit is that of a group above."""
    (system / "own").write_text(own)
    group = system / JOB if "job" in own else system
    write(system / JOB / "step_0", {"memory.max": "max\n", "memory.current": f"{GIB}\n", "cpu.max": "max 100000\n"})
    stat = f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 5\n"
    files = {"memory.max": f"{8 * GIB}\n", "memory.current": f"{5 * GIB}\n", "memory.stat": stat}
    write(group, {**files, "cpu.max": "150000 100000\n"})
    assert control_groups.memory() == (8 * GIB, 5 * GIB)
    assert control_groups.processors() == 2


def test_limits_of_version_1_count(system: Path) -> None:
    (system / "own").write_text("5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n")
    files = {"memory.limit_in_bytes": f"{4 * GIB}", "memory.usage_in_bytes": f"{3 * GIB}"}
    write(system / "memory" / "docker" / "1", {**files, "memory.stat": f"cache 9\ntotal_inactive_file {GIB // 2}\n"})
    write(system / "memory", {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "5"})
    write(system / "cpu" / "docker" / "1", {"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"})
    write(system / "cpu", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"})
    assert control_groups.memory() == (4 * GIB, GIB + GIB // 2)
    assert control_groups.processors() == 3


def test_a_group_that_uses_more_than_its_limit_has_nothing_left(system: Path) -> None:
    (system / "own").write_text("0::/\n")
    write(system, {"memory.max": "1000\n", "memory.current": "2000\n"})
    assert control_groups.memory() == (1000, 0)


def test_a_system_that_states_no_memory_has_an_unknown_one(system: Path) -> None:
    (system / "meminfo").unlink()
    assert control_groups.memory() is None


def test_workers_are_as_many_as_the_container_may_use(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(64)))
    assert processors() == 64
    (system / "own").write_text("0::/\n")
    write(system, {"cpu.max": "400000 100000\n"})
    assert processors() == 4
