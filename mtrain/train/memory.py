"""How much memory a training takes, for its log."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

MIB = 2**20


def memory(device: torch.device) -> dict[str, float]:
    """MiB: in use by this process and its loader's; the most that was in use on a CUDA device since the last look."""
    found = {"host": _host() / MIB}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / MIB
        torch.cuda.reset_peak_memory_stats(device)
    return found


def _host() -> float:
    """Bytes; pages that processes share count once. Where the system does not tell, the most that this process had."""
    try:
        found = _proportional(Path("/proc/self/smaps_rollup"))
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    for child in multiprocessing.active_children():
        with suppress(OSError, ValueError):  # it may have ended by now
            found += _proportional(Path(f"/proc/{child.pid}/smaps_rollup"))
    return float(found)


def _proportional(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise ValueError("no such line")
