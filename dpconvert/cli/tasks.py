"""The commands that read finished tasks: `verify`, `audit`, `unpack`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dpconvert.cli.options import PATH, SHARDS, WORKERS
from dpconvert.errors import UserError
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, QUIET, document, say, tell


@click.command()
@SHARDS
@WORKERS
@click.option(
    "--against",
    metavar="DIGEST|DIR",
    default="",
    help="What a task must be equal to, or a folder of such tasks; says whether versions differ.",
)
@JSON
@QUIET
def verify(shards: Path, workers: int | None, against: str, as_json: bool, quiet: bool) -> None:
    """Read every shard again: digests, counts, index, keys, fields, labels, images, groups.

    \b
    Example: dpconvert verify shards/
    """
    from dpconvert.card import FILE_NAME
    from dpconvert.runtime import processes
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks.compare import only_there
    from dpconvert.tasks.verify import task_folders
    from dpconvert.tasks.verify import verify as verify_task

    told: list[dict[str, Any]] = []
    bad, report = 0, Reporter(quiet=quiet or as_json)
    for folder in task_folders(shards):
        try:
            card, problems = verify_task(
                folder, workers=workers or processes.processors(), report=report, against=against
            )
        except UserError as error:
            say(f"dpconvert: error: {error}", bold=True)
            told.append({"folder": str(folder), "problems": [{"file": FILE_NAME, "what": str(error)}]})
            bad += 1
            continue
        told.append({"folder": str(folder), "task": card.task, "digest": card.digest})
        told[-1]["problems"] = [{"file": problem.file, "what": problem.what} for problem in problems]
        for problem in problems:
            say(f"{folder / problem.file}: {problem.what}", bold=True)
        bad += len(problems)
        if not (problems or as_json):
            samples, parts = counted(card.samples(), "sample"), counted(len(card.shards), "shard")
            tell(f"{card.task}: {samples} in {parts} as written, {card.digest}")
    for task in only_there(against, {entry.get("task", Path(entry["folder"]).name) for entry in told}):
        what = f"no task {task} here, though it is in {against}"
        say(f"{shards}: {what}", bold=True)
        told.append({"folder": str(shards / task), "task": task, "problems": [{"file": FILE_NAME, "what": what}]})
        bad += 1
    if as_json:
        document(told)
    if bad:
        found = counted(bad, "problem")
        say(f"dpconvert: error: {found}; convert what is damaged again with --overwrite")
        sys.exit(1)


@click.command()
@SHARDS
@click.option("--page", type=PATH, default=Path("audit.html"), show_default=True, help="A file.")
@click.option(
    "--alike", type=click.FloatRange(0.5, 1), default=0.85, show_default=True, help="Likeness from which a pair counts."
)
@click.option("--features", type=PATH, metavar="DIR", help="Of `mtrain features`: compared too.")
@WORKERS
@click.option("--json", "as_json", is_flag=True, help="For programs; every pair.")
@QUIET
def audit(
    shards: Path, page: Path, alike: float, features: Path | None, workers: int | None, as_json: bool, quiet: bool
) -> None:
    """Look for the same pictures in two splits or two tasks: equal, turned, mirrored, scaled or compressed again.

    Draws every pair on one page, and says which tasks to leave out together. Exit status 1 when something is found
    that the tasks' cards do not state.

    \b
    Example: dpconvert audit shards/
    """
    from dpconvert.runtime import processes
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks import audit as auditing
    from dpconvert.tasks.audit.page import write_page
    from dpconvert.tasks.verify import task_folders

    report = Reporter(quiet=quiet or as_json)
    found = auditing.audit(
        task_folders(shards),
        workers=workers or processes.processors(),
        report=report,
        alike=alike,
        features_in=features,
    )
    write_page(found, page)
    if as_json:
        document(found.dump())
    else:
        for line in found.lines():
            tell(line)
        tell(f"page: {page}")
    if not found.clean:
        sys.exit(1)


@click.command()
@SHARDS
@click.option("--out", type=PATH, default=Path("unpacked"), show_default=True, help="Where to.")
@JSON
@QUIET
def unpack(shards: Path, out: Path, as_json: bool, quiet: bool) -> None:
    """Turn a task's shards back into images: a folder for each split and class, the same bytes.

    Nothing is overwritten; the same command goes on with what was interrupted. SHARDS is a task's folder, or one of
    several tasks, which then get a folder each.

    \b
    Example: dpconvert unpack shards/Lung --out unpacked/
    """
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks.unpack import unpack as unpack_task
    from dpconvert.tasks.verify import task_folders

    report, done = Reporter(quiet=quiet or as_json), []
    for folder in task_folders(shards):
        done.append(unpack_task(folder, out if folder == shards else out / folder.name, report))
        if not as_json:
            came = done[-1]
            tell(f"{came.task}: {counted(came.made, 'image')} written, {came.had} were there -> {came.folder}")
    if as_json:
        rows = [{"task": d.task, "folder": str(d.folder), "made": d.made, "had": d.had} for d in done]
        document(rows)
