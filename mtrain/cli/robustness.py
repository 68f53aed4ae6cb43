"""The command that measures whether features follow the class or the origin of samples: `robustness`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, Detailed, answer, together
from mtrain.cli.options import DEVICE, FEATURES_OF, WORKERS, end, network_of, reporter
from mtrain.cli.unused_options import note_unused

PATTERN = click.option("--pattern", metavar="REGEX", help="Take the column from group ids or keys: (?P<NAME>...).")
TABLE = click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Take the column from a table (CSV, Excel) with a column key or group.",
)
NEIGHBOURS = click.option(
    "--k", type=WholeRange(1, 600), help="Number of neighbours.  [default: the one that classifies best]"
)
COLUMN = together(PATTERN, TABLE, NEIGHBOURS)


@click.command(cls=Detailed, rarely=("cache", "cache_size", "check_images", "weights_key", "backbone_options", "size"))
@click.option(
    "--by",
    default="centre",
    show_default=True,
    metavar="NAME",
    help="Column of the samples: centre, scanner, stain.",
)
@COLUMN
@FEATURES_OF
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="TASK",
    help="Task or folder; may be repeated.  [default: all left out]",
)
@DEVICE
@WORKERS
@JSON
def robustness(
    runs: Path,
    quiet: bool,
    by: str,
    pattern: str | None,
    table: Path | None,
    k: int | None,
    name: str | None,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
    weights: str,
    weights_key: str | None,
    shards: Path | None,
    names: tuple[str, ...],
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Measure whether neighbours among frozen features share the class or the centre: PathoROB's robustness index.

    1: only the class matters; 0: only the centre. Also prints the accuracy of nearest neighbours by centre. Uses the
    training and the validation set.

    \b
    Example: mtrain robustness --target Lung --by centre
    """
    from mtrain.data.sample_columns import ColumnRequest
    from mtrain.transfers.request import places, targets, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    tasks, weights = targets(run, shards, names), weights_of(run, weights, key=weights_key)
    from mtrain.cli.transfer_work import each
    from mtrain.evaluation.robustness_run import robustness_of
    from mtrain.transfers.transfer import source_of

    source, report = source_of(run, weights, key=weights_key), reporter(quiet or as_json)
    note_unused(report, places(names))
    column = ColumnRequest(by, pattern, table)
    results, failures = each(tasks, lambda task: [robustness_of(source, task, column, k, workers, device, report)])
    answer([line for one in results for line in _lines(one)], results, as_json=as_json)
    end(failures)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """The index, then a line for each centre, then the notes."""
    interval = "" if result["interval"] is None else " [{:.4f}, {:.4f}]".format(*result["interval"])
    index = "not defined: no neighbour counts" if result["index"] is None else f"{result['index']:.4f}{interval}"
    chance = "" if result["chance"] is None else f", {result['chance']:.4f} by chance"
    yield f"{result['task']}: robustness index {index} by {result['by']} (k = {result['k']}{chance})"
    for one in result["centres"]:
        yield (
            f"  {one['centre']}: accuracy {one['accuracy']:.4f}, without neighbours of the same "
            f"{result['by']} {one['accuracy_without']:.4f} ({one['samples']} samples)"
        )
    yield from (f"note: {note}" for note in result["notes"])
