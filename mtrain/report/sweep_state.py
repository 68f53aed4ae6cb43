"""Whether a sweep is in progress, and how its race stands, from the files that its processes write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtrain.race import command
from mtrain.sweep.engines.claims import BEAT
from mtrain.sweep.race_record import read_record
from mtrain.sweep.store import Store

QUIET = 3 * BEAT  # seconds without a heartbeat or a result after which no process works on a sweep


def active(store: Store, running: Sequence[object]) -> bool:
    """Whether a process works on the sweep: a training is in progress, or a claim or a result was touched just now.

    No lock is taken, which could keep a process from its cell.
    """
    touched = [_modified(path) for folder in (".locks", "cells") for path in (store.path / folder).glob("*")]
    return bool(running) or time.time() - max(touched, default=0.0) < QUIET


def race_state(store: Store) -> dict[str, Any] | None:
    """How the race of a sweep stands: `finished`, and lines on its rungs and winners; None if it has none.

    Raises:
        RunError: its record is damaged.
    """
    record = read_record(store)
    if record is None:
        return None
    return {"finished": record.finished, "cost": record.cost, "lines": command.lines(store, record)[1:]}


def _modified(path: Path) -> float:
    try:
        return float(path.stat().st_mtime)
    except OSError:  # gone since it was listed
        return 0.0
