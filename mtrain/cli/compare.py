"""The command that puts networks side by side: `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.errors import UserError
from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import BATCH, CACHE, CHECK, DEVICE, FOLDER, OUT, RUNS, SOLVER, STEPS, WORKERS, end, reporter
from mtrain.cli.robustness import COLUMN
from mtrain.cli.unused_options import note_unused

if TYPE_CHECKING:
    from mtrain.runs.run_folder import Run
    from mtrain.transfers.dense.dense_tuned import Moving

MODES = ["svm", "logistic", "knn", "eva", "dense"]
RARELY = (
    "paper",
    "cache",
    "cache_size",
    "check_images",
    "solver",
    "steps",
    "batch",
    "tune",
    "rates",
    "layer_decay",
    "size",
    "pattern",
    "table",
    "k",
)


CHOOSE = "choose one with --weights-key"


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NETWORK[=FILE[#KEY]]",
    help="A network as it is, with the file or folder of its weights, and the part of a file with several; may be "
    "repeated.",
)
@click.option("--run", "names", multiple=True, metavar="NAME", help="The network of a run; may be repeated.")
@click.option(
    "--target", "targets", multiple=True, metavar="TASK", required=True, help="Task or its folder; may be repeated."
)
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: that of the first --run, or shards]")
@CACHE
@CHECK
@click.option("--mode", type=click.Choice(MODES), default="svm", show_default=True, help="How to transfer.")
@click.option(
    "--size",
    type=WholeRange(16),
    metavar="PX",
    help="Input size of all --backbone.  [default: as each was trained]",
)
@SOLVER
@STEPS
@BATCH
@click.option(
    "--tune",
    metavar="WHAT",
    help="With --mode dense: what to train of each network, as in `mtrain transfer`.  [default: heads, nothing]",
)
@click.option(
    "--lr", "rates", type=float, multiple=True, metavar="X", help="Rate of the network with --tune.  [default: 1e-4]"
)
@click.option("--layer-decay", type=float, metavar="D", help="Factor on that rate from each block to the one before.")
@click.option("--by", metavar="NAME", help="Also measure robustness to this column, such as centre.")
@COLUMN
@click.option("--paper", is_flag=True, help="Show the scores that kaiko-eva published, with --mode eva.")
@DEVICE
@WORKERS
@click.option("--out", type=OUT, default=Path("comparison.html"), show_default=True, help="The page.")
@JSON
def compare(
    runs: Path,
    quiet: bool,
    backbones: tuple[str, ...],
    names: tuple[str, ...],
    targets: tuple[str, ...],
    shards: Path | None,
    mode: str,
    size: int | None,
    solver: str,
    steps: int,
    batch: int,
    tune: str | None,
    rates: tuple[float, ...],
    layer_decay: float | None,
    by: str | None,
    pattern: str | None,
    table: Path | None,
    k: int | None,
    paper: bool,
    device: str,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Score several networks on the same tasks: one table, with ranks, time and memory.

    Differences are to the first network, --backbone before --run, with intervals on the same patients.

    \b
    Example: mtrain compare --backbone uni=FILE --run RUN --target Lung
    """
    from mtrain.errors import UsageError
    from mtrain.transfers.request import OWN, places, unread, weights_of
    from mtrain.transfers.request import targets as find

    networks = list(named_networks(runs, backbones, names, size))
    if len(networks) < 2:
        raise UsageError("nothing to compare", remedy="name two networks or more with --backbone and --run")
    tasks = find(networks[len(backbones) if names else 0][1], shards, targets)
    weights = [weights_of(run, OWN, mode) for _, run in networks]
    from mtrain.cli import transfer_work
    from mtrain.data.sample_columns import ColumnRequest
    from mtrain.disk.atomic import check_folder
    from mtrain.evaluation.comparing.comparison import ComparedNetwork, beside_published
    from mtrain.evaluation.comparing.comparison import compare as put_side_by_side
    from mtrain.report.pages.comparison_page import lines, write_page
    from mtrain.transfers.dense.dense_tuned import Moving
    from mtrain.transfers.finetune_rate import Recipe
    from mtrain.transfers.transfer import TransferOptions

    report = reporter(quiet or as_json)
    of_runs = {} if backbones else {"size": "a run has its own"}
    note_unused(report, unread([mode]) | of_runs | places(targets) | transfer_work.unmoved([mode], tune))
    transfer_work.recipe(1, rates, batch, 0, 0, device, tune, layer_decay)  # checks them
    moving = transfer_work.moving(rates, tune, layer_decay) if mode == "dense" else Moving()
    options = TransferOptions(mode, False, solver, workers, Recipe(batch=batch, device=device), steps, moving)
    entries = [ComparedNetwork(name, run, of) for (name, run), of in zip(networks, weights, strict=True)]
    column = None if by is None else ColumnRequest(by, pattern, table)
    if column is None:
        note_unused(report, dict.fromkeys(("pattern", "table", "k"), "no --by is given"))
    check_folder(out.parent)
    with _keys_of_files():
        content, failures = put_side_by_side(entries, tasks, options, report, column, k)
    content["notes"] += [*_repeated(networks), *_tuned(moving)]
    content |= {"tune": moving.tune} if mode == "dense" else {}
    if paper:
        beside_published(content, report)
    page = write_page(content, out)
    answer([*lines(content), str(page)], content | {"page": str(page)}, as_json=as_json)
    end(failures)


