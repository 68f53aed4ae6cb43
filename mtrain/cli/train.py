"""The commands that train networks, `fit` and `release`; and `runs`, which lists the runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.errors import UserError
from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import INTERRUPTED, JSON, QUIET, answer, say
from mtrain.cli.options import CACHE, CHECK, EVALUATIONS, FOLDER, OPEN_LICENCES, RUNS, SWEEPS, reporter
from mtrain.cli.training_options import TrainingCommand
from mtrain.cli.unused_options import note_unused

if TYPE_CHECKING:
    from mtrain.runs.run_folder import Run


@click.command(
    cls=TrainingCommand,
    shown=(
        "shards",
        "leave_out",
        "train_on",
        "backbone",
        "weights",
        "iterations",
        "lr",
        "tau",
        "batch",
        "size",
        "device",
        "workers",
        "seed",
    ),
    rarely=("cache", "cache_size", "check_images", "config_file", "print_config", "trackers"),
)
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Run name; an existing run is resumed.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings in TOML, or a run's config.json; options given beside it win.",
)
@click.option(
    "--log",
    "trackers",
    type=click.Choice(["wandb", "mlflow"]),
    multiple=True,
    help="Also send the log to this service; may be repeated.",
)
@click.option("--print-config", is_flag=True, help="Print the settings as TOML for --config, and do not train.")
@CACHE
@CHECK
@JSON
def fit(
    runs: Path,
    quiet: bool,
    name: str | None,
    config_file: Path | None,
    trackers: tuple[str, ...],
    print_config: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train one shared network with a head for each task. The defaults are the paper's.

    \b
    Example: mtrain fit --shards shards/ --leave-out Lung
    On two GPUs: torchrun --nproc-per-node 2 -m -- mtrain fit --leave-out Lung
    """
    from mtrain.runs.run_names import named_run, new_name
    from mtrain.services import check_installed
    from mtrain.settings import as_toml, check_names, fit_config, read_settings

    settings = read_settings(config_file) if config_file else {}
    settings |= {key: value for key, value in given.items() if value not in (None, ())}
    if print_config:
        note_unused(reporter(as_json), {"trackers": "--print-config does not train"})
        config = fit_config(named_run(runs, name) if name else None, settings)
        answer([as_toml(config)], config.model_dump(mode="json"), as_json=as_json)
        return
    check_installed(trackers)
    if os.environ.get("WORLD_SIZE", "1") == "1":  # a mistake is reported before torch is imported, which takes seconds
        existing = named_run(runs, name) if name else None
        resumed = existing if existing is not None and existing.exists else None
        check_names(
            fit_config(existing, settings), resumed=resumed is not None, recorded=resumed.choice() if resumed else None
        )
    from mtrain.train.distributed import joined

    with joined() as ranks:  # of several processes, one reports a mistake
        existing = named_run(runs, name) if name else None
        config = fit_config(existing, settings)
        run = existing or named_run(runs, ranks.broadcast(lambda: new_name(runs, config)))
        from mtrain.train.fit import fit as train

        report = reporter(quiet or not ranks.first)
        idle = config.idle()
        note_unused(report, idle)
        for option in _idle_in_file(config_file, settings, given, idle):
            report.note(option)
        with run.removed_if_empty():
            state = train(config, run, report, ranks, trackers=trackers)
    lines = [f"{run.name}: finished -> {run.path}"] if state == "finished" else []
    if ranks.first:
        answer(lines, _row(run) | {"folder": str(run.path)}, as_json=as_json)
    if state == "stopped":
        if ranks.first:
            again = shlex.join([*ranks.command("mtrain"), "fit", "--runs", str(runs), "--run", run.name])
            say(f"mtrain: stopped; a checkpoint is saved: resume with: {again}")
        sys.exit(INTERRUPTED)


def _idle_in_file(
    file: Path | None, settings: Mapping[str, Any], given: Mapping[str, Any], idle: Mapping[str, str]
) -> Iterator[str]:
    """Lines on settings of a --config file that differ from their defaults and have no effect beside the others."""
    from mtrain.config import FitConfig

    for name, why in idle.items():
        in_file = file is not None and name in settings and given.get(name) in (None, ())
        if in_file and settings[name] != FitConfig.model_fields[name].default:
            yield f"{file}: {name} is not used: {why}"


