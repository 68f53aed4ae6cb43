"""The commands that read finished tasks: `verify`, `audit`, `unpack`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dpconvert.cli.options import FOLDER, PATH, SHARDS, WORKERS
from dpconvert.errors import UserError
from dpconvert.plural import counted
from dpconvert.runtime.finite import FiniteRange
from dpconvert.runtime.terminal import JSON, QUIET, document, say, tell


@click.command()
@SHARDS
@WORKERS
@click.option(
    "--against",
    metavar="DIGEST|DIR",
    default="",
    help="Digest or folder to compare with; differing tool versions are reported.",
)
@JSON
@QUIET
def verify(shards: Path, workers: int | None, against: str, as_json: bool, quiet: bool) -> None:
    """Check every shard: digests, counts, index, keys, fields, labels, images and groups.

    \b
    Example: dpconvert verify shards/
    """
    from dpconvert.tasks.task_folders import task_folders

    folders = task_folders(shards)  # before what takes long to import
    from dpconvert.card import FILE_NAME
    from dpconvert.runtime import processes
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks.compare import only_there
    from dpconvert.tasks.verify import verify as verify_task

    results: list[dict[str, Any]] = []
    bad, damaged, report = 0, False, Reporter(quiet=quiet or as_json)
    for folder in folders:
        try:
            card, problems = verify_task(
                folder, workers=workers or processes.processors(), report=report, against=against
            )
        except UserError as error:
            say(f"dpconvert: error: {error}", bold=True)
            results.append({"folder": str(folder), "problems": [{"file": FILE_NAME, "what": str(error)}]})
            bad += 1
            continue
        results.append({"folder": str(folder), "task": card.task, "digest": card.digest})
        results[-1]["problems"] = [{"file": problem.file, "what": problem.what} for problem in problems]
        for problem in problems:
            say(f"{folder / problem.file}: {problem.what}", bold=True)
        bad += len(problems)
        damaged = damaged or bool(problems)
        if not (problems or as_json):
            samples, parts = counted(card.samples(), "sample"), counted(len(card.shards), "shard")
            tell(f"{card.task}: {samples} in {parts} as written, {card.digest}")
    for task in only_there(against, {entry.get("task", Path(entry["folder"]).name) for entry in results}):
        what = f"task {task} is missing here, but present in {against}"
        say(f"{shards}: {what}", bold=True)
        results.append({"folder": str(shards / task), "task": task, "problems": [{"file": FILE_NAME, "what": what}]})
        bad += 1
    if as_json:
        document(results)
    if bad:
        again = damaged and not against  # an error above states its own remedy
        remedy = "; convert the damaged tasks again with --overwrite" if again else ""
        say(f"dpconvert: error: {counted(bad, 'problem')}{remedy}")
        sys.exit(1)


@click.command()
@SHARDS
@click.option(
    "--page", type=PATH, metavar="FILE", default=Path("audit.html"), show_default=True, help="HTML page to write."
)
@click.option(
    "--alike", type=FiniteRange(0.5, 1), default=0.85, show_default=True, help="Minimum similarity of a pair."
)
@click.option("--features", type=FOLDER, help="Also compare the features in this folder of `mtrain features`.")
@WORKERS
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every pair.")
@QUIET
def audit(
    shards: Path, page: Path, alike: float, features: Path | None, workers: int | None, as_json: bool, quiet: bool
) -> None:
    """Find the same image in two splits or two tasks: equal, rotated, mirrored, rescaled or recompressed.

    Writes a page with every pair and, beside it, a TOML file that lists the samples to leave out, to be appended to
    their manifests. Reports which tasks to leave out together. The exit status is 1 if a pair is found that the
    tasks do not state. `mtrain audit-labels` finds labels that are probably wrong.

    \b
    Example: dpconvert audit shards/
    """
    from dpconvert.tasks.task_folders import task_folders

    folders = task_folders(shards)
    from dpconvert.runtime import processes
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks import audit as auditing
    from dpconvert.tasks import webpage
    from dpconvert.tasks.audit.errata import errata
    from dpconvert.tasks.audit.page import write_page

    report = Reporter(quiet=quiet or as_json)
    found = auditing.audit(
        folders,
        workers=workers or processes.processors(),
        report=report,
        alike=alike,
        features_in=features,
    )
    write_page(found, page)
    listed, entries = page.with_suffix(".toml"), errata(found)
    if entries:
        webpage.write(entries.splitlines(), listed, "--page")
    if as_json:
        document(found.dump() | ({"errata": str(listed)} if entries else {}))
    else:
        for line in found.lines():
            tell(line)
        tell(f"page: {page}")
        if entries:
            tell(f"samples to leave out, for [[errata]] of the manifests: {listed}")
    if not found.clean:
        sys.exit(1)


@click.command()
@SHARDS
@click.option("--out", type=FOLDER, default=Path("unpacked"), show_default=True, help="Output folder.")
@JSON
@QUIET
def unpack(shards: Path, out: Path, as_json: bool, quiet: bool) -> None:
    """Turn a task's shards back into image files, byte for byte, in a folder for each split and class.

    Nothing is overwritten, and an interrupted command resumes when it is repeated. SHARDS is the folder of a task, or a
    folder of tasks, each of which then gets a separate folder.

    \b
    Example: dpconvert unpack shards/Lung --out unpacked/
    """
    from dpconvert.tasks.task_folders import task_folders

    folders = task_folders(shards)
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks.unpack import unpack as unpack_task

    report, done = Reporter(quiet=quiet or as_json), []
    for folder in folders:
        done.append(unpack_task(folder, out if folder == shards else out / folder.name, report))
        if not as_json:
            last = done[-1]
            tell(f"{last.task}: {counted(last.made, 'image')} written, {last.had} existing -> {last.folder}")
    if as_json:
        rows = [{"task": d.task, "folder": str(d.folder), "made": d.made, "had": d.had} for d in done]
        document(rows)
