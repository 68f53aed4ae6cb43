"""Options that several commands of `mtrain` share, and the run that they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.runtime.terminal import Decorator, together

if TYPE_CHECKING:
    from dpconvert.runtime.progress import Reporter
    from mtrain.runs import Run

CHECKS = "MTRAIN_CHECK_IMAGES"  # read by mtrain.data.images, which is not imported here because it imports numpy
FOLDER = click.Path(path_type=Path, file_okay=False)
OUT = click.Path(path_type=Path, dir_okay=False)
RUNS = click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs.")
SWEEPS = click.option("--sweeps", type=FOLDER, default=Path("sweeps"), show_default=True, help="Folder of all sweeps.")
EVALUATIONS = click.option("--evaluations", type=FOLDER, default=Path("evaluations"), show_default=True,
    help="Folder of all scores on test sets.",
)  # fmt: skip
SOLVER = click.option("--solver", type=click.Choice(["batched", "sklearn"]), default="batched", show_default=True,
    help="SVM solver: ours, for all C, folds and classes at once, or scikit-learn's LinearSVC.",
)  # fmt: skip
WEIGHTS_KEY = click.option("--weights-key", metavar="NAME",
    help="Network to load from a weights file that holds several, such as teacher.",
)  # fmt: skip
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
WORKERS = click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Data loader processes.")


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


CACHE = together(
    click.option("--cache", metavar="FOLDER", expose_value=False, callback=_set("MTRAIN_CACHE"),
        help="Cache for remote shards.  [default: $MTRAIN_CACHE, else the user's cache]"),
    click.option("--cache-size", metavar="SIZE", expose_value=False, callback=_set("MTRAIN_CACHE_SIZE"),
        help="Maximum size of the cache, such as 500GB.  [default: 4/5 of the free space]"),
)  # fmt: skip

CHECK = click.option("--check-images/--no-check-images", expose_value=False, default=None, callback=_switch(CHECKS),
    help="Verify each image's sha256 when it is first read.  [default: check-images]",
)  # fmt: skip


TUNING = together(
    click.option("--epochs", type=click.IntRange(1), default=100, show_default=True,
        help="Fine-tuning: epochs at each learning rate."),
    click.option("--lr", "rates", type=float, multiple=True,
        help="Fine-tuning: learning rate to try; may be repeated.  [default: 1e-3, 1e-4, 1e-5, 1e-6]"),
    click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Fine-tuning: batch size."),
    click.option("--early-stop", type=click.IntRange(0), default=0, show_default=True,
        help="Fine-tuning: stop a rate after this many epochs without improvement; 0: never."),
)  # fmt: skip


def training(*, backbone: str, lr: str, tau: str) -> Decorator:
    """Options of a training. The three arguments are help texts, whose defaults differ between commands."""
    return together(
        click.option("--backbone", help=backbone),
        click.option("--weights", help="imagenet, random, or a file.  [default: imagenet]"),
        WEIGHTS_KEY,
        click.option("--iterations", type=int, help="Number of training iterations.  [default: 50000]"),
        click.option(
            "--warmup", type=int, help="Number of first iterations that train only the heads.  [default: a tenth]"
        ),
        click.option("--lr", type=float, help=lr),
        click.option("--tau", type=float, help=tau),
        click.option("--batch", type=int, help="Batch size, over all processes.  [default: 64]"),
        click.option("--size", type=int, help="Side of the input images, in pixels.  [default: 224]"),
        click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]"),
        click.option("--workers", type=int, help="Data loader processes.  [default: 2]"),
    )


def _more(*names: str, **how: Any) -> Decorator:
    return click.option(*names, hidden=True, **how)


def _weights_by_task(
    _context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, float] | None:
    """Parse repeated NAME=NUMBER; None without any."""
    weights = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as Lung=2", param=option)
    return weights or None


MORE_OF_FIT = together(
    _more("--warmup-lr", type=float, help="Learning rate of the heads during the warm-up.  [default: 1e-3]"),
    _more("--momentum", type=float, help="Momentum of SGD.  [default: 0.9]"),
    _more("--weight-decay", type=float, help="Weight decay.  [default: 0]"),
    _more("--adapt-batches", type=int, help="Batches that adapt batch normalization to the pool.  [default: 20]"),
    _more("--accumulate", type=int, help="Number of micro-batches per process (gradient accumulation).  [default: 1]"),
    _more("--sync-batchnorm/--no-sync-batchnorm", default=None, help="Batch-normalization statistics across ranks."),
    _more("--compile/--no-compile", default=None, help="Use torch.compile if it works here."),
    _more("--stream/--no-stream", default=None, help="Read shards sequentially, for pools larger than the disk."),
    _more("--skip-corrupt", type=int, help="Maximum number of unreadable images to skip and replace.  [default: 0]"),
    _more("--checkpoint-every", type=int, help="Iterations between checkpoints.  [default: a tenth, at most 1000]"),
    _more("--log-every", type=int, help="Iterations between log entries.  [default: a twentieth, at most 50]"),
    _more("--optimizer", type=click.Choice(["sgd", "adamw"]), help="Optimizer.  [default: sgd]"),
    _more("--schedule", type=click.Choice(["constant", "cosine"]), help="Learning-rate schedule.  [default: constant]"),
    _more("--ema", type=float, metavar="DECAY", help="Average weights with this decay, like 0.999.  [default: off]"),
    _more("--label-smoothing", type=float, help="Label smoothing.  [default: 0]"),
    _more("--temperature", type=float, help="Sample tasks in proportion to size ^ (1 / T).  [default: all equally]"),
    _more("--task-weight", "task_weights", multiple=True, metavar="NAME=W", callback=_weights_by_task,
        help="Factor on a task's sampling probability; may be repeated."),
    _more("--class-balanced/--no-class-balanced", default=None, help="Sample the classes of a task equally."),
    _more("--rotations/--no-rotations", default=None, help="Add quarter turns to the flips."),
    _more("--stain-jitter", type=float, metavar="S", help="Strength of stain jitter, 0 to 1.  [default: 0]"),
    _more("--colour-jitter", type=float, metavar="S", help="Strength of colour jitter, 0 to 1.  [default: 0]"),
    _more("--batchnorm", type=click.Choice(["adapted", "train", "frozen", "per-task"]),
        help="Batch-normalization statistics.  [default: adapted]"),
)  # fmt: skip


def reporter(quiet: bool) -> Reporter:
    """Progress bars and notes on stderr; silent if `quiet`."""
    from dpconvert.runtime.progress import Reporter

    return Reporter(quiet=quiet)


def run_of(runs: Path, name: str | None) -> Run:
    """The run of that name; without a name, the newest one."""
    from mtrain.runs import newest_run, open_run

    return open_run(runs, name) if name else newest_run(runs)
