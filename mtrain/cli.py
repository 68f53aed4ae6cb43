"""The command `mtrain`: the only place of the package that prints or exits. Commands load torch when they run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert import __version__
from dpconvert.errors import UserError

if TYPE_CHECKING:
    from dpconvert.progress import Reporter
    from mtrain.config import FitConfig
    from mtrain.runs import Run

FOLDER = click.Path(path_type=Path, file_okay=False)
RUNS = click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs.")
SWEEPS = click.option("--sweeps", type=FOLDER, default=Path("sweeps"), show_default=True, help="Folder of the sweeps.")
OUT = click.Path(path_type=Path, dir_okay=False)
EVALUATIONS = click.option(
    "--evaluations",
    type=FOLDER,
    default=Path("evaluations"),
    show_default=True,
    help="Folder of the scores on test sets.",
)
MODES = ["svm", "logistic", "knn", "fewshot", "finetune", "scratch", "joint"]
SOLVER = click.option("--solver", type=click.Choice(["batched", "sklearn"]), default="batched", show_default=True,
    help="Of the SVM: all C, folds and classes at once, or scikit-learn's LinearSVC.",
)  # fmt: skip
WORKERS = click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Loader processes.")
QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress.")


def tuning_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of fine-tuning."""
    for option in (
        click.option("--early-stop", type=click.IntRange(0), default=0, show_default=True,
            help="Fine-tuning: epochs without a better one after which a rate ends; 0 for never."),
        click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Fine-tuning: batch size."),
        click.option("--lr", "rates", type=float, multiple=True,
            help="Fine-tuning: a learning rate to try; repeat it.  [default: 1e-3, 1e-4, 1e-5, 1e-6]"),
        click.option("--epochs", type=click.IntRange(1), default=100, show_default=True,
            help="Fine-tuning: at each rate."),
    ):  # fmt: skip
        command = option(command)
    return command


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
        click.echo(_red(f"mtrain: error: {error}"), err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("mtrain: stopped", err=True)
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mtrain")
def group() -> None:
    """Pre-train one network on many tasks at once, and see how it transfers to tasks that were left out.

    \b
    mtrain fit --shards shards/ --leave-out Lung     train on all tasks but Lung
    mtrain transfer --mode svm                       score Lung with the newest run
    mtrain transfer --mode svm --weights imagenet    and with the ImageNet weights
    mtrain report                                    a page of all that
    """


@group.command()
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Name of the run; one that exists goes on.  [default: a new one]")
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: shards]")
@click.option("--leave-out", multiple=True, metavar="TASK", help="A task not to train on; related ones leave too.")
@click.option("--backbone", help="A network of torchvision, timm:NAME, or efficientnet_lite0.  [default: densenet121]")
@click.option("--weights", help="imagenet, random, or a file.  [default: imagenet]")
@click.option("--iterations", type=int, help="[default: 50000]")
@click.option("--warmup", type=int, help="First iterations that train the heads alone.  [default: a tenth]")
@click.option("--lr", type=float, help="Learning rate of the shared network.  [default: 1e-4]")
@click.option("--tau", type=float, help="The heads learn at lr x tau.  [default: 5]")
@click.option("--warmup-lr", type=float, help="[default: 1e-3]")
@click.option("--momentum", type=float, help="[default: 0.9]")
@click.option("--weight-decay", type=float, help="[default: 0]")
@click.option("--batch", type=int, help="[default: 64]")
@click.option("--size", type=int, help="Side of the network's input, px.  [default: 224]")
@click.option("--adapt-batches", type=int, help="For batch-normalization adaptation.  [default: 20]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--workers", type=int, help="Loader processes.  [default: 2]")
@click.option("--checkpoint-every", type=int, help="Iterations.  [default: a tenth, at most 1000]")
@click.option("--validate-every", type=int, help="Iterations; 0 for never.  [default: a tenth, 100 at least]")
@click.option("--log-every", type=int, help="Iterations.  [default: a twentieth, at most 50]")
def fit(runs: Path, quiet: bool, name: str | None, **given: Any) -> None:
    """Train one shared network with a head for each task; defaults are the paper's.

    \b
    Example: mtrain fit --shards shards/ --leave-out Lung
    """
    from dpconvert.progress import Reporter
    from mtrain.runs import named_run, new_name

    there = named_run(runs, name) if name else None
    config = _config(there, {key: value for key, value in given.items() if value not in (None, ())})
    run = there or named_run(runs, new_name(runs, config))
    from mtrain.fit import fit as train

    if train(config, run, Reporter(quiet=quiet)) == "stopped":
        again = shlex.join(["mtrain", "fit", "--runs", str(runs), "--run", run.name])
        click.echo(f"mtrain: stopped with a checkpoint; go on with: {again}", err=True)
        sys.exit(130)
    click.echo(f"{run.name}: finished -> {run.path}")


