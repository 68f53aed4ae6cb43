"""The command `mtrain`: the only place of the package that prints or exits. Commands load torch when they run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert import __version__
from dpconvert.errors import UserError
from mtrain.errors import SaidElsewhereError
from mtrain.options import (
    DEVICE,
    EVALUATIONS,
    FOLDER,
    MORE_OF_FIT,
    OUT,
    QUIET,
    RUNS,
    SOLVER,
    SWEEPS,
    TUNING,
    WORKERS,
    Detailed,
    cache_options,
)

if TYPE_CHECKING:
    from dpconvert.progress import Reporter
    from mtrain.config import FitConfig
    from mtrain.runs import Run

TRAINING = {
    "torch",
    "torchvision",
    "safetensors",
    "sklearn",
    "tensorboard",
    "webdataset",
    "matplotlib",
    "jinja2",
    "fsspec",
}
MODES = ["svm", "logistic", "knn", "fewshot", "finetune", "scratch", "joint"]


def main() -> None:
    """Entry point: users' mistakes become one line on stderr and exit status 1, Ctrl-C exit status 130."""
    try:
        group.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SaidElsewhereError:
        sys.exit(1)
    except UserError as error:
        click.echo(_red(f"mtrain: error: {error}"), err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in TRAINING:
            raise
        click.echo(_red(f"mtrain: error: {error.name} is not installed; pip install 'dpconvert[train]'"), err=True)
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


@group.command(cls=Detailed)
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Name of the run; one that exists goes on.  [default: a new one]")
@click.option("--shards", type=FOLDER, help="Folder of the tasks, or s3://, gs://, https://.  [default: shards]")
@cache_options(hidden=True)
@click.option("--leave-out", multiple=True, metavar="TASK", help="A task not to train on; related ones leave too.")
@click.option("--backbone", help="A network of torchvision, timm:NAME, or efficientnet_lite0.  [default: densenet121]")
@click.option("--weights", help="imagenet, random, or a file.  [default: imagenet]")
@click.option("--iterations", type=int, help="[default: 50000]")
@click.option("--warmup", type=int, help="First iterations that train the heads alone.  [default: a tenth]")
@click.option("--lr", type=float, help="Learning rate of the shared network.  [default: 1e-4]")
@click.option("--tau", type=float, help="The heads learn at lr x tau.  [default: 5]")
@click.option("--batch", type=int, help="[default: 64]")
@click.option("--size", type=int, help="Side of the network's input, px.  [default: 224]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--workers", type=int, help="Loader processes.  [default: 2]")
@click.option("--validate-every", type=int, help="Iterations; 0 for never.  [default: a tenth, 100 at least]")
@MORE_OF_FIT
def fit(runs: Path, quiet: bool, name: str | None, **given: Any) -> None:
    """Train one shared network with a head for each task; defaults are the paper's.

    \b
    Example: mtrain fit --shards shards/ --leave-out Lung
    On two GPUs: torchrun --nproc-per-node 2 -m -- mtrain fit --shards shards/ --leave-out Lung
    """
    from dpconvert.progress import Reporter
    from mtrain.distributed import joined
    from mtrain.runs import named_run, new_name

    with joined() as ranks:
        there = named_run(runs, name) if name else None
        config = _config(there, {key: value for key, value in given.items() if value not in (None, ())})
        run = there or named_run(runs, ranks.told(lambda: new_name(runs, config)))
        from mtrain.fit import fit as train

        state = train(config, run, Reporter(quiet=quiet or not ranks.first), ranks)
    if state == "stopped":
        if ranks.first:
            again = shlex.join([*ranks.command("mtrain"), "fit", "--runs", str(runs), "--run", run.name])
            click.echo(f"mtrain: stopped with a checkpoint; go on with: {again}", err=True)
        sys.exit(130)
    if ranks.first:
        click.echo(f"{run.name}: finished -> {run.path}")


def _config(run: Run | None, given: dict[str, Any]) -> FitConfig:
    """The configuration asked for: what is not given is that of the run if it exists, else the default."""
    from pydantic import ValidationError

    from mtrain.config import FitConfig
    from mtrain.errors import UsageError
    from mtrain.storage import absolute

    base = run.config().model_dump() if run and run.exists else {"shards": Path("shards")}
    values = base | given
    values["shards"] = absolute(values["shards"])
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
@cache_options()
@click.option("--target", multiple=True, metavar="TASK", help="Task or its folder.  [default: what the run left out]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet (the baseline), random, or a file.")
@click.option("--final", is_flag=True, help="Train on train and val, score the test set: once, at the end.")
@SOLVER
@TUNING
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers, epochs and draws.")
@DEVICE
@WORKERS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def transfer(
    runs: Path, quiet: bool, mode: str, name: str | None, shards: Path | None, target: tuple[str, ...], weights: str,
    final: bool, solver: str, seed: int, device: str, workers: int, as_json: bool, **tuning: Any,
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
    options = Options(mode, final, solver, workers, command.recipe(**tuning, seed=seed, device=device))
    found = command.transfers(run, shards, target, weights, options, _reporter(quiet or as_json))
    _say(command.transfer_lines(found, run), found, as_json)


@group.command()
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet, random, or a file.")
@click.option("--shards", type=FOLDER, help="[default: those of the run]")
@cache_options()
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Task or its folder.  [default: those left out]")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Of the numbers."
)
@click.option("--out", type=FOLDER, default=Path("features"), show_default=True, help="Folder of the arrays.")
@DEVICE
@WORKERS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def features(
    runs: Path, quiet: bool, name: str | None, weights: str, shards: Path | None, tasks: tuple[str, ...], dtype: str,
    out: Path, device: str, workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Write a frozen network's features: <Task>-train.npy, <Task>-val.npy, and a .csv of their rows beside each.

    \b
    Example: mtrain features --task Lung --dtype float16
    """
    from mtrain.transfer import command
    from mtrain.transfer.run import source_of, targets

    run = _run(runs, name)
    chosen = targets(run, shards, tasks)
    report = _reporter(quiet or as_json)
    found = command.feature_files(source_of(run, weights), chosen, out, dtype, workers, device, report)
    paths = [str(path) for path in found]
    _say(paths, paths, as_json)


@group.command()
@RUNS
@SWEEPS
@QUIET
@click.option("--run", "names", multiple=True, metavar="NAME", help="A run to evaluate; one a seed.")
@click.option("--sweep", metavar="NAME", help="The models that `mtrain select` chose in a sweep, instead of runs.")
@click.option("--shards", type=FOLDER, help="[default: those of the runs]")
@cache_options()
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
@TUNING
@DEVICE
@WORKERS
@EVALUATIONS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def evaluate(
    runs: Path, sweeps: Path, quiet: bool, names: tuple[str, ...], sweep: str | None, shards: Path | None,
    target: tuple[str, ...], modes: tuple[str, ...], baseline: bool, seeds: int, solver: str, device: str, workers: int,
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

    options = Options(solver=solver, workers=workers, recipe=command.recipe(**tuning, seed=0, device=device))
    asked = Asked(tuple(dict.fromkeys(modes)), baseline, seeds, options, evaluations)
    store = open_store(sweeps, sweep).path if sweep else None
    found = command.evaluations(runs, store, names, shards, target, asked, _reporter(quiet or as_json))
    _say(command.evaluation_lines(found), found, as_json)


@group.command()
@RUNS
@QUIET
@click.option("--shards", type=FOLDER, default=Path("shards/BreakHis"), show_default=True, help="The task's folder.")
@cache_options()
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet (the baseline), random, or a file.")
@click.option(
    "--mode", type=click.Choice(["svm", "finetune"]), default="svm", show_default=True, help="How to transfer."
)
@SOLVER
@TUNING
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers and epochs.")
@DEVICE
@WORKERS
@EVALUATIONS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def breakhis(
    runs: Path, quiet: bool, shards: Path, name: str | None, weights: str, mode: str, solver: str, seed: int,
    device: str, workers: int, evaluations: Path, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score a network on BreaKHis: its five official folds, at each magnification, by patient.

    \b
    Example: mtrain breakhis --shards shards/BreakHis --weights imagenet
    """
    from mtrain.breakhis import breakhis as score
    from mtrain.pool import open_task
    from mtrain.transfer import command
    from mtrain.transfer.run import Options, source_of

    options = Options(mode, False, solver, workers, command.recipe(**tuning, seed=seed, device=device))
    source = source_of(_run(runs, name), weights)
    found = score(source, open_task(shards), options, evaluations, _reporter(quiet or as_json))
    _say(command.breakhis_lines(found), found, as_json)


@group.command()
@SWEEPS
@QUIET
@click.argument("file")
@click.option("--shards", type=FOLDER, help="[default: what the file says]")
@cache_options()
@click.option("--plan", "only_plan", is_flag=True, help="Say what there is to do and how long it takes; run nothing.")
@click.option("--jobs", type=click.IntRange(1), help="Processes at once.  [default: one a GPU, else 1]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Processes of this machine, or a Ray cluster that shares the folders.",
)  # fmt: skip
@click.option("--address", help="Of the Ray cluster.  [default: $RAY_ADDRESS, one that runs here, a new one]")
@click.option("--cpus", type=click.IntRange(1), help="Processors a cell on the cluster asks for.  [default: 1]")
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
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def report(
    runs: Path, sweeps: Path, name: str | None, sweep: str | None, evaluations: Path, paper: bool, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
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
        _say([str(page)], {"page": str(page)}, as_json)
        return
    from mtrain.report import write_report

    run = _run(runs, name)
    page, table = write_report(run, out or run.path / "report.html")
    _say([table, str(page)], {"page": str(page), "table": table}, as_json)


@group.command()
@RUNS
@QUIET
@click.argument("run", required=False)
@click.option("--to", type=click.Choice(["safetensors", "torchvision", "timm", "onnx"]), default="safetensors",
    show_default=True, help="For whom.",
)  # fmt: skip
@click.option("--task", metavar="TASK", help="With the run's head of this task.  [default: the shared network alone]")
@click.option("--out", type=FOLDER, help="Folder of the files.  [default: export/FORMAT in the run]")
@click.option("--accept-licence", is_flag=True, help="You may pass on what was made of the data, or keep it.")
@click.option("--push", metavar="OWNER/NAME", help="Upload to this model repository of the Hugging Face hub.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def export(
    runs: Path, quiet: bool, run: str | None, to: str, task: str | None, out: Path | None, accept_licence: bool,
    push: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a run's network as other tools load it, with a model card.

    RUN is a run's name, by default the newest's.

    \b
    Example: mtrain export --to torchvision --out exported/
    """
    from mtrain.export import export as write
    from mtrain.export.hub import push as upload

    chosen = _run(runs, run)
    made = write(chosen, to, out or chosen.path / "export" / to, task, accepted=accept_licence)
    report = _reporter(quiet or as_json)
    report.note(f"{chosen.name}: {', '.join(made.files)} -> {made.folder}")
    address = upload(made.folder, push) if push else None
    found = {"folder": str(made.folder), "files": list(made.files), "loading": made.loading, "address": address}
    _say([made.loading, *filter(None, [address])], found, as_json)


@group.command()
@RUNS
@QUIET
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--task", metavar="TASK", help="The head that answers.  [default: the run's only one]")
@click.option("--class", "shown", metavar="CLASS", help="What maps show.  [default: 1 of two, the likeliest of more]")
@click.option("--patch", type=click.IntRange(16), metavar="PX", help="Side of patches.  [default: as in training]")
@click.option("--mpp", type=click.FloatRange(0.05, 10), metavar="UM", help="Um per pixel of slides that state none.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=FOLDER, default=Path("predictions"), show_default=True, help="Folder of the answers.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def predict(
    runs: Path, quiet: bool, paths: tuple[Path, ...], name: str | None, task: str | None, shown: str | None,
    patch: int | None, mpp: float | None, device: str, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Ask a run's head about slides, pictures, or folders of them.

    Of a slide: <name>.heatmap.tif, a map that OpenSlide and QuPath open, and <name>.geojson, its patches for QuPath.
    Of pictures: pictures.csv.

    \b
    Example: mtrain predict --run RUN --task Camelyon16 slide.svs
    """
    from mtrain.predict import Classifier, Patch
    from mtrain.predict import predict as answer

    classifier = Classifier(_run(runs, name), task, device)
    size = Patch.of(classifier.about, patch, mpp)
    found = answer(classifier, paths, size, out, _reporter(quiet or as_json), shown)
    _say(map(_answered, found), found, as_json)


def _answered(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in found["classes"].items())
    where = f" -> {found['heatmap']}, {found['geojson']}" if "heatmap" in found else ""
    return f"{found['file']}: {counts}{where}"


@group.command()
@RUNS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(runs: Path, as_json: bool) -> None:
    """Say what works on this machine: as `dpconvert doctor`, and torch, GPU, two ranks that talk. Exit status 1 if not.

    \b
    Example: mtrain doctor
    """
    from mtrain.doctor import checks

    found = []
    for check in checks(runs):
        found.append(check)
        if not as_json:
            told = f"{check.found}{check.remedy and '; ' + check.remedy}"
            click.echo(f"{'ok' if check.ok else 'PROBLEM':8}{check.name}: {told}")
    if as_json:
        click.echo(json.dumps([vars(check) for check in found]))
    if not all(check.ok for check in found):
        sys.exit(1)


@group.command()
@RUNS
@SWEEPS
@QUIET
@click.option("--sweep", metavar="NAME", help="With what `mtrain select` chose in it over all tasks, of each network.")
@click.option("--shards", type=FOLDER, help="[default: shards, or those of the sweep]")
@click.option("--backbone", help="[default: densenet121, or those of the sweep]")
@click.option("--weights", help="imagenet, random, or a file.  [default: imagenet]")
@click.option("--iterations", type=int, help="[default: 50000]")
@click.option("--warmup", type=int, help="First iterations that train the heads alone.  [default: a tenth]")
@click.option("--lr", type=float, help="[default: the paper's: 1e-4 for densenet121, 1e-3 for resnet50]")
@click.option("--tau", type=float, help="[default: the paper's: 5 for densenet121, 1 for resnet50]")
@click.option("--batch", type=int, help="[default: 64]")
@click.option("--size", type=int, help="Side of the network's input, px.  [default: 224]")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="Repeat it for several.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--workers", type=int, help="Loader processes.  [default: 2]")
@EVALUATIONS
@click.option("--out", type=FOLDER, default=Path("release"), show_default=True, help="A folder in it a network.")
@click.option("--accept-licence", "accepted", is_flag=True, help="You may pass on what was made of the data.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def release(
    runs: Path, sweeps: Path, quiet: bool, sweep: str | None, shards: Path | None, seeds: tuple[int, ...],
    evaluations: Path, out: Path, accepted: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train on all data, test sets included, with settings that were chosen before; write weights and model card.

    The last step: no task of these shards can evaluate such a network.

    \b
    Example: mtrain release --sweep paper --seed 0 --seed 1
    """
    from mtrain.release import Asked, sweep_shards
    from mtrain.release import release as make
    from mtrain.storage import absolute
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, sweep) if sweep else None
    place = absolute(shards or (sweep_shards(store) if store else "shards"))
    given = {name: value for name, value in settings.items() if value is not None}
    asked = Asked(place, given, seeds or (0,), runs, out, store, evaluations, accepted)
    state, made = make(asked, _reporter(quiet or as_json))
    _say([str(one.folder) for one in made], [{"folder": str(one.folder), "files": one.files} for one in made], as_json)
    if state == "stopped":
        click.echo("mtrain: stopped with a checkpoint; the same command goes on", err=True)
        sys.exit(130)


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
