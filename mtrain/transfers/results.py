"""The results of a run's transfers, read from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtrain.checksums import file_digest
from mtrain.documents import known_document, read_document
from mtrain.errors import RunError
from mtrain.runs import Run

AGAIN = "`mtrain transfer` makes it again"
RESULT = {"identity", "task", "mode", "weights", "metric", "set", "score", "notes"}


def read_result(path: Path, note: Callable[[str], object] = lambda _text: None) -> dict[str, Any] | None:
    """A result; None if it does not exist, or if it is damaged and must be computed again, with a note."""
    content = known_document(path, note)
    return content if content is not None and content.keys() >= RESULT and _is_score(content["score"]) else None


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run, by task and weights.

    Raises:
        RunError: a result is damaged, or its score is not a number.
    """
    return [content for _, content in _sorted(run)]


def results_with_answers(run: Run) -> list[dict[str, Any]]:
    """As `results`. `answers` of a result is the path of its predictions, None where they are absent or not those that
    it was made from.

    Raises:
        RunError: as `results`.
    """
    return [content | {"answers": _answers(path, content)} for path, content in _sorted(run)]


def _sorted(run: Run) -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted((run.path / "transfer").glob("*.json"))
    contents = [(path, read_document(path, AGAIN)) for path in paths]
    found = [(path, content) for path, content in contents if content.keys() >= RESULT]
    for path, content in found:
        if not _is_score(content["score"]):
            raise RunError("not a score", where=path, expected="0 to 1", found=content["score"], remedy=AGAIN)
    return sorted(found, key=lambda one: (one[1]["task"], one[1]["identity"].get("final", False), one[1]["weights"]))


def _answers(path: Path, content: dict[str, Any]) -> Path | None:
    answers, stated = path.with_suffix(".npz"), content.get("predictions")
    kept = answers.is_file() and (stated is None or file_digest(answers) == stated)
    return answers if kept else None


def _is_score(value: object) -> bool:
    """Whether the value is a score; None means that the metric is undefined."""
    return value is None or (isinstance(value, int | float) and 0 <= value <= 1)
