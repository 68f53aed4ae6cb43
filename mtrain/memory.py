"""How much memory a training takes, for its log."""

from __future__ import annotations

import multiprocessing
import resource
import sys
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
    here = [Path("/proc/self/smaps_rollup")]
    others = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    try:
        return float(sum(_proportional(path) for path in here + others))
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _proportional(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise ValueError("no such line")
