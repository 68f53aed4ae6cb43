"""One thing that a doctor looked at on this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
