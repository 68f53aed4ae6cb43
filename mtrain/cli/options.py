"""Options that several commands of `mtrain` share, and the run that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import QUIET, FolderPath, say, together

if TYPE_CHECKING:
    from dpconvert.runtime.progress import Reporter
    from mtrain.runs.run_folder import Run

# options of the commands that score, which only --help-all explains
RARELY = (
    "cache",
    "cache_size",
    "check_images",
    "sweeps",
    "evaluations",
    "solver",
    "epochs",
    "rates",
    "batch",
    "early_stop",
    "tune",
    "layer_decay",
    "steps",
    "seed",
    "dtype",
    "weights_key",
    "backbone_options",
    "size",
)
CHECKS = "MTRAIN_CHECK_IMAGES"  # read by mtrain.data.batches.images, not imported here because it imports numpy
FOLDER = FolderPath(path_type=Path, file_okay=False)
OUT = click.Path(path_type=Path, dir_okay=False)
RUNS = click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs.")
SWEEPS = click.option("--sweeps", type=FOLDER, default=Path("sweeps"), show_default=True, help="Folder of all sweeps.")
EVALUATIONS = click.option(
    "--evaluations",
    type=FOLDER,
    default=Path("evaluations"),
    show_default=True,
    help="Folder of all scores on test sets.",
)
SOLVER = click.option(
    "--solver",
    type=click.Choice(["batched", "sklearn"]),
    default="batched",
    show_default=True,
    help="SVM solver: ours, for all C, folds and classes at once, or scikit-learn's LinearSVC.",
)
STEPS = click.option("--steps", type=WholeRange(1), default=2000, show_default=True, help="Steps of --mode dense.")
WEIGHTS = click.option(
    "--weights",
    metavar="NAME|FILE",
    default="run",
    show_default=True,
    help="run, imagenet, random, or a file.",
)
TASKS = click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK",
    help="Task or folder; may be repeated.  [default: all left out]",
)
WEIGHTS_KEY = click.option(
    "--weights-key",
    metavar="NAME",
    help="Network to load from a weights file that holds several, such as teacher.",
)
DEVICE = click.option(
    "--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
WORKERS = click.option("--workers", type=WholeRange(0), default=2, show_default=True, help="Data loader processes.")


def _set(variable: str) -> Callable[..., None]:
    """An option's callback that sets an environment variable, which worker processes inherit."""

    def put(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            os.environ[variable] = value

    return put


def _switch(variable: str) -> Callable[..., None]:
    """Like `_set`, for an option that is on or off."""

    def put(_context: click.Context, _option: click.Parameter, value: bool | None) -> None:
        if value is not None:
            os.environ[variable] = str(int(value))

    return put


OPEN_LICENCES = "all licences let everyone share these weights"

CACHE = together(
    click.option(
        "--cache",
        metavar="DIR",
        expose_value=False,
        callback=_set("MTRAIN_CACHE"),
        help="Cache for remote shards.  [default: $MTRAIN_CACHE, else the user's cache]",
    ),
    click.option(
        "--cache-size",
        metavar="SIZE",
        expose_value=False,
        callback=_set("MTRAIN_CACHE_SIZE"),
        help="Maximum size of the cache, such as 500GB.  [default: 4/5 of the free space]",
    ),
)

CHECK = click.option(
    "--check-images/--no-check-images",
    expose_value=False,
    default=None,
    callback=_switch(CHECKS),
    help="Verify each image's sha256 when it is first read.  [default: check-images]",
)


BATCH = click.option("--batch", type=WholeRange(2), default=64, show_default=True, help="Fine-tuning: batch size.")
TUNING = together(
    click.option(
        "--epochs",
        type=WholeRange(1),
        default=100,
        show_default=True,
        help="Fine-tuning: epochs at each learning rate.",
    ),
    click.option(
        "--lr",
        "rates",
        type=float,
        multiple=True,
        metavar="X",
        help="Fine-tuning: learning rate to try; may be repeated.  [default: 1e-3, 1e-4, 1e-5, 1e-6; dense: 1e-4]",
    ),
    BATCH,
    click.option(
        "--early-stop",
        type=WholeRange(0),
        default=0,
        show_default=True,
        help="Fine-tuning: stop a rate after this many epochs without improvement; 0: never.",
    ),
    click.option(
        "--tune",
        metavar="WHAT",
        help="Fine-tuning: what to train of the network: all, heads (nothing), norms, bias, last:N or lora:R[:ALPHA].  "
        "[default: all; dense: heads]",
    ),
    click.option(
        "--layer-decay",
        type=float,
        metavar="D",
        help="Fine-tuning: factor on the learning rate from each block to the one before.",
    ),
)


def key_values(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any] | None:
    """KEY=VALUE, repeated; values as TOML has them, words as they are."""
    import tomllib

    found = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, like init_values=1e-5", param=option)
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found or None


BACKBONE_OPTION = click.option(
    "--backbone-option",
    "backbone_options",
    multiple=True,
    metavar="KEY=VALUE",
    callback=key_values,
    help="Option of timm's constructor, for timm:NAME; may be repeated.",
)


def reporter(quiet: bool, *, notes: bool = False) -> Reporter:
    """Progress bars and notes on stderr; silent if `quiet`, but for notes with `notes`."""
    from dpconvert.runtime.progress import Reporter

    return Reporter(quiet=quiet, notes=notes)


UNTRAINED = together(
    click.option("--backbone", metavar="NETWORK", help="Use this network instead of a run."),
    BACKBONE_OPTION,
    click.option("--size", type=WholeRange(16), metavar="PX", help="Side of its input.  [default: its own]"),
)


FEATURES_OF = together(
    RUNS,
    QUIET,
    click.option("--run", "name", metavar="NAME", help="Run to use.  [default: the newest]"),
    UNTRAINED,
    click.option(
        "--weights", metavar="NAME|FILE", default="run", show_default=True, help="run, imagenet, random, or a file."
    ),
    WEIGHTS_KEY,
    click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: the run's]"),
    CACHE,
    CHECK,
)  # whose frozen features a command uses, and where the tasks are


def end(failures: Sequence[str]) -> None:
    """Report what failed; the exit status is 1 if anything did."""
    for failure in failures:
        say(f"mtrain: error: {failure}", bold=True)
    if failures:
        sys.exit(1)


def network_of(
    runs: Path,
    name: str | None,
    weights: str,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
) -> Run:
    """The run of that name, else the newest that is not a release; or the network that is named in its place.

    Raises:
        UsageError: both are named, or weights that the network does not have.
    """
    from mtrain.errors import UsageError

    if backbone is None:
        if backbone_options or size is not None:
            raise UsageError("--size and --backbone-option are for --backbone; a run has its own")
        return run_of(runs, name, to_score=True)
    if name is not None:
        raise UsageError("--run and --backbone cannot be combined", remedy="give one of them")
    from mtrain.settings import untrained

    given = {"backbone": backbone, "backbone_options": backbone_options, "size": size}
    given |= {"weights": None if weights == "run" else weights}
    return untrained(runs, {key: value for key, value in given.items() if value is not None})


def run_of(runs: Path, name: str | None, *, to_score: bool = False) -> Run:
    """The run of that name; without a name, the newest one, or the newest that is not a release if it is `to_score`."""
    from mtrain.runs.run_names import newest_run, open_run

    return open_run(runs, name) if name else newest_run(runs, to_score=to_score)
