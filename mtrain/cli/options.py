"""Options that commands of `mtrain` share, and the run that they name."""

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

CHECKS = "MTRAIN_CHECK_IMAGES"  # as mtrain.data.images reads it, which loads numpy
FOLDER = click.Path(path_type=Path, file_okay=False)
OUT = click.Path(path_type=Path, dir_okay=False)
RUNS = click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs.")
SWEEPS = click.option("--sweeps", type=FOLDER, default=Path("sweeps"), show_default=True, help="Folder of the sweeps.")
EVALUATIONS = click.option("--evaluations", type=FOLDER, default=Path("evaluations"), show_default=True,
    help="Folder of the scores on test sets.",
)  # fmt: skip
SOLVER = click.option("--solver", type=click.Choice(["batched", "sklearn"]), default="batched", show_default=True,
    help="Of the SVM: all C, folds and classes at once, or scikit-learn's LinearSVC.",
)  # fmt: skip
WEIGHTS_KEY = click.option("--weights-key", metavar="NAME",
    help="Part of a weights file that holds more than one network, like teacher.",
)  # fmt: skip
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
WORKERS = click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Loader processes.")


def _set(variable: str) -> Callable[..., None]:
    """An option's callback: processes that are started see the choice too."""

    def put(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            os.environ[variable] = value

    return put


def _switch(variable: str) -> Callable[..., None]:
    """As `_set`, of an option that is on or off."""

    def put(_context: click.Context, _option: click.Parameter, value: bool | None) -> None:
        if value is not None:
            os.environ[variable] = str(int(value))

    return put


CACHE = together(
    click.option("--cache", metavar="FOLDER", expose_value=False, callback=_set("MTRAIN_CACHE"),
        help="For copies of remote shards.  [default: $MTRAIN_CACHE, or the user's cache]"),
    click.option("--cache-size", metavar="SIZE", expose_value=False, callback=_set("MTRAIN_CACHE_SIZE"),
        help="Most that they may take, like 500GB.  [default: 4/5 of what is free]"),
)  # fmt: skip

CHECK = click.option("--check-images/--no-check-images", expose_value=False, default=None, callback=_switch(CHECKS),
    help="Compare images with their sha256 when they are read first.  [default: check-images]",
)  # fmt: skip


TUNING = together(
    click.option("--epochs", type=click.IntRange(1), default=100, show_default=True,
        help="Fine-tuning: at each rate."),
    click.option("--lr", "rates", type=float, multiple=True,
        help="Fine-tuning: a learning rate to try; repeat it.  [default: 1e-3, 1e-4, 1e-5, 1e-6]"),
    click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Fine-tuning: batch size."),
    click.option("--early-stop", type=click.IntRange(0), default=0, show_default=True,
        help="Fine-tuning: epochs without a better one after which a rate ends; 0 for never."),
)  # fmt: skip


def _as_toml(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any] | None:
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


BACKBONE_OPTION = click.option("--backbone-option", "backbone_options", multiple=True, metavar="KEY=VALUE",
    callback=_as_toml, help="Of timm's constructor, for timm:NAME; may be repeated.",
)  # fmt: skip


def training(*, backbone: str, lr: str, tau: str) -> Decorator:
    """How a network is trained; the three helps say where the network and its rates come from when not given."""
    return together(
        click.option("--backbone", help=backbone),
        BACKBONE_OPTION,
        click.option("--weights", help="imagenet, random, a file or its folder.  [default: imagenet]"),
        WEIGHTS_KEY,
        click.option("--iterations", type=int, help="[default: 50000]"),
        click.option("--warmup", type=int, help="First iterations that train the heads alone.  [default: a tenth]"),
        click.option("--lr", type=float, help=lr),
        click.option("--tau", type=float, help=tau),
        click.option("--batch", type=int, help="[default: 64]"),
        click.option("--size", type=int, help="Side of the network's input, px.  [default: 224]"),
        click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]"),
        click.option("--workers", type=int, help="Loader processes.  [default: 2]"),
    )


def _more(*names: str, **how: Any) -> Decorator:
    return click.option(*names, hidden=True, **how)


def _weights_by_task(
    _context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, float] | None:
    """NAME=NUMBER, repeated."""
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, like Lung=2", param=option)
    return found or None


