"""What the colours of images alone reveal of the classes of scored tasks, as notes beside the scores of networks.

It is the baseline of `dpconvert preview` (dpconvert.tasks.gallery.colours), computed once for a run and a task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from dpconvert.tasks.gallery.tasks import colours_of
from mtrain.data.task import Task
from mtrain.disk.documents import known_document, write_document
from mtrain.errors import RunError, UserError
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import METRICS

NAME = "colours.json"


def colour_notes(run: Run, tasks: Sequence[Task], scored: Collection[str]) -> list[str]:
    """A note on each scored task of classes whose shards are local. They are kept in the folder of the run."""
    path = run.path / NAME
    known: dict[str, str] = (known_document(path, lambda _: None) or {}).get("tasks", {})
    chosen = [task for task in tasks if task.name in scored and task.url is None and task.target == "class"]
    missing = [task for task in chosen if task.card.digest not in known]
    for task in missing:
        known[task.card.digest] = _in_words(task)
    if missing:
        with suppress(RunError):  # a folder that cannot be written to: computed again the next time
            write_document(path, {"tasks": known})
    return [f"{task.name}: {known[task.card.digest]}" for task in chosen if known[task.card.digest]]


def _in_words(task: Task) -> str:
    try:
        found = colours_of(task.folder)
    except UserError as error:
        return f"the score of a classifier that sees only colours is unknown: {error}"
    if found is None:
        return ""
    return (
        f"a classifier that sees only colours scores {100 * found.score:.2f}% {METRICS[found.metric]} on "
        f"{found.val:,} validation images, from {found.train:,} training images (chance: {100 * found.chance:.2f}%)"
    )
