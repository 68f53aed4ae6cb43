"""The commands that train networks, `fit` and `release`; and `runs`, which lists what was trained."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.errors import UserError
from dpconvert.runtime.terminal import INTERRUPTED, JSON, QUIET, Detailed, answer, say
from mtrain.cli.options import CACHE, CHECK, EVALUATIONS, FOLDER, MORE_OF_FIT, RUNS, SWEEPS, reporter, training

if TYPE_CHECKING:
    from mtrain.runs import Run


@click.command(
    cls=Detailed,
    rarely=(
        "cache",
        "cache_size",
        "check_images",
        "warmup",
        "joint",
        "validate_every",
        "weights_key",
        "backbone_options",
    ),
)
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Name of the run; one that exists goes on.  [default: a new one]")
@click.option("--shards", type=FOLDER, help="Folder of the tasks, or s3://, gs://, https://.  [default: shards]")
@CACHE
@CHECK
@click.option("--leave-out", multiple=True, metavar="TASK", help="Task to leave out, with those related to it.")
@click.option("--train-on", type=click.Choice(["train+val", "train"]), metavar="SETS",
    help="Sets of each task to train on: train+val, or train.",
)  # fmt: skip
@click.option("--joint", multiple=True, metavar="TASK",
    help="A target of --mode joint: only its training set is trained on.",
)  # fmt: skip
@training(
    backbone="Of `mtrain backbones`, torchvision, timm:NAME, or a path.  [default: mtdp_densenet121]",
    lr="Learning rate of the shared network.  [default: 1e-4]",
    tau="The heads learn at lr x tau.  [default: 5]",
)
@click.option("--seed", type=int, help="[default: 0]")
@click.option(
    "--validate-every",
    type=int,
    help="Iterations, on val sets that are not trained on; 0 for never.  [default: a tenth, 100 at least]",
)
@JSON
@MORE_OF_FIT
def fit(runs: Path, quiet: bool, name: str | None, as_json: bool, **given: Any) -> None:
    """Train one shared network with a head for each task; defaults are the paper's.

    \b
    Example: mtrain fit --shards shards/ --leave-out Lung
    On two GPUs: torchrun --nproc-per-node 2 -m -- mtrain fit --leave-out Lung
    """
    from mtrain.runs import named_run, new_name
    from mtrain.settings import check_names, fit_config

    settings = {key: value for key, value in given.items() if value not in (None, ())}
    if os.environ.get("WORLD_SIZE", "1") == "1":  # a mistake is reported before torch is imported, which takes seconds
        there = named_run(runs, name) if name else None
        check_names(fit_config(there, settings), resumed=there is not None and there.exists)
    from mtrain.train.distributed import joined

    with joined() as ranks:  # of several processes, one reports a mistake
        there = named_run(runs, name) if name else None
        config = fit_config(there, settings)
        run = there or named_run(runs, ranks.told(lambda: new_name(runs, config)))
        from mtrain.train.fit import fit as train

        state = train(config, run, reporter(quiet or not ranks.first), ranks)
    lines = [f"{run.name}: finished -> {run.path}"] if state == "finished" else []
    if ranks.first:
        answer(lines, _row(run) | {"folder": str(run.path)}, as_json=as_json)
    if state == "stopped":
        if ranks.first:
            again = shlex.join([*ranks.command("mtrain"), "fit", "--runs", str(runs), "--run", run.name])
            say(f"mtrain: stopped with a checkpoint; go on with: {again}")
        sys.exit(INTERRUPTED)


@click.command(
    cls=Detailed,
    rarely=(
        "warmup",
        "tau",
        "batch",
        "size",
        "device",
        "workers",
        "check_images",
        "sweeps",
        "evaluations",
        "weights_key",
        "backbone_options",
    ),
)
@RUNS
@SWEEPS
@QUIET
@click.option("--sweep", metavar="NAME", help="With what `mtrain select` chose in it over all tasks, of each network.")
@click.option("--shards", type=FOLDER, help="[default: shards, or those of the sweep]")
@training(
    backbone="[default: mtdp_densenet121, or those of the sweep]",
    lr="[default: the paper's: 1e-4 for DenseNet121, 1e-3 for resnet50]",
    tau="[default: the paper's: 5 for DenseNet121, 1 for resnet50]",
)
@CHECK
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="Repeat it for several.  [default: 0]")
@EVALUATIONS
@click.option("--out", type=FOLDER, default=Path("release"), show_default=True, help="A folder in it a network.")
@click.option("--accept-licence", "accepted", is_flag=True, help="You may pass on what was made of the data.")
@JSON
def release(
    runs: Path, sweeps: Path, quiet: bool, sweep: str | None, shards: Path | None, seeds: tuple[int, ...],
    evaluations: Path, out: Path, accepted: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train on all data, test sets included, with settings that were chosen before; write weights and model card.

    The last step: no task of these shards can evaluate such a network.

    \b
    Example: mtrain release --sweep paper --seed 0 --seed 1
    """
    from mtrain.data.storage import absolute
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, sweep) if sweep else None
    from mtrain.export.release import Asked, sweep_shards
    from mtrain.export.release import release as make

    place = absolute(shards or (sweep_shards(store) if store else "shards"))
    given = {name: value for name, value in settings.items() if value is not None}
    asked = Asked(place, given, seeds or (0,), runs, out, store, evaluations, accepted)
    state, made = make(asked, reporter(quiet or as_json))
    found = [{"folder": str(one.folder), "files": one.files} for one in made]
    answer([str(one.folder) for one in made], found, as_json=as_json)
    if state == "stopped":
        say("mtrain: stopped with a checkpoint; the same command goes on")
        sys.exit(INTERRUPTED)


@click.command("runs")
@RUNS
@JSON
def list_runs(runs: Path, as_json: bool) -> None:
    """The runs and their state.

    \b
    Example: mtrain runs
    """
    from mtrain.runs import all_runs

    rows = [_row(run) for run in all_runs(runs)]
    lines = [
        f"{row['run']}: {row['state']}, {row['iteration']} of {row['of']}, "
        f"left out: {', '.join(row['left_out']) or 'nothing'}"
        for row in rows
    ]
    answer(lines or [f"no run in {runs}"], rows, as_json=as_json)


def _row(run: Run) -> dict[str, Any]:
    """What is told of a run; a damaged one does not hide the others."""
    state, iteration = run.state()
    row = {"run": run.name, "state": state, "iteration": iteration}
    try:
        return row | {"of": run.config().iterations, "left_out": run.left_out()}
    except UserError as error:
        return row | {"state": f"damaged ({error})", "of": "?", "left_out": []}