MORE_OF_FIT = together(
    _more("--warmup-lr", type=float, help="[default: 1e-3]"),
    _more("--momentum", type=float, help="[default: 0.9]"),
    _more("--weight-decay", type=float, help="[default: 0]"),
    _more("--adapt-batches", type=int, help="For batch-normalization adaptation.  [default: 20]"),
    _more("--accumulate", type=int, help="Parts that a process goes through its share of a batch in.  [default: 1]"),
    _more("--sync-batchnorm/--no-sync-batchnorm", default=None, help="Statistics of the batch, not of a process'."),
    _more("--compile/--no-compile", default=None, help="Use torch.compile where it works."),
    _more("--stream/--no-stream", default=None, help="Read shards from end to end: for pools larger than the disk."),
    _more("--skip-corrupt", type=int, help="Pictures that may be unreadable; others stand for them.  [default: 0]"),
    _more("--checkpoint-every", type=int, help="Iterations.  [default: a tenth, at most 1000]"),
    _more("--log-every", type=int, help="Iterations.  [default: a twentieth, at most 50]"),
    _more("--tune", metavar="WHAT", help="all, heads, norms, bias, last:N or lora:R[:ALPHA].  [default: all]"),
    _more("--layer-decay", type=float, metavar="D", help="Factor on the rate from a block to the one before."),
    _more("--checkpointing/--no-checkpointing", default=None, help="Compute blocks again to save memory."),
    _more("--optimizer", type=click.Choice(["sgd", "adamw"]), help="[default: sgd]"),
    _more("--schedule", type=click.Choice(["constant", "cosine"]), help="After the warm-up.  [default: constant]"),
    _more("--ema", type=float, metavar="DECAY", help="Average the weights, like 0.999.  [default: 0, not]"),
    _more("--label-smoothing", type=float, help="[default: 0]"),
    _more("--temperature", type=float, help="Draw tasks in proportion to size ^ (1 / T).  [default: all alike]"),
    _more("--task-weight", "task_weights", multiple=True, metavar="NAME=W", callback=_weights_by_task,
        help="Factor on a task's chance; may be repeated."),
    _more("--class-balanced/--no-class-balanced", default=None, help="Draw every class of a task alike."),
    _more("--rotations/--no-rotations", default=None, help="Quarter turns beside the flips."),
    _more("--stain-jitter", type=float, metavar="S", help="Change the stains' densities by up to S.  [default: 0]"),
    _more("--colour-jitter", type=float, metavar="S", help="Change brightness, contrast, hue ...  [default: 0]"),
    _more("--batchnorm", type=click.Choice(["adapted", "train", "frozen", "per-task"]), help="[default: adapted]"),
)  # fmt: skip


def reporter(quiet: bool) -> Reporter:
    """Where progress goes."""
    from dpconvert.runtime.progress import Reporter

    return Reporter(quiet=quiet)


UNTRAINED = together(
    click.option("--backbone", metavar="NETWORK", help="Instead of a run, a network as it is."),
    BACKBONE_OPTION,
    click.option("--size", type=click.IntRange(16), metavar="PX", help="Of its input.  [default: as it was trained]"),
)


def network_of(
    runs: Path, name: str | None, weights: str, backbone: str | None, backbone_options: dict[str, Any] | None,
    size: int | None,
) -> Run:  # fmt: skip
    """The run of that name, else the newest; or the network that is named in its place.

    Raises:
        UsageError: both are named, or weights that the network does not have.
    """
    from mtrain.errors import UsageError

    if backbone is None:
        if backbone_options or size is not None:
            raise UsageError("--size and --backbone-option are for --backbone; a run has its own")
        return run_of(runs, name)
    if name is not None:
        raise UsageError("a run or a network?", remedy="give either --run or --backbone")
    from mtrain.settings import untrained

    given = {"backbone": backbone, "backbone_options": backbone_options, "size": size}
    given |= {"weights": None if weights == "run" else weights}
    return untrained(runs, {key: value for key, value in given.items() if value is not None})


def run_of(runs: Path, name: str | None) -> Run:
    """The run of that name, else the newest."""
    from mtrain.runs import newest_run, open_run

    return open_run(runs, name) if name else newest_run(runs)
