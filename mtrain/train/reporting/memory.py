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
    """Memory in MiB: used by this process and its data loaders, and the most that it took from a CUDA device since the
    last call, which includes what a CUDA graph keeps for itself.
    """
    used = {"host": _host() / MIB}
    if device.type == "cuda":
        used["device"] = torch.cuda.max_memory_reserved(device) / MIB
        torch.cuda.reset_peak_memory_stats(device)
    return used


def _host() -> float:
    """Bytes; shared pages count once. Where the system does not report that, the peak of this process."""
    try:
        size = _proportional(Path("/proc/self/smaps_rollup"))
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    for child in multiprocessing.active_children():
        with suppress(OSError, ValueError):  # it may have ended by now
            size += _proportional(Path(f"/proc/{child.pid}/smaps_rollup"))
    return float(size)


def _proportional(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise ValueError("no such line")
