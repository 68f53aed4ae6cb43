"""Results of `mtrain robustness` in a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrain.documents import read_document
from mtrain.runs import Run

FOLDER = "robustness"


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run.

    Raises:
        RunError: a result is damaged.
    """
    return [
        read_document(path, "`mtrain robustness` makes it again") for path in sorted((run.path / FOLDER).glob("*.json"))
    ]


def column_of(result: Mapping[str, Any]) -> str:
    """The column of a result in words, with its origin where it is no attribute; earlier versions state none."""
    origin = result.get("origin", "")
    return f"{result['by']} of {origin}" if origin else str(result["by"])
