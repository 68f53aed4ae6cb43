"""`dpconvert fetch`: downloads published archives, or a project from a Cytomine server."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dpconvert.cli.options import FOLDER, WORKERS, with_shape
from dpconvert.cli.pool import fetch_pool
from dpconvert.errors import UsageError
from dpconvert.manifest.roots import SOURCES_VARIABLE, root_of
from dpconvert.plural import counted
from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer, tell

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest
    from dpconvert.runtime.progress import Reporter


@click.command(cls=Detailed, rarely=("workers", "crops", "out"))
@click.argument("source", required=False)
@click.option(
    "--to",
    type=FOLDER,
    help=f"Download folder; of a pool, the parent of its sources' folders.  [default: ${SOURCES_VARIABLE}/NAME, else "
    "sources/NAME]",
)
@click.option(
    "--accept-licence",
    "--accept-licences",
    "accept_licence",
    is_flag=True,
    help="Accept the licence terms that `show` prints.",
)
@click.option("--pool", metavar="NAME|TOML", help="Download the sources of this pool, and convert each as it arrives.")
@click.option("--out", type=FOLDER, default=Path("shards"), show_default=True, help="Output folder of a pool's shards.")
@click.option("--no-convert", is_flag=True, help="Download the sources of the pool only.")
@WORKERS
@click.option(
    "--host",
    metavar="URL",
    help="Cytomine server; keys from CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY.",
)
@click.option("--project", "projects", type=int, multiple=True, metavar="ID", help="Cytomine project; may be repeated.")
@click.option("--crops/--slides", default=None, help="What to fetch from a project.  [default: what the rule needs]")
@click.option("--connections", type=WholeRange(1, 16), default=4, show_default=True, help="Parallel downloads.")
@JSON
@QUIET
def fetch(
    source: str | None,
    to: Path | None,
    accept_licence: bool,
    pool: str | None,
    out: Path,
    no_convert: bool,
    workers: int | None,
    as_json: bool,
    quiet: bool,
    **server: Any,
) -> None:
    """Download a source, or explain how to request it; with --pool, download and convert a list of sources.

    An interrupted download is resumed; finished files are kept.

    \b
    Example: dpconvert fetch umcm-colorectal
             dpconvert fetch --pool open-hour --out shards/
             dpconvert fetch lung --host https://cytomine.example --project 1234
    """
    from dpconvert.manifest.catalog import find
    from dpconvert.runtime.progress import Reporter

    if (source is None) == (pool is None):
        raise UsageError("give either a source or --pool", remedy="`dpconvert list` and `dpconvert pool` name them")
    report = Reporter(quiet=quiet)
    if pool is not None:
        if server["host"] or server["projects"]:
            raise UsageError("--host and --project are for a single source", remedy="omit --pool")
        _note_unused(report, {"crops"}, "a pool is fetched")
        fetch_pool(
            pool,
            to,
            out,
            report,
            accepted=accept_licence,
            convert=not no_convert,
            at_once=server["connections"],
            workers=workers,
            as_json=as_json,
        )
        return
    assert source is not None
    if no_convert:
        raise UsageError("--no-convert is for a pool", remedy="omit it: a single source is only downloaded")
    manifest = with_shape(find(source))
    folder = root_of(manifest, to)
    _note_unused(report, {"out", "workers"}, "a single source is only downloaded")
    if server["host"] or server["projects"]:
        _note_unused(report, {"accept_licence"}, "the server decides who may read a project")
        _fetch_projects(manifest, folder, report, as_json, **server)
    else:
        _note_unused(report, {"crops", "connections"}, "no project of a Cytomine server is named")
        _fetch_archives(manifest, folder, report, as_json, accept_licence)


def _note_unused(report: Reporter, names: set[str], why: str) -> None:
    """Say which of these options were given for nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        given = option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        if given:
            report.note(f"{'/'.join((*option.opts[:1], *option.secondary_opts[:1]))} is not used: {why}")


def _fetch_archives(manifest: Manifest, folder: Path, report: Reporter, as_json: bool, accepted: bool) -> None:
    from dpconvert.obtain import fetch as fetching

    done = fetching.fetch(manifest, folder, report, accepted=accepted)
    by_hand = done.manual or not (done.came or done.had)
    summary = f"{folder}: {counted(len(done.came), 'archive')} downloaded, {len(done.had)} existing"
    lines = [summary] if done.came or done.had else []
    lines += fetching.instructions(manifest, folder) if by_hand else [_next(manifest, folder)]
    result = {"source": manifest.name, "folder": str(folder), "came": done.came, "had": done.had}
    answer(lines, result | {"by_hand": done.manual, "url": manifest.obtain.url}, as_json=as_json)
    if by_hand:
        sys.exit(1)


def _fetch_projects(
    manifest: Manifest,
    folder: Path,
    report: Reporter,
    as_json: bool,
    *,
    host: str | None,
    projects: tuple[int, ...],
    crops: bool | None,
    connections: int,
) -> None:
    from dpconvert.obtain import cytomine_project
    from dpconvert.obtain import fetch as fetching
    from dpconvert.obtain.cytomine_server import ApiKeys

    requests = fetching.projects(manifest, host, projects, crops, connections)
    keys = ApiKeys.from_environment()
    report.note(f"licence: {fetching.licence(manifest)}")
    results = []
    for request in requests:
        place = folder / str(request.project) if len(requests) > 1 else folder
        export = cytomine_project.export(request, keys, place, report)
        results.append({"project": request.project, "folder": str(place), "what": request.what, **vars(export)})
        if not as_json:
            tell(f"{place}: {export.came} {request.what} downloaded, {export.had} existing")
            for note in export.notes:
                tell(f"note: {note}")
    answer([_next(manifest, folder)], {"source": manifest.name, "projects": results}, as_json=as_json)


def _next(manifest: Manifest, folder: Path) -> str:
    from dpconvert.manifest.catalog import typed

    return f"convert it with `dpconvert {typed(manifest)} --source {shlex.quote(str(folder))}`"