def _config(run: Run | None, given: dict[str, Any]) -> FitConfig:
    """The configuration asked for: what is not given is that of the run if it exists, else the default."""
    from pydantic import ValidationError

    from mtrain.config import FitConfig
    from mtrain.errors import UsageError

    base = run.config().model_dump() if run and run.exists else {"shards": Path("shards")}
    values = base | given
    values["shards"] = str(Path(values["shards"]).absolute())
    if values.get("weights", "imagenet") not in ("imagenet", "random"):
        values["weights"] = str(Path(values["weights"]).absolute())
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        reason = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{option}: {reason[0].lower()}{reason[1:]}", found=problem["input"]) from None


@group.command("runs")
@RUNS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_runs(runs: Path, as_json: bool) -> None:
    """The runs and their state.

    \b
    Example: mtrain runs
    """
    from mtrain.runs import all_runs

    rows = [_row(run) for run in all_runs(runs)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        left = ", ".join(row["left_out"]) or "nothing"
        click.echo(f"{row['run']}: {row['state']}, {row['iteration']} of {row['of']}, left out: {left}")
    if not rows:
        click.echo(f"no run in {runs}")


def _row(run: Run) -> dict[str, Any]:
    """What the list of runs says of one; a damaged one does not hide the others."""
    state, iteration = run.state()
    row = {"run": run.name, "state": state, "iteration": iteration}
    try:
        return row | {"of": run.config().iterations, "left_out": run.left_out()}
    except UserError as error:
        return row | {"state": f"damaged ({error})", "of": "?", "left_out": []}


@group.command()
@RUNS
@QUIET
@click.option("--mode", type=click.Choice(MODES), default="svm", show_default=True, help="How to transfer.")
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--shards", type=FOLDER, help="[default: those of the run]")
@click.option("--target", multiple=True, metavar="TASK", help="Task or its folder.  [default: what the run left out]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet (the baseline), random, or a file.")
@click.option("--final", is_flag=True, help="Train on train and val, score the test set: once, at the end.")
@SOLVER
@tuning_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers, epochs and draws.")
@WORKERS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def transfer(
    runs: Path, quiet: bool, mode: str, name: str | None, shards: Path | None, target: tuple[str, ...], weights: str,
    final: bool, solver: str, seed: int, workers: int, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score a pre-trained network on tasks that it was not trained on.

    \b
    svm        a linear SVM on frozen features, C by cross-validation over groups
    logistic   logistic regression on them
    knn        nearest neighbours among them
    fewshot    scores by number of training pictures a class
    finetune   everything trained; the validation set chooses rate and epoch
    scratch    the same from random weights
    joint      the run's own head of a task that it has trained on

    \b
    Example: mtrain transfer --mode svm
    """
    from mtrain.transfer import command
    from mtrain.transfer.run import Options

    run = _run(runs, name)
    options = Options(mode, final, solver, workers, command.recipe(**tuning, seed=seed))
    found = command.transfers(run, shards, target, weights, options, _reporter(quiet or as_json))
    _say(command.transfer_lines(found, run), found, as_json)


@group.command()
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet, random, or a file.")
@click.option("--shards", type=FOLDER, help="[default: those of the run]")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Task or its folder.  [default: those left out]")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Of the numbers."
)
@click.option("--out", type=FOLDER, default=Path("features"), show_default=True, help="Folder of the arrays.")
@WORKERS
def features(
    runs: Path, quiet: bool, name: str | None, weights: str, shards: Path | None, tasks: tuple[str, ...], dtype: str,
    out: Path, workers: int,
) -> None:  # fmt: skip
    """Write a frozen network's features: <Task>-train.npy, <Task>-val.npy, and a .csv of their rows beside each.

    \b
    Example: mtrain features --task Lung --dtype float16
    """
    from mtrain.transfer import command
    from mtrain.transfer.run import source_of, targets

    run = _run(runs, name)
    chosen = targets(run, shards, tasks)
    for path in command.feature_files(source_of(run, weights), chosen, out, dtype, workers, _reporter(quiet)):
        click.echo(path)


@group.command()
@RUNS
@SWEEPS
@QUIET
@click.option("--run", "names", multiple=True, metavar="NAME", help="A run to evaluate; one a seed.")
@click.option("--sweep", metavar="NAME", help="The models that `mtrain select` chose in a sweep, instead of runs.")
@click.option("--shards", type=FOLDER, help="[default: those of the runs]")
@click.option(
    "--target", multiple=True, metavar="TASK", help="[default: what the first run left out; all of the sweep]"
)
@click.option("--mode", "modes", multiple=True, type=click.Choice(["svm", "finetune", "scratch", "joint"]),
    default=("svm", "finetune"), show_default=True, help="May be repeated.",
)  # fmt: skip
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="The ImageNet weights beside them.")
@click.option(
    "--seeds", type=click.IntRange(1), default=5, show_default=True, help="Of that by finetune, and of scratch."
)
@SOLVER
@tuning_options
@WORKERS
@EVALUATIONS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def evaluate(
    runs: Path, sweeps: Path, quiet: bool, names: tuple[str, ...], sweep: str | None, shards: Path | None,
    target: tuple[str, ...], modes: tuple[str, ...], baseline: bool, seeds: int, solver: str, workers: int,
    evaluations: Path, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score chosen networks, and the baseline, on the test sets of their targets: once, at the end.

    Runs that left a target out are transferred to it; runs that trained on it are for --mode joint.

    \b
    Example: mtrain evaluate --sweep paper
    """
    from mtrain.evaluate import Asked
    from mtrain.sweep.store import open_store
    from mtrain.transfer import command
    from mtrain.transfer.run import Options

    options = Options(solver=solver, workers=workers, recipe=command.recipe(**tuning, seed=0))
    asked = Asked(tuple(dict.fromkeys(modes)), baseline, seeds, options, evaluations)
    store = open_store(sweeps, sweep).path if sweep else None
    found = command.evaluations(runs, store, names, shards, target, asked, _reporter(quiet or as_json))
    _say(command.evaluation_lines(found), found, as_json)


@group.command()
@RUNS
@QUIET
@click.option("--shards", type=FOLDER, default=Path("shards/BreakHis"), show_default=True, help="The task's folder.")
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet (the baseline), random, or a file.")
@click.option(
    "--mode", type=click.Choice(["svm", "finetune"]), default="svm", show_default=True, help="How to transfer."
)
@SOLVER
@tuning_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers and epochs.")
@WORKERS
@EVALUATIONS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def breakhis(
    runs: Path, quiet: bool, shards: Path, name: str | None, weights: str, mode: str, solver: str, seed: int,
    workers: int, evaluations: Path, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score a network on BreaKHis: its five official folds, at each magnification, by patient.

    \b
    Example: mtrain breakhis --shards shards/BreakHis --weights imagenet
    """
    from mtrain.breakhis import breakhis as score
    from mtrain.pool import open_task
    from mtrain.transfer import command
    from mtrain.transfer.run import Options, source_of

    options = Options(mode, False, solver, workers, command.recipe(**tuning, seed=seed))
    source = source_of(_run(runs, name), weights)
    found = score(source, open_task(shards), options, evaluations, _reporter(quiet or as_json))
    _say(command.breakhis_lines(found), found, as_json)


@group.command()
@SWEEPS
@QUIET
@click.argument("file")
@click.option("--shards", type=FOLDER, help="[default: what the file says]")
@click.option("--plan", "only_plan", is_flag=True, help="Say what there is to do and how long it takes; run nothing.")
@click.option("--jobs", type=click.IntRange(1), help="Processes at once.  [default: one a GPU, else 1]")
@click.option("--part", metavar="I/N", help="Only the I-th of N parts of the cells.")
@click.option("--sbatch", type=OUT, help="Write a SLURM script that runs the parts; run nothing.")
@click.option("--parts", type=click.IntRange(1), help="[default: one a seed, left-out set and network]")
@click.option("--json", "as_json", is_flag=True, help="The plan for programs.")
def sweep(file: str, **options: Any) -> None:
    """Train and score every cell of a sweep: left-out sets x combinations x seeds.

    What is there is kept: run it again to go on, or after adding a seed, a value or a task. FILE is TOML, or the name
    of one that comes with the program: paper, workstation, real-small.

    \b
    Example: mtrain sweep manifests/sweeps/workstation.toml --plan
    """
    from mtrain.sweep.command import Asked, run_sweep

    asked = Asked(file=file, **options)
    answer = run_sweep(asked, _reporter(asked.quiet or asked.as_json))
    for line in answer.lines:
        click.echo(line)
    if answer.stopped:
        click.echo("mtrain: stopped with checkpoints; the same command goes on", err=True)
        sys.exit(130)


@group.command()
@SWEEPS
@click.option("--sweep", "name", metavar="NAME", help="[default: the newest]")
@click.option("--incomplete", is_flag=True, help="Compare what is there, though results are missing.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def select(sweeps: Path, name: str | None, incomplete: bool, as_json: bool) -> None:
    """Rank the combinations of a sweep, and choose one for each target.

    The target's own rank does not count. Written to selected.json in the sweep's folder.

    \b
    Example: mtrain select --sweep workstation
    """
    from mtrain import selection
    from mtrain.atomic import write_json
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, name)
    found = selection.select(store, incomplete=incomplete)
    content = selection.content(found, store)
    write_json(store.path / "selected.json", content)
    click.echo(json.dumps(content) if as_json else "\n".join(selection.lines(found)))


@group.command()
@RUNS
@SWEEPS
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--sweep", metavar="NAME", help="A sweep instead of a run: the paper's tables and figures.")
@EVALUATIONS
@click.option("--paper", is_flag=True, help="Set the published numbers beside those of the sweep.")
@click.option("--out", type=OUT, help="[default: report.html in the run, or in report/ of the sweep]")
def report(
    runs: Path, sweeps: Path, name: str | None, sweep: str | None, evaluations: Path, paper: bool, out: Path | None
) -> None:
    """One page of a run: pool, learning curves, transfer scores; or, with --sweep, of a sweep.

    A run's tables are written as Markdown too; a sweep's as CSV, its figures as SVG and PNG, beside the page.

    \b
    Example: mtrain report
    """
    if sweep is not None:
        from mtrain.sweep.store import open_store
        from mtrain.sweep_report import write_sweep_report

        store = open_store(sweeps, sweep)
        page = write_sweep_report(store, evaluations, out or store.path / "report" / "report.html", paper=paper)
        click.echo(page)
        return
    from mtrain.report import write_report

    run = _run(runs, name)
    page, table = write_report(run, out or run.path / "report.html")
    click.echo(table, nl=False)
    click.echo(f"\n{page}")


def _say(lines: Iterable[str], found: Any, as_json: bool) -> None:
    """The lines, or for programs what they were made of."""
    click.echo(json.dumps(found) if as_json else "\n".join(lines))


def _reporter(quiet: bool) -> Reporter:
    from dpconvert.progress import Reporter

    return Reporter(quiet=quiet)


def _run(runs: Path, name: str | None) -> Run:
    from mtrain.runs import newest_run, open_run

    return open_run(runs, name) if name else newest_run(runs)


def _red(text: str) -> str:
    return text if "NO_COLOR" in os.environ or not sys.stderr.isatty() else click.style(text, fg="red")


if __name__ == "__main__":
    main()
