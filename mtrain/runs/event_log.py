"""log.jsonl: one event of a training per line, each with its kind (`event`) and its `iteration`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtrain.disk.atomic import append_line, write_text

# exceptions that parsing and reading JSON of unknown content can raise
FOREIGN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Append one event."""
    append_line(path, json.dumps(event, allow_nan=False))


def events(path: Path) -> list[dict[str, Any]]:
    """The events by iteration. Invalid lines are ignored; of a repeated iteration the last counts."""
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for line in _lines(path):
        try:
            event = json.loads(line)
            seen[str(event["event"]), int(event["iteration"])] = event
        except FOREIGN:
            continue
    return [seen[place] for place in sorted(seen, key=lambda place: place[1])]


def cut(path: Path, iteration: int) -> None:
    """Remove the events of later iterations, of whatever kind, and a last line that a killed process left unfinished:
    the training continues after `iteration`, and logs them again.

    Raises:
        RunError: the file cannot be written.
    """
    lines = _lines(path)
    kept = [line for line in lines if not _is_later(line, iteration)]
    if len(kept) < len(lines):
        write_text(path, "".join(f"{line}\n" for line in kept))


def _lines(path: Path) -> list[str]:
    if not path.is_file():  # absent, or a device, which may never end
        return []
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _is_later(line: str, iteration: int) -> bool:
    """Whether the line is an event of a later iteration, or no event."""
    try:
        return int(json.loads(line)["iteration"]) > iteration
    except FOREIGN:
        return True