@click.command(
    cls=TrainingCommand,
    settings=(
        "backbone",
        "backbone_options",
        "weights",
        "weights_key",
        "iterations",
        "warmup",
        "lr",
        "tau",
        "batch",
        "size",
        "device",
        "workers",
    ),
    shown=("backbone", "weights", "iterations", "lr"),
    defaults={
        "backbone": "mtdp_densenet121, or those of the sweep",
        "lr": "the paper's: 1e-4 for DenseNet121, 1e-3 for ResNet50",
        "tau": "the paper's: 5 for DenseNet121, 1 for ResNet50",
    },
    rarely=("check_images", "sweeps", "evaluations"),
)
@RUNS
@SWEEPS
@QUIET
@click.option(
    "--sweep", metavar="NAME", help="Train each network with the settings that `mtrain select` chose over all tasks."
)
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: shards, or that of the sweep]")
@CHECK
@click.option("--seed", "seeds", type=WholeRange(0), multiple=True, help="Random seed; may be repeated.  [default: 0]")
@EVALUATIONS
@click.option("--out", type=FOLDER, default=Path("release"), show_default=True, help="Output folder.")
@click.option(
    "--creator", "creators", multiple=True, metavar="NAME", help="'Family, Given', for Zenodo; may be repeated."
)
@click.option("--accept-licence", "accepted", is_flag=True, help="Confirm that the data's licences allow sharing.")
@JSON
def release(
    runs: Path,
    sweeps: Path,
    quiet: bool,
    sweep: str | None,
    shards: Path | None,
    seeds: tuple[int, ...],
    evaluations: Path,
    out: Path,
    accepted: bool,
    as_json: bool,
    creators: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train on all data, test sets included, with settings chosen before; write weights and model cards.

    Do this last: no task of these shards can evaluate such a network. Each network is also packed as a ZIP file, with
    the metadata of a Zenodo record.

    \b
    Example: mtrain release --sweep paper --seed 0 --seed 1
    """
    from mtrain.data.addresses import absolute
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, sweep) if sweep else None
    from mtrain.export.release import ReleaseRequest, configs, sweep_shards
    from mtrain.export.release import release as make

    place = absolute(shards or (sweep_shards(store) if store else "shards"))
    given = {name: value for name, value in settings.items() if value is not None}
    request = ReleaseRequest(place, given, seeds or (0,), runs, out, store, evaluations, accepted, creators)
    report = reporter(quiet or as_json)
    if store is None:
        note_unused(report, {"sweeps": "no --sweep is named", "evaluations": "no --sweep is named"})
    every = [training.idle() for training in configs(request)]
    note_unused(report, {name: why for name, why in every[0].items() if all(name in one for one in every)})
    state, released = make(request, report)
    if released and not any(one.restricted for one in released):
        note_unused(report, {"accepted": OPEN_LICENCES})
    result = [{"folder": str(one.folder), "files": one.files} for one in released]
    answer([str(one.folder) for one in released], result, as_json=as_json)
    if state == "stopped":
        say("mtrain: stopped; a checkpoint is saved: run the same command again to resume")
        sys.exit(INTERRUPTED)


@click.command("runs")
@RUNS
@JSON
def list_runs(runs: Path, as_json: bool) -> None:
    """List the runs and their states.

    \b
    Example: mtrain runs
    """
    from mtrain.runs.run_names import all_runs

    rows = [_row(run) for run in all_runs(runs)]
    lines = [
        f"{row['run']}: {row['state']}, {row.get('soup') or '{iteration} of {of}'.format(**row)}, "
        f"left out: {', '.join(row['left_out']) or 'nothing'}"
        for row in rows
    ]
    answer(lines or [f"no run in {runs}"], rows, as_json=as_json)


def _row(run: Run) -> dict[str, Any]:
    """A line of the list; a damaged run is listed as such, so that it does not hide the others."""
    state, iteration = run.state()
    from mtrain.runs.belonging import has_foreign_state
    from mtrain.runs.run_folder import SOUP, STATE

    row: dict[str, Any] = {"run": run.name, "state": state, "iteration": iteration}
    try:
        soup = run.about().get(SOUP, {}).get("text")  # of a run that was not trained itself
        row |= {"soup": soup} if soup else {}
        row |= {"of": run.config().iterations, "left_out": run.left_out()}
        if has_foreign_state(run):
            row["state"] = f"{state} ({STATE} is that of another run: `mtrain fit --run {run.name}` writes it again)"
        return row
    except UserError as error:
        return row | {"state": f"damaged ({error})", "of": "?", "left_out": []}