@contextmanager
def _keys_of_files() -> Iterator[None]:
    """Say how this command names the part of a file, which others do with --weights-key."""
    try:
        yield
    except UserError as error:
        if error.remedy is not None and CHOOSE in error.remedy:
            error.remedy = f"choose one with --backbone NETWORK=FILE#KEY, like #{error.remedy.rpartition(' ')[2]}"
        raise


def _tuned(moving: Moving) -> Iterator[str]:
    """A note on what is trained of the networks, if anything."""
    if given := moving.determining():
        decay = f", layer decay {moving.layer_decay:g}" if "layer_decay" in given else ""
        yield f"the networks are trained with their decoders: --tune {moving.tune} --lr {moving.lr:g}{decay}"


def _repeated(networks: Sequence[tuple[str, Run]]) -> Iterator[str]:
    """A note on each network that is a run, or has weights, named before."""
    from mtrain.runs.untrained import Start

    seen: dict[tuple[Path | str | None, ...], str] = {}
    for name, run in networks:
        given = run.config()
        one = (run.path.resolve(), *((given.weights, given.weights_key) if isinstance(run, Start) else ()))
        if seen.setdefault(one, name) != name:
            yield f"{name} is the same network as {seen[one]}, named again"


def _told_apart(path: str, others: Sequence[str]) -> str:
    """The last parts of a path by which it differs from the others; its name, if that is enough."""
    parts = Path(path).parts
    different = [Path(other).parts for other in others if Path(other).parts != parts]
    shared = range(1, len(parts))
    number = next((n for n in shared if all(other[-n:] != parts[-n:] for other in different)), len(parts))
    return str(Path(*parts[-number:]))


def named_networks(
    runs: Path, backbones: Sequence[str], names: Sequence[str], size: int | None
) -> Iterator[tuple[str, Run]]:
    """What to call each network, and where it is; two with the same name are distinguished by their weights."""
    from mtrain.runs.run_names import open_run
    from mtrain.settings import untrained

    seen: dict[str, int] = {}

    def distinct(name: str) -> str:
        seen[name] = seen.get(name, 0) + 1
        return name if seen[name] == 1 else f"{name} ({seen[name]})"

    for text in backbones:
        backbone, _, weights = text.partition("=")
        file, _, part = (weights, "", "") if Path(weights).exists() else weights.partition("#")
        given: dict[str, Any] = {"backbone": backbone, "weights": file or None, "size": size}
        given |= {"weights_key": part or None}
        start = untrained(runs, {key: value for key, value in given.items() if value is not None})
        others = [other.partition("=")[2] for other in backbones if other.partition("=")[0] == backbone]
        shown = f"{start.name}={_told_apart(weights, others)}" if len(others) > 1 and weights else start.name
        yield distinct(shown), start
    for name in names:
        run = open_run(runs, name)
        yield distinct(run.name), run
