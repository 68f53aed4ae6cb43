"""The commands that make shards: a source's own name, and `all`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.cli.options import ALLOW_OUTSIDE, MPP, MPP_OVERRIDE, PATH, SOURCE, WORKERS, with_shape
from dpconvert.errors import UsageError, UserError
from dpconvert.manifest.roots import SOURCES_VARIABLE, root_of, sources_folder
from dpconvert.plural import counted
from dpconvert.runtime.terminal import QUIET, Detailed, document, say, table, tell, together

if TYPE_CHECKING:
    from dpconvert.card import Difference
    from dpconvert.conversion import Outcome
    from dpconvert.manifest.model import Manifest
    from dpconvert.runtime.processes import Workers


CONVERSION = together(
    click.option("--out", type=PATH, default=Path("shards"), show_default=True, help="Where tasks go."),
    WORKERS,
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
        help="Processes of this machine, or a Ray cluster that shares these folders."),
    click.option("--address", help="Of the Ray cluster.  [default: $RAY_ADDRESS, one that runs here, a new one]"),
    click.option("--split", type=click.Choice(["strict", "paper"]), default="strict", show_default=True,
        help="strict: no patient in two sets, of related tasks neither; paper: the published sets."),
    click.option("--image-format", type=click.Choice(["manifest", "png", "jpeg"]), default="manifest",
        help="Of samples that are not whole PNG or JPEG files, which keep their bytes.  [default: the manifest's]"),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N samples per class and set."),
    click.option("--errata", default="default", show_default=True,
        help="Known faults to leave out: none, default, names."),
    click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True,
        help="Samples of a tar."),
    MPP,
    MPP_OVERRIDE,
    ALLOW_OUTSIDE,
    click.option("--lossless-tiles", is_flag=True,
        help="Patches on a slide's own grid: its JPEG tiles as they are stored."),
    click.option("--skip-failed", is_flag=True, help="Leave out what cannot be read, and say so in task.json."),
    click.option("--retry-failed", is_flag=True, help="Make again what was left out, and nothing else."),
    click.option("--overwrite", is_flag=True, help="Replace another conversion of this task."),
    click.option("--json", "as_json", is_flag=True, help="Print task.json's content."),
    QUIET,
)  # fmt: skip

RARELY = (
    "engine", "address", "image_format", "errata", "mpp_override", "samples_per_shard", "lossless_tiles",
    "allow_outside",
    "retry_failed",
)  # fmt: skip


def source_command(name: str) -> click.Command:
    """The command that converts the source `name`; options are the same for every source."""

    text = f"Convert {name} into shards.\n\n\b\nExample: dpconvert {name} --source DIR --out shards/"

    @click.command(name, cls=Detailed, rarely=RARELY, help=text)
    @SOURCE
    @CONVERSION
    def convert(**options: Any) -> None:
        _convert(name, **options)

    return convert


@click.command("all", cls=Detailed, rarely=RARELY)
@click.option("--root", type=PATH, metavar="DIR",
    help=f"Folder that holds a folder for each source, of its name.  [default: ${SOURCES_VARIABLE}, else sources]",
)  # fmt: skip
@CONVERSION
def convert_all(root: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    """Convert every known source that is there, and say which are not.

    \b
    Example: dpconvert all --root /data/sources --out shards/
    """
    options["workers"] = _workers(options.pop("engine"), options["workers"], options.pop("address"))
    from dpconvert.manifest.catalog import known, load

    base = root or sources_folder()
    there = [manifest for path in known().values() if (base / (manifest := load(path)).name).is_dir()]
    absent = sorted(known().keys() - {manifest.name for manifest in there})
    if not there:
        remedy = f"put a source into a folder of its name there: {', '.join(absent)}"
        raise UsageError("no known source here", where=base, remedy=remedy)
    cards, failed = [], []
    for manifest in there:
        try:
            outcome = _conversion(with_shape(manifest), base / manifest.name, out, **options)
        except UserError as error:
            failed.append(manifest.name)
            say(f"dpconvert: error: {manifest.name}: {error}", bold=True)
            continue
        failed += [manifest.name] * bool(outcome.card.failures)
        cards.append(_content(outcome))
        if not as_json:
            _tell(outcome)
            click.echo()
    if as_json:
        document(cards, indent=1)
    say(f"converted {len(cards)}; failed: {', '.join(failed) or 'none'}; not in {base}: {', '.join(absent) or 'none'}")
    if failed:
        sys.exit(1)


def _convert(name: str, folder: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    options["workers"] = _workers(options.pop("engine"), options["workers"], options.pop("address"))
    from dpconvert.manifest.catalog import find

    manifest = with_shape(find(name))
    outcome = _conversion(manifest, root_of(manifest, folder), out, **options)
    if as_json:
        document(_content(outcome), indent=1)
    else:
        _tell(outcome)
    if outcome.card.failures:
        sys.exit(1)


def _workers(engine: str, count: int | None, address: str | None) -> Workers:
    """The workers asked for, which load what they need while this process does."""
    from dpconvert.runtime.processes import start_loading, workers_of

    workers = workers_of(engine, count, address)
    if isinstance(workers, int) and workers > 1:
        start_loading()
    return workers


def _conversion(
    manifest: Manifest, root: Path, out: Path, workers: Workers, overwrite: bool, quiet: bool, retry_failed: bool,
    **options: Any,
) -> Outcome:  # fmt: skip
    from dpconvert import conversion
    from dpconvert.plan.plan import Options
    from dpconvert.runtime.progress import Reporter

    if not isinstance(workers, int):  # tasks of a cluster start in other folders
        root, out = root.absolute(), out.absolute()
    return conversion.convert(
        manifest,
        root,
        out,
        Options(**options),
        workers=workers,
        overwrite=overwrite,
        report=Reporter(quiet=quiet),
        retry_failed=retry_failed,
    )


def _content(outcome: Outcome) -> dict[str, Any]:
    """What task.json holds."""
    return outcome.card.model_dump(mode="json", by_alias=True)


def _tell(outcome: Outcome) -> None:
    card = outcome.card
    before = f"{counted(outcome.made, 'shard')} made, {outcome.had} were there" if outcome.made else "complete already"
    samples, shards = counted(card.samples(), "sample"), counted(len(card.shards), "shard")
    tell(f"{card.task}: {samples} in {shards} ({before}) -> {outcome.folder}")
    made = card.splits.values()
    rows = [[name, *(split.classes[label] for split in made)] for label, name in enumerate(card.classes)]
    rows += [
        ["samples", *(split.samples for split in made)],
        [f"{card.group_kind}s", *(split.groups for split in made)],
    ]
    table(["class", *card.splits], rows)
    _tell_differences(card.expectations)
    for note in card.notes:
        tell(f"note: {note}")
    if card.failures:
        for failure in card.failures[:10]:
            tell(f"failed: {failure.key}: {failure.reason}")
        remedy = "mend them and say --retry-failed"
        tell(f"left out: {counted(len(card.failures), 'sample')} that cannot be read, listed in task.json; {remedy}")
    tell(f"digest {card.digest}")


def _tell_differences(differences: list[Difference]) -> None:
    """A line for each number that is not the expected one; a single line where all have one reason."""
    first = differences[0] if differences else None
    if first and first.reason and len(differences) > 1 and all(d.reason == first.reason for d in differences):
        tell(f"{first.what}: expected {first.expected}, made {first.made} (known: {first.reason})")
        return
    for difference in differences:
        why = f"known: {difference.reason}" if difference.reason else "WARNING: no reason is known"
        tell(f"{difference.what}: expected {difference.expected}, made {difference.made} ({why})")
