"""The results of a run's transfers, read from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtrain.disk.checksums import file_digest
from mtrain.disk.documents import known_document, read_document
from mtrain.errors import RunError
from mtrain.runs.belonging import fault_of_result
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import lowest

AGAIN = "`mtrain transfer` makes it again"
RESULT = {"identity", "task", "mode", "weights", "metric", "set", "score", "notes"}


def read_result(path: Path, note: Callable[[str], object] = lambda _text: None) -> dict[str, Any] | None:
    """A result; None if there is none, or if it or its predictions are damaged and must be made again, with a note."""
    content = known_document(path, note)
    if content is None or not content.keys() >= RESULT or not _is_score(content):
        return None
    if fault := _fault_of_answers(path, content):
        note(f"{fault}; they are made again")
        return None
    return content


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run, by task and weights.

    Raises:
        RunError: a result is damaged, or its score is not a number.
    """
    return [content for _, content in _sorted(run)]


def results_with_answers(run: Run, note: Callable[[str], object] = lambda _text: None) -> list[dict[str, Any]]:
    """As `results`. `answers` of a result is the path of its predictions, None where they are absent or not those that
    it was made from, which `note` and the notes of the result state.

    Raises:
        RunError: as `results`.
    """
    found = []
    for path, content in _sorted(run):
        fault = _fault_of_answers(path, content)
        if fault:
            note(f"{fault}; what needs them is not shown; {AGAIN}")
            content["notes"] = [*content["notes"], f"the predictions of {path.stem} are gone or damaged: {AGAIN}"]
        answers = path.with_suffix(".npz")
        found.append(content | {"answers": answers if answers.is_file() and not fault else None})
    return found


def check_result(run: Run, path: Path, content: Mapping[str, Any], again: str = AGAIN) -> None:
    """Check that a result in the folder of a run is of this run's network, and stands under its own name.

    Raises:
        RunError: it is not, or does not.
    """
    named = path.name.startswith(f"{content['task']}-") or "-" not in path.stem
    fault = fault_of_result(run, content) if named else f"a result of {content['task']} under another name"
    if fault:
        raise RunError(fault, where=path, remedy=f"remove it; {again}")


def _sorted(run: Run) -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted((run.path / "transfer").glob("*.json"))
    contents = [(path, read_document(path, AGAIN)) for path in paths]
    found = [(path, content) for path, content in contents if content.keys() >= RESULT]
    for path, content in found:
        check_result(run, path, content)
        if not _is_score(content):
            expected = f"{lowest(content['metric']):g} to 1"
            raise RunError("not a score", where=path, expected=expected, found=content["score"], remedy=AGAIN)
    return sorted(found, key=lambda one: (one[1]["task"], one[1]["identity"].get("final", False), one[1]["weights"]))


def _fault_of_answers(path: Path, content: Mapping[str, Any]) -> str:
    """What is wrong with the predictions beside the result at `path`; "" if nothing is, or if it states none."""
    answers, stated = path.with_suffix(".npz"), content.get("predictions")
    if stated is None or (answers.is_file() and file_digest(answers) == stated):
        return ""
    return f"{answers}: predictions that are gone, or changed since they were written"


def _is_score(result: Mapping[str, Any]) -> bool:
    """Whether the score of a result is one of its metric; None means that the metric is undefined."""
    score = result["score"]
    return score is None or (isinstance(score, int | float) and lowest(result["metric"]) <= score <= 1)
