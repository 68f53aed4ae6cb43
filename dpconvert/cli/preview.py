"""`dpconvert preview`: draws what a conversion would read from a source, or a page of finished tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.cli.options import ALLOW_OUTSIDE, DENSE, MPP, MPP_OVERRIDE, PATH, SOURCE, SPLIT, WORKERS, with_shape
from dpconvert.errors import UsageError
from dpconvert.manifest.roots import existing_root
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, document, say, table, tell

if TYPE_CHECKING:
    from dpconvert.plan.check import Findings
    from dpconvert.tasks.preview import Preview

PAGE = "slides.html"


@click.command(cls=Detailed, rarely=("mpp", "mpp_override", "allow_outside", "workers"))
@click.argument("source", metavar="SOURCE|SHARDS")
@SOURCE
@click.option(
    "--slide",
    metavar="NAME",
    help="The only slide or image to draw.  [default: all on a page, the first annotated one large]",
)
@click.option("--out", type=PATH, help="Output folder, or page.  [default: preview, or preview.html]")
@JSON
@QUIET
@MPP
@MPP_OVERRIDE
@ALLOW_OUTSIDE
@DENSE
@SPLIT
@WORKERS
def preview(
    source: str, out: Path | None, as_json: bool, quiet: bool, split: str, workers: int | None, **drawing: Any
) -> None:
    """Preview a source before it is converted, or finished tasks.

    For a source: a page of all slides with split counts and skipped outlines, and image files that show one slide with
    its tissue, annotations and patches, and samples of each class.
    For a task's folder, or a folder of tasks: an HTML page of counts, samples of each class, sizes, licences and notes,
    and of what a classifier scores that sees nothing but colours.

    \b
    Example: dpconvert preview camelyon16 --slide tumor_001
             dpconvert preview shards/
    """
    if _is_shards(source):
        if given := _given(drawing):
            option = "source" if given[0] == "folder" else given[0].replace("_", "-")
            raise UsageError(f"--{option} applies to sources, and this is a folder of tasks", where=source)
        _preview_tasks(Path(source), out or Path("preview.html"), as_json, quiet)
    else:
        _preview_source(source, out or Path("preview"), as_json, quiet, workers, split=split, **drawing)


def _given(drawing: dict[str, Any]) -> list[str]:
    """The options given that apply to sources only."""
    context = click.get_current_context()
    typed = [name for name in ("split", "workers") if _is_typed(context, name)]
    return [*(name for name, value in drawing.items() if value), *typed]


def _is_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _is_shards(name: str) -> bool:
    """Whether the argument is a folder. The name of a known source means the source, even beside such a folder."""
    from dpconvert.manifest.catalog import known

    return Path(name).is_dir() and name not in known()


def _preview_tasks(shards: Path, page: Path, as_json: bool, quiet: bool) -> None:
    from dpconvert.tasks.task_folders import task_folders

    folders = task_folders(shards)  # before what takes long to import
    from dpconvert.runtime.progress import Reporter
    from dpconvert.tasks.gallery import read_tasks, write_page

    gallery = read_tasks(folders, Reporter(quiet=quiet or as_json))
    write_page(gallery, page)
    if as_json:
        tasks = [
            {
                "task": seen.card.task,
                "samples": seen.card.samples(),
                "shown": sum(map(len, seen.examples.values())),
                "failures": len(seen.card.failures),
                "colours": seen.colours and vars(seen.colours),
            }
            for seen in gallery.tasks
        ]
        problems = [{"folder": str(broken.folder), "what": broken.why} for broken in gallery.unfinished]
        document({"page": str(page), "tasks": tasks, "problems": problems})
    else:
        for seen in gallery.tasks:
            if seen.colours:
                tell(f"{seen.card.task}, by colours alone: {seen.colours.in_words()}")
        tell(f"{counted(len(gallery.tasks), 'task')} -> {page}")
        for broken in gallery.unfinished:
            say(f"dpconvert: error: {broken.why}", bold=True)
    if gallery.unfinished:
        sys.exit(1)


def _preview_source(
    source: str,
    out: Path,
    as_json: bool,
    quiet: bool,
    workers: int | None,
    *,
    folder: Path | None,
    slide: str | None,
    **chosen: Any,
) -> None:
    from dpconvert.manifest.catalog import find

    manifest = find(source)
    root = existing_root(manifest, folder)  # before what takes long to import
    from dpconvert.plan.check import check
    from dpconvert.plan.options import Options
    from dpconvert.runtime import processes
    from dpconvert.runtime.progress import Reporter
    from dpconvert.source.files import Source
    from dpconvert.tasks.preview import preview as draw
    from dpconvert.tasks.slide_summary import summarize
    from dpconvert.tasks.slides_page import write_slides_page

    options = Options(**chosen)
    manifest = options.applied_to(with_shape(manifest))
    page = None if slide else out / PAGE
    if page is not None:
        report = Reporter(quiet=quiet or as_json)
        summary = summarize(Source.open(root, manifest), options, workers or processes.processors(), report)
        write_slides_page(summary, manifest, page)
        if not as_json:
            tell(f"{counted(summary.images, 'image')} -> {page}")
    drawn = draw(Source.open(root, manifest), slide, out)
    found = check(Source.open(root, manifest), options)
    if as_json:
        files = [str(file) for file in drawn.files]
        findings: dict[str, Any] = {"notes": found.notes, "warnings": found.warnings, "problems": found.problems} | (
            {"page": str(page)} if page else {}
        )
        document({"picture": drawn.source_image, "counts": drawn.counts, "files": files, **findings})
    else:
        _tell_source(drawn, found)
    if found.problems:
        sys.exit(1)


def _tell_source(drawn: Preview, found: Findings) -> None:
    if drawn.counts:
        table(["class", drawn.source_image], [[label, count] for label, count in drawn.counts.items()])
    for file in drawn.files:
        tell(str(file))
    for note in found.notes:
        tell(f"note: {note}")
    for warning in found.warnings:
        tell(f"warning: {warning}")
    for problem in found.problems:
        say(f"problem: {problem}", bold=True)
