"""The result of one check of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was checked, whether it works, what was found, and a remedy if it does not work."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
