"""Memory of this process, in MiB: the kernel's `ru_maxrss` begins with what the parent had, and hides what is less."""

from __future__ import annotations

import re
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak() -> int:
    """The most that this process has held."""
    return _of_status("VmHWM")


def held() -> int:
    """What it holds now."""
    return _of_status("VmRSS")


def _of_status(name: str) -> int:
    if not STATUS.exists():  # macOS, which counts bytes and knows the peak alone
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) >> 10
