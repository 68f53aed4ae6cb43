"""Results of `mtrain robustness` in a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrain.disk.documents import content_digest, read_document
from mtrain.runs.run_folder import Run
from mtrain.transfers.results import check_result

FOLDER = "robustness"


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run; one of those that are the same because the k that was given is the one chosen.

    Raises:
        RunError: a result is damaged.
    """
    again = "`mtrain robustness` makes it again"
    found = {path: read_document(path, again) for path in sorted((run.path / FOLDER).glob("*.json"))}
    for path, content in found.items():
        check_result(run, path, content, again)
    distinct = {content_digest({**content, "identity": None, "notes": None}): content for content in found.values()}
    return list(distinct.values())


def column_of(result: Mapping[str, Any]) -> str:
    """The column of a result in words, with its origin if it is not an attribute; earlier versions state none."""
    origin = result.get("origin", "")
    return f"{result['by']} of {origin}" if origin else str(result["by"])
