"""The command `dpconvert`: the only place of the package that prints or exits."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert import __version__
from dpconvert.errors import UsageError, UserError, printable

if TYPE_CHECKING:
    from dpconvert.card import Difference
    from dpconvert.convert import Outcome
    from dpconvert.manifest import Manifest
    from dpconvert.progress import Reporter

SOURCES_VARIABLE = "DPCONVERT_SOURCES"


class Commands(click.Group):
    """Verbs, and besides them every source: `dpconvert camelyon16 --out shards/`."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        known = super().get_command(context, name)
        return known if known is not None else source_command(name)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        name = args[0]
        if super().get_command(context, name) is None and not name.startswith("-"):
            _check_name(name, list(self.commands))
        return super().resolve_command(context, args)


def main() -> None:
    """Entry point: users' mistakes become one line on stderr and exit status 1, Ctrl-C exit status 130."""
    try:
        group.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        _say(f"dpconvert: error: {error}", bold=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        _say("dpconvert: stopped; run the same command again to go on: what is made is kept")
        sys.exit(130)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="SOURCE | COMMAND [OPTIONS]",
)
@click.version_option(__version__, prog_name="dpconvert")
def group() -> None:
    """Turn a histology or cytology dataset into WebDataset shards.

    SOURCE is the name of a known dataset (see `dpconvert list`) or a manifest of your own (my.toml).

    \b
    dpconvert list                                   the known sources
    dpconvert show warwick-crc                       what it is, where to get it
    dpconvert warwick-crc --source DIR --out shards/ convert it
    dpconvert verify shards/                         every byte, again
    """


def source_command(name: str) -> click.Command:
    """The command that converts the source `name`; options are the same for every source."""

    def run(**options: Any) -> None:
        _convert(name, **options)

    return click.Command(
        name,
        params=[
            click.Option(["--source"], type=click.Path(path_type=Path), metavar="DIR", help=_SOURCE_HELP),
            *_conversion_options(),
        ],
        callback=run,
        help=f"Convert {name} into shards.\n\n\b\nExample: dpconvert {name} --source DIR --out shards/",
    )


def _conversion_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            default=Path("shards"),
            show_default=True,
            help="Where tasks go.",
        ),
        click.Option(["--workers"], type=click.IntRange(1), help="Processes.  [default: all processors]"),
        click.Option(
            ["--engine"],
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Processes of this machine, or a Ray cluster that shares these folders.",
        ),
        click.Option(["--address"], help="Of the Ray cluster.  [default: $RAY_ADDRESS, one that runs here, a new one]"),
        click.Option(
            ["--split"],
            type=click.Choice(["strict", "paper"]),
            default="strict",
            show_default=True,
            help="strict: no patient in two sets, of related tasks neither; paper: the published sets.",
        ),
        click.Option(
            ["--image-format"],
            type=click.Choice(["manifest", "png", "jpeg"]),
            default="manifest",
            help="Of samples that are not whole PNG or JPEG files, which keep their bytes.  [default: the manifest's]",
        ),
        click.Option(["--limit"], type=click.IntRange(1), metavar="N", help="At most N samples per class and set."),
        click.Option(
            ["--errata"], default="default", show_default=True, help="Known faults to leave out: none, default, names."
        ),
        click.Option(
            ["--samples-per-shard"], type=click.IntRange(1), default=1000, show_default=True, help="Samples of a tar."
        ),
        _MPP,
        click.Option(
            ["--lossless-tiles"], is_flag=True, help="Patches on a slide's own grid: its JPEG tiles as they are stored."
        ),
        click.Option(["--skip-failed"], is_flag=True, help="Leave out what cannot be read, and say so in task.json."),
        click.Option(["--retry-failed"], is_flag=True, help="Make again what was left out, and nothing else."),
        click.Option(["--overwrite"], is_flag=True, help="Replace another conversion of this task."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print task.json's content."),
        click.Option(["--quiet", "-q"], is_flag=True, help="No progress."),
    ]


_MPP = click.Option(
    ["--mpp"], type=click.FloatRange(0.05, 10), metavar="UM", help="Micrometres per pixel of slides that state none."
)
_ROOT = click.Option(
    ["--root"],
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder that holds a folder for each source, of its name.  [default: ${SOURCES_VARIABLE}, else sources]",
)
_SOURCE_HELP = f"The source's files.  [default: ${SOURCES_VARIABLE}/NAME, else sources/NAME, else the manifest's root]"


