"""The commands that write shards: the name of a source, and `all`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.cli.options import (
    ALLOW_OUTSIDE,
    DENSE,
    FOLDER,
    MPP,
    MPP_OVERRIDE,
    SOURCE,
    SPLIT,
    WORKERS,
    with_shape,
)
from dpconvert.errors import UsageError, UserError
from dpconvert.manifest.roots import SOURCES_VARIABLE, existing_root, sources_folder
from dpconvert.plural import counted
from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import QUIET, Detailed, document, say, table, tell, together

if TYPE_CHECKING:
    from dpconvert.card import Difference, TaskCard
    from dpconvert.conversion import ConversionResult
    from dpconvert.manifest.model import Manifest
    from dpconvert.runtime.processes import Workers


PRINTED_FAILURES = 10
CONVERSION = together(
    click.option("--out", type=FOLDER, default=Path("shards"), show_default=True, help="Output folder."),
    WORKERS,
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Run on this machine, or on a Ray cluster that shares these folders.",
    ),
    click.option(
        "--limit-memory",
        type=WholeRange(0, 1 << 20),
        metavar="GIB",
        help="Maximum memory for reading one file, in GiB (Linux only); 0: no limit.  [default: 6]",
    ),
    click.option(
        "--limit-seconds",
        type=WholeRange(0, 10**9),
        metavar="S",
        help="Maximum processor time for reading one file, in worker processes; 0: no limit.  [default: 1800]",
    ),
    click.option(
        "--address",
        metavar="ADDRESS",
        help="Address of the Ray cluster.  [default: $RAY_ADDRESS, a running or a new one]",
    ),
    SPLIT,
    click.option(
        "--image-format",
        type=click.Choice(["manifest", "png", "jpeg"]),
        default="manifest",
        help="Format of images cut or decoded by dpconvert; PNG and JPEG files are kept.  [default: the manifest's]",
    ),
    click.option("--limit", type=WholeRange(1), help="Maximum number of samples per class and set."),
    click.option(
        "--errata",
        metavar="NAMES",
        default="default",
        show_default=True,
        help="Known faults to exclude: none, default, or names separated by commas.",
    ),
    click.option(
        "--samples-per-shard", type=WholeRange(1), default=1000, show_default=True, help="Samples in each tar file."
    ),
    MPP,
    MPP_OVERRIDE,
    ALLOW_OUTSIDE,
    click.option(
        "--lossless-tiles",
        is_flag=True,
        help="Align patches with the slide's tiles, and copy its JPEG tiles unchanged.",
    ),
    DENSE,
    click.option("--skip-failed", is_flag=True, help="Leave out unreadable samples, and list them in task.json."),
    click.option("--retry-failed", is_flag=True, help="Retry only the samples that were left out."),
    click.option("--overwrite", is_flag=True, help="Replace an existing conversion of this task."),
    click.option("--json", "as_json", is_flag=True, help="Print the contents of task.json."),
    click.option("--verbose", "-v", is_flag=True, help="Also print notes about the dataset, and known differences."),
    QUIET,
)

RARELY = (
    "engine",
    "address",
    "limit_memory",
    "limit_seconds",
    "image_format",
    "errata",
    "mpp_override",
    "samples_per_shard",
    "lossless_tiles",
    "allow_outside",
    "retry_failed",
)


def source_command(name: str) -> click.Command:
    """The command that converts the source `name`. Every source takes the same options."""

    text = f"Convert {name} into shards.\n\n\b\nExample: dpconvert {name} --source DIR --out shards/"

    @click.command(name, cls=Detailed, rarely=RARELY, help=text)
    @SOURCE
    @CONVERSION
    def convert(**options: Any) -> None:
        _convert(name, **options)

    return convert


@click.command("all", cls=Detailed, rarely=RARELY)
@click.option(
    "--root",
    type=FOLDER,
    help=f"Folder with one subfolder for each source, named after it.  [default: ${SOURCES_VARIABLE}, else sources]",
)
@CONVERSION
def convert_all(root: Path | None, out: Path, as_json: bool, verbose: bool, **options: Any) -> None:
    """Convert every known source found in a folder, and list those that are not there.

    \b
    Example: dpconvert all --root /data/sources --out shards/
    """
    options["workers"] = _workers(options.pop("engine"), options["workers"], options.pop("address"))
    from dpconvert.manifest.catalog import known, load

    base = root or sources_folder()
    existing = [manifest for path in known().values() if (base / (manifest := load(path)).name).is_dir()]
    absent = sorted(known().keys() - {manifest.name for manifest in existing})
    if not existing:
        remedy = f"put each source into a subfolder with its name; known: {', '.join(absent)}"
        raise UsageError("no known source in this folder", where=base, remedy=remedy)
    cards, failed = [], []
    for manifest in existing:
        try:
            kept = options | {"dense": options["dense"] and manifest.dense is not None}
            outcome = _conversion(with_shape(manifest), base / manifest.name, out, **kept)
        except UserError as error:
            failed.append(manifest.name)
            say(f"dpconvert: error: {manifest.name}: {error}", bold=True)
            continue
        failed += [manifest.name] * bool(outcome.card.failures)
        cards.append(_content(outcome))
        if not as_json:
            _print_outcome(outcome, manifest, verbose=verbose)
            click.echo()
    if as_json:
        document(cards, indent=1)
    say(f"converted {len(cards)}; failed: {', '.join(failed) or 'none'}; not in {base}: {', '.join(absent) or 'none'}")
    if failed:
        sys.exit(1)


def _convert(name: str, folder: Path | None, out: Path, as_json: bool, verbose: bool, **options: Any) -> None:
    from dpconvert.manifest.catalog import find

    manifest = find(name)
    root = existing_root(manifest, folder)  # before what takes long to import
    options["workers"] = _workers(options.pop("engine"), options["workers"], options.pop("address"))
    manifest = with_shape(manifest)
    outcome = _conversion(manifest, root, out, **options)
    if as_json:
        document(_content(outcome), indent=1)
    else:
        _print_outcome(outcome, manifest, verbose=verbose)
    if outcome.card.failures:
        sys.exit(1)


def _workers(engine: str, count: int | None, address: str | None) -> Workers:
    """The requested workers. Local ones start importing at once, in parallel with this process."""
    from dpconvert.runtime.processes import start_loading, workers_of

    workers = workers_of(engine, count, address)
    if isinstance(workers, int) and workers > 1:
        start_loading()
    return workers


def _conversion(
    manifest: Manifest,
    root: Path,
    out: Path,
    workers: Workers,
    overwrite: bool,
    quiet: bool,
    retry_failed: bool,
    limit_memory: int | None,
    limit_seconds: int | None,
    **options: Any,
) -> ConversionResult:
    from dpconvert import conversion
    from dpconvert.plan.options import Options
    from dpconvert.runtime.limits import Limits
    from dpconvert.runtime.progress import Reporter

    if not isinstance(workers, int):  # on a cluster, tasks run in another working directory
        root, out = root.absolute(), out.absolute()
        if limit_memory is not None or limit_seconds is not None:
            raise UsageError(
                "--limit-memory and --limit-seconds apply to --engine local; a cluster sets its own limits"
            )
    return conversion.convert(
        manifest,
        root,
        out,
        Options(**options),
        workers=workers,
        overwrite=overwrite,
        report=Reporter(quiet=quiet),
        retry_failed=retry_failed,
        limits=Limits.of_options(limit_memory, limit_seconds),
    )


def _content(outcome: ConversionResult) -> dict[str, Any]:
    """The contents of task.json."""
    return outcome.card.json_body()


def _print_outcome(outcome: ConversionResult, manifest: Manifest, *, verbose: bool) -> None:
    """The counts as a table, then the notes that the user can act on; with `verbose`, every note."""
    from dpconvert.card import SPLITS

    card = outcome.card
    done = f"{counted(outcome.made, 'shard')} written, {outcome.had} existing" if outcome.made else "already complete"
    samples, shards = counted(card.samples(), "sample"), counted(len(card.shards), "shard")
    tell(f"{card.task}: {samples} in {shards} ({done}) -> {outcome.folder}")
    names = [split for split in SPLITS if split in card.splits]  # a card that was read has them in another order
    splits = [card.splits[name] for name in names]
    rows = [[name, *(split.classes[label] for split in splits)] for label, name in enumerate(card.classes)]
    rows += [
        ["samples", *(split.samples for split in splits)],
        [f"{card.group_kind}s", *(split.groups for split in splits)],
    ]
    table(["class", *names], rows)
    _print_differences(card.expectations, verbose=verbose)
    _print_notes(card, manifest, verbose=verbose)
    _print_failures(card)
    tell(f"digest {card.digest}")


def _print_differences(differences: list[Difference], *, verbose: bool) -> None:
    """One line for each count that differs from the expected one; where all share a reason, only the first."""
    reasons = {difference.reason for difference in differences}
    if not verbose and len(reasons) == 1 and "" not in reasons:
        differences = differences[:1]
    for difference in differences:
        why = f"known: {difference.reason}" if difference.reason else "WARNING: no known reason"
        tell(f"{difference.what}: expected {difference.expected}, found {difference.made} ({why})")


def _print_notes(card: TaskCard, manifest: Manifest, *, verbose: bool) -> None:
    """The notes on this conversion. Those of the manifest hold for every conversion: `show` prints them."""
    general = [] if verbose else [note for note in card.notes if note in manifest.notes]
    for note in card.notes:
        if note not in general:
            tell(f"note: {note}")
    if general:
        tell(f"{counted(len(general), 'note')} about the dataset not shown; --verbose or `dpconvert show` prints them")


def _print_failures(card: TaskCard) -> None:
    for failure in card.failures[:PRINTED_FAILURES]:
        tell(f"failed: {failure.key}: {failure.reason}")
    if card.failures:
        remedy = "repair the files, then run again with --retry-failed"
        tell(f"left out: {counted(len(card.failures), 'unreadable sample')}, listed in task.json; {remedy}")
