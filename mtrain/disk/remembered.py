"""What to say at the end of a command about files that were read, in the order of the reading; each line once."""

from __future__ import annotations

_lines: dict[str, None] = {}


def remember(line: str) -> None:
    """Have the command say this at its end."""
    _lines[line] = None


def remembered() -> list[str]:
    """What was remembered since the last time."""
    lines = list(_lines)
    _lines.clear()
    return lines