def _convert(name: str, source: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    from dpconvert.manifest import find

    manifest = _with_shape(find(name))
    outcome = _conversion(manifest, _root(manifest, source), out, **options)
    if as_json:
        click.echo(json.dumps(outcome.card.model_dump(mode="json", by_alias=True), indent=1))
    else:
        _tell(outcome)
    if outcome.card.failures:
        sys.exit(1)


def _conversion(
    manifest: Manifest, root: Path, out: Path, workers: int | None, overwrite: bool, quiet: bool, engine: str,
    address: str | None, retry_failed: bool, **options: Any,
) -> Outcome:  # fmt: skip
    from dpconvert import convert
    from dpconvert.engine import workers_of
    from dpconvert.plan import Options
    from dpconvert.progress import Reporter

    if engine == "ray":  # its tasks start in other folders
        root, out = root.absolute(), out.absolute()
    return convert.convert(
        manifest,
        root,
        out,
        Options(**options),
        workers=workers_of(engine, workers, address),
        overwrite=overwrite,
        report=Reporter(quiet=quiet),
        retry_failed=retry_failed,
    )


def _tell(outcome: Outcome) -> None:
    card = outcome.card
    before = "complete already" if not outcome.made else f"{outcome.made} shards made, {outcome.had} were there"
    _print(f"{card.task}: {card.samples()} samples in {len(card.shards)} shards ({before}) -> {outcome.folder}")
    made = card.splits.values()
    rows = [[name, *(split.classes[label] for split in made)] for label, name in enumerate(card.classes)]
    rows += [
        ["samples", *(split.samples for split in made)],
        [f"{card.group_kind}s", *(split.groups for split in made)],
    ]
    _table(["class", *card.splits], rows)
    _tell_differences(card.expectations)
    for note in card.notes:
        _print(f"note: {note}")
    if card.failures:
        for failure in card.failures[:10]:
            _print(f"failed: {failure.key}: {failure.reason}")
        remedy = "mend them and say --retry-failed"
        click.echo(f"left out: {len(card.failures)} samples that cannot be read, listed in task.json; {remedy}")
    _print(f"digest {card.digest}")


@group.command("all", params=[_ROOT, *_conversion_options()])
def convert_all(root: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    """Convert every known source that is there, and say which are not.

    \b
    Example: dpconvert all --root /data/sources --out shards/
    """
    from dpconvert.manifest import known, load

    base = root or _sources()
    there = [manifest for path in known().values() if (base / (manifest := load(path)).name).is_dir()]
    absent = sorted(known().keys() - {manifest.name for manifest in there})
    if not there:
        remedy = f"put a source into a folder of its name there: {', '.join(absent)}"
        raise UsageError("no known source here", where=base, remedy=remedy)
    cards, failed = [], []
    for manifest in there:
        try:
            outcome = _conversion(_with_shape(manifest), base / manifest.name, out, **options)
        except UserError as error:
            failed.append(manifest.name)
            _say(f"dpconvert: error: {manifest.name}: {error}", bold=True)
            continue
        failed += [manifest.name] * bool(outcome.card.failures)
        cards.append(outcome.card.model_dump(mode="json", by_alias=True))
        if not as_json:
            _tell(outcome)
            click.echo()
    if as_json:
        click.echo(json.dumps(cards, indent=1))
    _say(f"converted {len(cards)}; failed: {', '.join(failed) or 'none'}; not in {base}: {', '.join(absent) or 'none'}")
    if failed:
        sys.exit(1)


def _tell_differences(differences: list[Difference]) -> None:
    """A line for each number that is not the expected one; a single line where all have one reason."""
    first = differences[0] if differences else None
    if first and first.reason and len(differences) > 1 and all(d.reason == first.reason for d in differences):
        _print(f"{first.what}: expected {first.expected}, made {first.made} (known: {first.reason})")
        return
    for difference in differences:
        why = f"known: {difference.reason}" if difference.reason else "WARNING: no reason is known"
        _print(f"{difference.what}: expected {difference.expected}, made {difference.made} ({why})")


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_sources(as_json: bool) -> None:
    """The known sources.

    \b
    Example: dpconvert list
    """
    from dpconvert.manifest import known, load

    manifests = [load(path) for path in known().values()]
    if as_json:
        click.echo(
            json.dumps([{"name": m.name, "task": m.task, "kind": m.kind, "classes": m.classes} for m in manifests])
        )
        return
    _table(
        ["source", "task", "kind", "classes", "images", "licence"],
        [
            [m.name, m.task, m.kind, m.num_classes or "", m.paper.total if m.paper else "", m.licence.name]
            for m in manifests
        ],
    )


@group.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(source: str, as_json: bool) -> None:
    """What is known of a source: classes, counts, licence, where to get it, its layout.

    \b
    Example: dpconvert show camelyon16
    """
    from dpconvert.manifest import find

    manifest = _with_shape(find(source))
    if as_json:
        click.echo(manifest.model_dump_json(indent=1, exclude={"path"}))
        return
    for line in "\n".join(_description(manifest)).split("\n"):
        _print(line)


def _description(manifest: Manifest) -> list[str]:
    lines = [f"{manifest.name} -> {manifest.task}: {manifest.title}", ""]
    facts = {
        "kind": manifest.kind,
        "classes": ", ".join(f"{i} {name}" for i, name in enumerate(manifest.classes)) or "those that occur",
        "organ, stain": ", ".join(filter(None, [manifest.organ, manifest.stain])),
        "resolution": f"{manifest.mpp} um/px" if manifest.mpp else "",
        "rule": _rule(manifest),
        "group": f"{manifest.group.kind} (ids begin with {manifest.namespace}:)",
        "related tasks": ", ".join(manifest.related),
        "licence": " ".join(filter(None, [manifest.licence.name, manifest.licence.url, manifest.licence.note])),
        "citation": manifest.citation,
    }
    lines += [f"{name + ':':15}{value}" for name, value in facts.items() if value]
    if manifest.paper:
        p = manifest.paper
        lines.append(f"{'the paper:':15}{p.total} images: train {p.train}, val {p.val}, test {p.test}")
    for name, policy in manifest.split.items():
        lines.append(f"{'split ' + name + ':':15}{policy.note or 'by ' + manifest.group.kind}")
    lines += ["", f"get it: {manifest.obtain.url}".rstrip(), *filter(None, [manifest.obtain.text.strip()])]
    for archive in manifest.obtain.archives:
        lines.append("  " + "  ".join(filter(None, [archive.name, archive.url, archive.digest])))
    lines += ["", "expected files:"]
    for kind in manifest.files.values():
        count = f"{kind.expected} " if kind.expected else ""
        lines.append(f"  {count}{kind.what}, like {kind.example}")
    for erratum in manifest.errata:
        lines.append(
            f"erratum {erratum.name}{'' if erratum.default else ' (off)'}: {erratum.reason} [{erratum.citation}]"
        )
    return lines + [f"note: {note}" for note in manifest.notes]


def _rule(manifest: Manifest) -> str:
    """'area: size 768, ...' without what is not set."""
    told = manifest.rule.model_dump(exclude_defaults=True, exclude={"type"})
    values = {name: ", ".join(value) if isinstance(value, list) else value for name, value in told.items()}
    return f"{manifest.rule.type}: {'; '.join(f'{k} {v}' for k, v in values.items())}".removesuffix(": ")


@group.command()
@click.argument("source")
@click.option("--source", "folder", type=click.Path(path_type=Path), metavar="DIR", help=_SOURCE_HELP)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(source: str, folder: Path | None, as_json: bool) -> None:
    """What of a source is there and what is missing; reads names only.

    \b
    Example: dpconvert check camelyon16 --source /data/camelyon16
    """
    from dpconvert.manifest import find
    from dpconvert.source import Source

    manifest = _with_shape(find(source))
    root = _root(manifest, folder)
    files = Source.open(root, manifest)
    rows, missing = [], False
    for name, kind in manifest.files.items():
        found = len(files.match(name))
        short = found < (kind.expected or 1) and not kind.optional
        missing |= short
        rows.append([kind.what, found, kind.expected or "", "missing" if short else "", kind.example])
    if as_json:
        names = ("what", "found", "expected", "state", "example")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        _print(f"{root}: {len(files.sizes)} files")
        _table(["what", "found", "expected", "", "like"], rows)
    if missing:
        sys.exit(1)


@group.command()
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: all processors]")
@click.option(
    "--against", metavar="DIGEST|DIR", default="", help="What one task must be equal to; says whether versions differ."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def verify(shards: Path, workers: int | None, against: str, as_json: bool, quiet: bool) -> None:
    """Read every shard again: digests, counts, index, keys, fields, labels, images, groups.

    \b
    Example: dpconvert verify shards/
    """
    from dpconvert import engine
    from dpconvert.card import FILE_NAME
    from dpconvert.progress import Reporter
    from dpconvert.verify import task_folders
    from dpconvert.verify import verify as verify_task

    told: list[dict[str, Any]] = []
    bad, report = 0, Reporter(quiet=quiet or as_json)
    for folder in task_folders(shards):
        try:
            card, problems = verify_task(folder, workers=workers or engine.processors(), report=report, against=against)
        except UserError as error:
            _say(f"dpconvert: error: {error}", bold=True)
            told.append({"folder": str(folder), "problems": [{"file": FILE_NAME, "what": str(error)}]})
            bad += 1
            continue
        told.append({"folder": str(folder), "task": card.task, "digest": card.digest})
        told[-1]["problems"] = [{"file": problem.file, "what": problem.what} for problem in problems]
        for problem in problems:
            _say(f"{folder / problem.file}: {problem.what}", bold=True)
        bad += len(problems)
        if not (problems or as_json):
            _print(f"{card.task}: {card.samples()} samples in {len(card.shards)} shards are as written, {card.digest}")
    if as_json:
        click.echo(json.dumps(told))
    if bad:
        _say(f"dpconvert: error: {bad} problems; convert what is damaged again with --overwrite")
        sys.exit(1)


@group.command()
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--page", type=click.Path(path_type=Path), default=Path("audit.html"), show_default=True, help="A file.")
@click.option(
    "--alike", type=click.FloatRange(0.5, 1), default=0.85, show_default=True, help="Likeness from which a pair counts."
)
@click.option("--features", type=click.Path(path_type=Path), metavar="DIR", help="Of `mtrain features`: compared too.")
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: all processors]")
@click.option("--json", "as_json", is_flag=True, help="For programs; every pair.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def audit(
    shards: Path, page: Path, alike: float, features: Path | None, workers: int | None, as_json: bool, quiet: bool
) -> None:
    """Look for the same pictures in two splits or two tasks: equal, turned, mirrored, scaled or compressed again.

    Draws every pair on one page, and says which tasks to leave out together. Exit status 1 when something is found
    that the tasks' cards do not state.

    \b
    Example: dpconvert audit shards/
    """
    from dpconvert import audit as auditing
    from dpconvert import engine
    from dpconvert.audit.page import write_page
    from dpconvert.progress import Reporter
    from dpconvert.verify import task_folders

    report = Reporter(quiet=quiet or as_json)
    found = auditing.audit(
        task_folders(shards), workers=workers or engine.processors(), report=report, alike=alike, features_in=features
    )
    write_page(found, page)
    if as_json:
        click.echo(json.dumps(found.dump()))
    else:
        for line in found.lines():
            _print(line)
        _print(f"page: {page}")
    if not found.clean:
        sys.exit(1)


@group.command(params=[_MPP])
@click.argument("source", metavar="SOURCE|SHARDS")
@click.option("--source", "folder", type=click.Path(path_type=Path), metavar="DIR", help=_SOURCE_HELP)
@click.option("--slide", metavar="NAME", help="Which one.  [default: the first that is annotated]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the pictures, or the page.  [default: preview, preview.html]",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def preview(source: str, out: Path | None, as_json: bool, quiet: bool, **drawing: Any) -> None:
    """Draw what a conversion would see of a source, or what it made, on one page.

    Of a source: a slide with its tissue, annotations and patches, and samples of each class, as pictures. Of a folder
    of tasks, or of one: counts, pictures of each class, sizes, licences and notes, as an HTML page.

    \b
    Example: dpconvert preview camelyon16 --slide tumor_001
             dpconvert preview shards/
    """
    if _is_shards(source):
        if given := [f"--{'source' if name == 'folder' else name}" for name, value in drawing.items() if value]:
            raise UsageError(f"{given[0]} is of a source, and this is a folder of tasks", where=source)
        _preview_tasks(Path(source), out or Path("preview.html"), as_json, quiet)
    else:
        _preview_source(source, out or Path("preview"), as_json, **drawing)


def _is_shards(name: str) -> bool:
    """Whether the argument is a folder; a known source is one even where a folder has its name."""
    from dpconvert.manifest import known

    return Path(name).is_dir() and name not in known()


def _preview_tasks(shards: Path, page: Path, as_json: bool, quiet: bool) -> None:
    from dpconvert.gallery import read_tasks, write_page
    from dpconvert.progress import Reporter
    from dpconvert.verify import task_folders

    gallery = read_tasks(task_folders(shards), Reporter(quiet=quiet or as_json))
    write_page(gallery, page)
    if as_json:
        tasks = [
            {
                "task": seen.card.task,
                "samples": seen.card.samples(),
                "shown": sum(map(len, seen.examples.values())),
                "failures": len(seen.card.failures),
            }
            for seen in gallery.tasks
        ]
        problems = [{"folder": str(broken.folder), "what": broken.why} for broken in gallery.unfinished]
        click.echo(json.dumps({"page": str(page), "tasks": tasks, "problems": problems}))
    else:
        _print(f"{len(gallery.tasks)} task{'s' * (len(gallery.tasks) != 1)} -> {page}")
        for broken in gallery.unfinished:
            _say(f"dpconvert: error: {broken.why}", bold=True)
    if gallery.unfinished:
        sys.exit(1)


def _preview_source(
    source: str, out: Path, as_json: bool, *, folder: Path | None, slide: str | None, mpp: float | None
) -> None:
    from dpconvert.manifest import find
    from dpconvert.plan import Options
    from dpconvert.preview import preview as draw
    from dpconvert.source import Source

    manifest = Options(mpp=mpp).told(_with_shape(find(source)))
    drawn = draw(Source.open(_root(manifest, folder), manifest), slide, out)
    if as_json:
        files = [str(file) for file in drawn.files]
        click.echo(json.dumps({"picture": drawn.picture, "counts": drawn.counts, "files": files}))
        return
    if drawn.counts:
        _table(["class", drawn.picture], [[label, count] for label, count in drawn.counts.items()])
    for file in drawn.files:
        _print(str(file))


@group.command()
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("unpacked"), show_default=True, help="Where to.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def unpack(shards: Path, out: Path, as_json: bool, quiet: bool) -> None:
    """Turn a task's shards back into images: a folder for each split and class, the same bytes.

    Nothing is overwritten; the same command goes on with what was interrupted. SHARDS is a task's folder, or one of
    several tasks, which then get a folder each.

    \b
    Example: dpconvert unpack shards/Lung --out unpacked/
    """
    from dpconvert.progress import Reporter
    from dpconvert.unpack import unpack as unpack_task
    from dpconvert.verify import task_folders

    report, done = Reporter(quiet=quiet or as_json), []
    for folder in task_folders(shards):
        done.append(unpack_task(folder, out if folder == shards else out / folder.name, report))
        if not as_json:
            came = done[-1]
            _print(f"{came.task}: {came.made} images written, {came.had} were there -> {came.folder}")
    if as_json:
        rows = [{"task": d.task, "folder": str(d.folder), "made": d.made, "had": d.had} for d in done]
        click.echo(json.dumps(rows))


@group.command()
@click.argument("source")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("sources"), show_default=True, help="Parent folder."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other pictures.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def fake(source: str, out: Path, seed: int, as_json: bool) -> None:
    """Draw a tiny fake of a source in its own layout, to try the programs with.

    \b
    Example: dpconvert fake camelyon16 --out sources/
    """
    from dpconvert.fakes import draw_fake
    from dpconvert.manifest import find

    manifest = find(source)
    folder = draw_fake(manifest, out, seed)
    if as_json:
        click.echo(json.dumps({"source": manifest.name, "folder": str(folder)}))
        return
    _print(f"{folder}: convert it with `dpconvert {manifest.name} --source {folder} --out shards/`")


@group.command()
@click.argument("source")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Where to.  [default: ${SOURCES_VARIABLE}/NAME, else sources/NAME]",
)
@click.option("--accept-licence", is_flag=True, help="You agree to the terms that `show` names.")
@click.option(
    "--host", metavar="URL", help="A Cytomine server; keys from CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY."
)
@click.option("--project", "projects", type=int, multiple=True, metavar="ID", help="Of that server; may be repeated.")
@click.option("--crops/--slides", default=None, help="What to fetch of a project.  [default: what the rule needs]")
@click.option("--connections", type=click.IntRange(1, 16), default=4, show_default=True, help="To that server at once.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def fetch(source: str, to: Path | None, accept_licence: bool, quiet: bool, **server: Any) -> None:
    """Download a source, or say where to ask for it.

    Goes on with what was cut, and leaves alone what is there.

    \b
    Example: dpconvert fetch umcm-colorectal
             dpconvert fetch lung --host https://cytomine.example.org --project 1234
    """
    from dpconvert.manifest import find
    from dpconvert.progress import Reporter

    manifest = _with_shape(find(source))
    folder, report = _root(manifest, to), Reporter(quiet=quiet)
    if server["host"] or server["projects"]:
        _fetch_projects(manifest, folder, report, **server)
    else:
        _fetch_archives(manifest, folder, report, accept_licence)


def _fetch_archives(manifest: Manifest, folder: Path, report: Reporter, accepted: bool) -> None:
    from dpconvert import fetch as fetching

    done = fetching.fetch(manifest, folder, report, accepted=accepted)
    if done.came or done.had:
        _print(f"{folder}: {len(done.came)} archives came, {len(done.had)} were there")
    if done.manual or not (done.came or done.had):
        for line in fetching.instructions(manifest, folder):
            _print(line)
        sys.exit(1)
    _print(f"convert it with `dpconvert {manifest.name} --source {folder}`")


def _fetch_projects(
    manifest: Manifest,
    folder: Path,
    report: Reporter,
    *,
    host: str | None,
    projects: tuple[int, ...],
    crops: bool | None,
    connections: int,
) -> None:
    from dpconvert import fetch as fetching
    from dpconvert.cytomine import project
    from dpconvert.cytomine.server import Keys

    wanted = fetching.projects(manifest, host, projects, crops, connections)
    keys = Keys.from_environment()
    report.note(f"licence: {fetching.licence(manifest)}")
    for request in wanted:
        place = folder / str(request.project) if len(wanted) > 1 else folder
        brought = project.export(request, keys, place, report)
        _print(f"{place}: {brought.came} {request.what} came, {brought.had} were there")
        for note in brought.notes:
            _print(f"note: {note}")
    _print(f"convert it with `dpconvert {manifest.name} --source {folder}`")


@group.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Where shards are to go.  [default: here]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(out: Path, as_json: bool) -> None:
    """Say what works on this machine: OpenSlide, codecs, disk, locks, processes. Exit status 1 if something does not.

    \b
    Example: dpconvert doctor --out shards/
    """
    from dpconvert.doctor import checks

    found = []
    for check in checks(out):
        found.append(check)
        if not as_json:
            told = f"{check.found}{check.remedy and '; ' + check.remedy}"
            _print(f"{'ok' if check.ok else 'PROBLEM':8}{check.name}: {told}")
    if as_json:
        click.echo(json.dumps([vars(check) for check in found]))
    if not all(check.ok for check in found):
        sys.exit(1)


def _with_shape(manifest: Manifest) -> Manifest:
    """The manifest with its shape's own file patterns where it gives none."""
    from dpconvert.sources import with_defaults

    return with_defaults(manifest)


def _root(manifest: Manifest, given: Path | None) -> Path:
    if given is not None:
        return given
    if manifest.root:
        return manifest.path.parent / manifest.root
    return _sources() / manifest.name


def _sources() -> Path:
    import os

    return Path(os.environ.get(SOURCES_VARIABLE) or "sources")


def _check_name(name: str, verbs: list[str]) -> None:
    """One list of near names over verbs and sources, for a name that is neither."""
    from dpconvert.manifest import closest, known

    if name.endswith(".toml"):
        return
    try:
        closest(name, known(), "source")
    except UsageError:
        closest(name, [*verbs, *known()], "command or source")


def _table(head: list[str], rows: list[list[Any]]) -> None:
    """Plain aligned columns: numbers to the right; cut to the terminal's width only on a terminal."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], int) for row in rows) for i in range(len(head))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for row in cells:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        _print("  ".join(aligned).rstrip()[:limit])


def _print(text: str) -> None:
    """One line, whatever control characters a name in it holds."""
    click.echo(printable(text))


def _say(text: str, *, bold: bool = False) -> None:
    import os

    text = printable(text)

    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    click.echo(text if plain else click.style(text, fg="red" if bold else None), err=True)


if __name__ == "__main__":
    main()
