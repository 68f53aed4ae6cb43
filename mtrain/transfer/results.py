"""The results of a run's transfers, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtrain.runs import Run

RESULT = {"identity", "task", "mode", "weights", "metric", "set", "score", "notes"}


def read_result(path: Path) -> dict[str, Any] | None:
    """A result, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= RESULT else None


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run, by task and weights."""
    found = [read_result(path) for path in sorted((run.path / "transfer").glob("*.json"))]
    return sorted(
        (r for r in found if r is not None), key=lambda r: (r["task"], r["identity"].get("final", False), r["weights"])
    )
