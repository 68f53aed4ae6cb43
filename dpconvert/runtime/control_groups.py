"""Memory and processors that this process may use: those of the machine, or of its container or batch job if fewer.

Docker, Kubernetes and SLURM limit processes by Linux control groups (cgroups(7)), which the counts of the machine do
not show. Both versions are read, from the group of the process up to the root, since any of them may have a limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

GROUPS, OWN, MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


class Memory(NamedTuple):
    """Bytes. available: what programs can still get, including memory that only caches files."""

    total: int
    available: int


def memory() -> Memory | None:
    """The memory of the machine, container or batch job, whichever has least; None if the system does not state it."""
    stated = _table(MEMORY)
    if not {"MemTotal:", "MemAvailable:"} <= stated.keys():
        return None
    found = Memory(stated["MemTotal:"] << 10, stated["MemAvailable:"] << 10)  # in KiB
    for group in _groups("memory"):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
        ):
            most, used = _numbers(group / limit), _numbers(group / usage)
            if most and used:
                free = most[0] - used[0] + _table(group / "memory.stat").get(cached, 0)
                found = Memory(min(found.total, most[0]), max(min(found.available, free), 0))
    return found


def processors() -> int | None:
    """The processors whose time the container or batch job may use, rounded up; None without such a limit."""
    found = []
    for group in _groups("cpu"):
        share = _numbers(group / "cpu.max") or [
            number for name in ("quota", "period") for number in _numbers(group / f"cpu.cfs_{name}_us")
        ]
        if len(share) == 2 and min(share) > 0:
            found.append(math.ceil(share[0] / share[1]))
    return min(found, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the groups that this process belongs to, from its own up to the root; some may not exist."""
    for line in _lines(OWN):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = GROUPS / controller if controllers else GROUPS  # version 2 has one tree for all controllers
        group = PurePosixPath(path)
        yield from (top / str(one).lstrip("/") for one in (group, *group.parents))


def _numbers(path: Path) -> list[int]:
    """The numbers in a file; none if it does not exist, or says `max`, which is no limit."""
    words = [word for line in _lines(path) for word in line.split()]
    return [int(word) for word in words] if all(word.lstrip("-").isdecimal() for word in words) else []


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system, another version, or a group that the container does not show
        return []
