"""Choose the tasks of a pool to train on: by name (`--tasks`), or by an estimate of influence (`--drop`).

A choice for a target is part of the protocol: it may see the target's training and validation sets, never its test set.
The file of the choice states the sets that it has seen, and the run records them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dpconvert.names import plain
from dpconvert.validation_errors import first_fault
from mtrain.config import FitConfig
from mtrain.data.pool import Pool, find_task, pool_of
from mtrain.data.task import Task
from mtrain.disk.documents import content_digest, read_document
from mtrain.errors import RunError, UsageError

MAKE = "write it with `mtrain influence --target TASK`"
GUARDED = "test"  # the set of a target that no choice for it may have seen


class Advice(BaseModel):
    """The content of a file for `--drop`: the tasks to leave out for a target, and the sets used for the decision.

    pool: the digest of each task that the estimate is about, with the target's; earlier versions state none.
    """

    target: str
    leave_out: list[str]
    saw: dict[str, list[str]]
    pool: dict[str, str] = {}


class Choice(BaseModel):
    """The tasks chosen from a pool and the reason for the choice, as recorded in a run.

    tasks: names given by the user, if any. file, document: the path and the digest of the file of advice, if any.
    target, saw: the target that the file advises for, and the sets of each task that the advice was decided on.
    """

    model_config = ConfigDict(frozen=True)

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    file: str | None = None
    document: str | None = None
    target: str | None = None
    saw: dict[str, list[str]] = {}


def read_advice(path: Path) -> tuple[Advice, str]:
    """The advice in a file that `mtrain influence` wrote, and the digest of the file's content.

    Raises:
        UsageError: the file does not exist, or its choice has seen the target's test set.
        RunError: it is not such a file, or was changed since it was written.
    """
    try:
        content = read_document(path, "restore the original file, or run `mtrain influence` again")
    except FileNotFoundError:
        raise UsageError("no such file of influence", where=path, remedy=MAKE) from None
    try:
        advice = Advice.model_validate(content)
    except ValidationError as error:
        raise RunError(f"not a file of influence: {first_fault(error, Advice)}", where=path, remedy=MAKE) from None
    seen = next((sets for task, sets in advice.saw.items() if plain(task) == plain(advice.target)), None)
    if seen is None or GUARDED in seen:
        raise UsageError(
            f"this choice of tasks for {advice.target} may not be used: it has seen the test set of its target",
            where=path,
            expected="train, val",
            remedy=MAKE,
            found=", ".join(seen or ()) or "no statement of what it saw",
        )
    return advice, content_digest(content)


def chosen(
    whole: Pool, remaining: Pool, config: FitConfig, recorded: Choice | None = None
) -> tuple[Pool, Choice | None, tuple[str, ...]]:
    """The tasks of `remaining`, which is `whole` without the tasks left out, that the settings choose.

    recorded: the choice of the run that is resumed; its file of advice may be missing by now.

    Returns the pool, the choice (None if the settings choose nothing) and notes.

    Raises:
        UsageError: an unknown name, a task that is also left out, or no task remains; a file that may not be used.
        RunError: the file is damaged, or is not the one that the run began with.
    """
    if not config.tasks and config.drop is None:
        return remaining, None, ()
    named = _named(whole, remaining, config.tasks)
    advice, document = _advice(config.drop, recorded)
    unwanted = _unwanted(whole, advice, Path(config.drop)) if advice and config.drop else set()
    kept = [task for task in remaining.tasks if (not named or task.name in named) and task.name not in unwanted]
    if not kept:
        raise UsageError("no task remains to train on", found=_options(config), remedy="choose others, or omit it")
    names = tuple(task.name for task in kept)
    choice = Choice(
        kept=names,
        dropped=tuple(task.name for task in remaining.tasks if task.name not in names),
        tasks=tuple(sorted(named)),
        file=config.drop,
        document=document,
        target=advice.target if advice else None,
        saw=advice.saw if advice else {},
    )
    pool = dataclasses.replace(pool_of(kept), unfinished=remaining.unfinished)
    return pool, choice, tuple(_notes(choice, advice, remaining))


def check_joint(whole: Pool, pool: Pool, names: Sequence[str]) -> None:
    """Check that the targets of joint training, `names`, are tasks of `pool`, which was chosen from `whole`.

    Raises:
        UsageError: an unknown name, or a task that the training does not include.
    """
    included = {task.name for task in pool.tasks}
    for task in (find_task(whole, name) for name in names):
        if task.name not in included:
            raise UsageError(
                f"--joint {task.name}: joint training includes its target, but this training does not include "
                f"{task.name}",
                found=f"the tasks of this training: {', '.join(sorted(included))}",
                remedy="omit --joint, or what leaves the task out: --leave-out, --tasks or --drop",
            )


def _named(whole: Pool, remaining: Pool, names: Sequence[str]) -> set[str]:
    found = {find_task(whole, name).name for name in names}
    if gone := found - {task.name for task in remaining.tasks}:
        raise UsageError(
            f"{min(gone)} is both chosen and left out, itself or through a related task",
            found=f"--tasks {','.join(names)}",
            remedy="leave it out of one of the two options",
        )
    return found


def _advice(file: str | None, recorded: Choice | None) -> tuple[Advice | None, str | None]:
    if file is None:
        return None, None
    same = recorded is not None and recorded.file == file
    if same and recorded and not Path(file).is_file():
        return Advice(
            target=recorded.target or "", leave_out=list(recorded.dropped), saw=recorded.saw
        ), recorded.document
    advice, document = read_advice(Path(file))
    if same and recorded and document != recorded.document:
        raise RunError(
            "this file has changed since the run began", where=file, remedy="restore it, or name another --run"
        )
    return advice, document


def _unwanted(whole: Pool, advice: Advice, file: Path) -> set[str]:
    """The names in the pool of the tasks to leave out.

    Raises:
        UsageError: one of them is not in the pool, or the target has other shards, so that what the choice saw may be
            in its test set by now.
    """
    known = {plain(task.name): task for task in whole.tasks}
    if gone := [name for name in advice.leave_out if plain(name) not in known]:
        raise UsageError(
            f"this choice of tasks is of another pool: {gone[0]} is not in this one",
            where=file,
            found=", ".join(task.name for task in whole.tasks),
            remedy=f"give the --shards that it was estimated on, or {MAKE}",
        )
    target = known.get(plain(advice.target))
    if target is not None and _has_other_shards(target, advice):
        raise UsageError(
            f"this choice of tasks was made on other shards of its target {target.name}, whose test set it may have "
            "seen",
            where=file,
            remedy=MAKE,
        )
    return {known[plain(name)].name for name in advice.leave_out}


def _has_other_shards(task: Task, advice: Advice) -> bool:
    digest = next((digest for name, digest in advice.pool.items() if plain(name) == plain(task.name)), task.card.digest)
    return digest != task.card.digest


def _options(config: FitConfig) -> str:
    tasks = [f"--tasks {','.join(config.tasks)}"] if config.tasks else []
    return " ".join([*tasks, *([f"--drop {config.drop}"] if config.drop else [])])


def _notes(choice: Choice, advice: Advice | None, remaining: Pool) -> list[str]:
    notes = [f"chosen: {', '.join(choice.kept)}; not used: {', '.join(choice.dropped) or 'none'}"]
    if advice is None:
        return notes
    sets = next(sets for task, sets in advice.saw.items() if plain(task) == plain(advice.target))
    notes.append(f"the pool was chosen for {advice.target} on its sets {' and '.join(sets)}, by {choice.file}")
    if not advice.leave_out:
        notes.append("that file found no task worth leaving out")
    estimated = {plain(name) for name in advice.pool} or {plain(task.name) for task in remaining.tasks}
    if new := [name for name in choice.kept if plain(name) not in estimated]:
        notes.append(f"that file has no estimate for these tasks, which are kept: {', '.join(new)}")
    if other := [task.name for task in remaining.tasks if _has_other_shards(task, advice)]:
        notes.append(f"that file was estimated on other shards of {', '.join(other)}: make it again to be sure")
    if any(plain(name) == plain(advice.target) for name in choice.kept):
        notes.append(f"{advice.target} is in the pool itself: no transfer of this run to it will be scored")
    return notes
