"""Results of `mtrain robustness` in a run's folder."""

from __future__ import annotations

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
