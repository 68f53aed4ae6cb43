"""The commands that turn results into files: `report`, `export`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpconvert.plural import counted
from dpconvert.runtime.finite import FiniteRange, WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import EVALUATIONS, FOLDER, OPEN_LICENCES, OUT, RUNS, SWEEPS, WORKERS, end, reporter, run_of
from mtrain.cli.unused_options import note_unused
from mtrain.errors import UsageError, UserError


@click.command()
@RUNS
@SWEEPS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Run to report.  [default: the newest]")
@click.option("--sweep", metavar="NAME", help="Sweep to report instead of a run: the paper's tables and figures.")
@EVALUATIONS
@click.option(
    "--paper", is_flag=True, help="Show published scores beside yours: with --sweep the paper's, else kaiko-eva's."
)
@click.option("--shards", type=FOLDER, help="Folder of the tasks, where it has moved.  [default: the run's]")
@click.option("--out", type=OUT, help="HTML page.  [default: report.html in the run, or in report/ of the sweep]")
@JSON
def report(
    runs: Path,
    sweeps: Path,
    quiet: bool,
    name: str | None,
    sweep: str | None,
    evaluations: Path,
    paper: bool,
    shards: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a page about a run (pool, learning curves, transfer scores) or, with --sweep, about a sweep.

    A run's tables are also written as Markdown; a sweep's tables as CSV and its figures as SVG and PNG.

    \b
    Example: mtrain report
    """
    said = reporter(quiet or as_json)
    if sweep is not None:
        note_unused(said, dict.fromkeys(("runs", "name", "shards"), "--sweep names a sweep instead of a run"))
        from mtrain.sweep.store import open_store

        store = open_store(sweeps, sweep)
        from mtrain.report.pages.sweep_page import write_sweep_report

        page = write_sweep_report(
            store, evaluations, out or store.path / "report" / "report.html", paper=paper, report=said
        )
        answer([str(page)], {"page": str(page)}, as_json=as_json)
        return
    note_unused(said, dict.fromkeys(("sweeps", "evaluations"), "it is for --sweep"))
    run = run_of(runs, name)
    from mtrain.report.pages.run_page import write_report

    page, table = write_report(run, out or run.path / "report.html", shards, paper=paper, report=said)
    answer([table, str(page)], {"page": str(page), "table": table}, as_json=as_json)


@click.command()
@RUNS
@QUIET
@click.argument("run", required=False)
@click.option(
    "--to",
    type=click.Choice(["safetensors", "torchvision", "timm", "onnx", "adapter"]),
    default="safetensors",
    show_default=True,
    help="Format; adapter: only the updates of --tune lora.",
)
@click.option(
    "--task", metavar="TASK", help="Include the run's head for this task.  [default: only the shared network]"
)
@click.option("--out", type=FOLDER, help="Output folder.  [default: export/FORMAT in the run]")
@click.option(
    "--accept-licence", is_flag=True, help="Confirm that the data's licences allow it, or that you will not share it."
)
@click.option("--push", metavar="OWNER/NAME", help="Upload to this model repository on the Hugging Face Hub.")
@JSON
def export(
    runs: Path,
    quiet: bool,
    run: str | None,
    to: str,
    task: str | None,
    out: Path | None,
    accept_licence: bool,
    push: str | None,
    as_json: bool,
) -> None:
    """Export a run's network for other tools, with a model card.

    RUN is the name of a run, by default the newest.

    \b
    Example: mtrain export --to torchvision --out exported/
    """
    chosen = run_of(runs, run)
    chosen.check_finished()
    if task is not None:
        chosen.check_trained_on(task)
    from mtrain.export import export as write
    from mtrain.export.hub import push as upload

    exported = write(chosen, to, out or chosen.path / "export" / to, task, accepted=accept_licence)
    report = reporter(quiet or as_json)
    note_unused(report, {} if exported.restricted else {"accept_licence": OPEN_LICENCES})
    report.note(f"{chosen.name}: {', '.join(exported.files)} -> {exported.folder}")
    if exported.removed:
        report.note(f"{exported.folder}: files of the earlier export were removed: {', '.join(exported.removed)}")
    address = upload(exported.folder, push) if push else None
    result: dict[str, Any] = {"folder": str(exported.folder), "files": list(exported.files)}
    result |= {"loading": exported.loading, "address": address}
    answer([exported.loading, *filter(None, [address])], result, as_json=as_json)


@click.command(cls=Detailed, rarely=("mpp_override", "workers"))
@RUNS
@QUIET
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--run", "name", metavar="NAME", help="Run to use.  [default: the newest]")
@click.option("--task", metavar="TASK", help="Task whose head predicts.  [default: the run's only task]")
@click.option(
    "--class",
    "shown",
    metavar="CLASS",
    help="Class that maps show.  [default: class 1 of two; of more, the most probable]",
)
@click.option("--features", is_flag=True, help="Also write features of slides as TRIDENT does.")
@click.option("--dense", is_flag=True, help="Write masks and points of slides, by the run's decoder.")
@click.option("--patch", type=WholeRange(16), metavar="PX", help="Side of patches.  [default: as in training]")
@click.option(
    "--mpp",
    type=FiniteRange(0.05, 10),
    metavar="UM",
    help="Micrometres per pixel, for slides whose files do not state it.",
)
@click.option(
    "--mpp-override",
    type=FiniteRange(0.05, 10),
    metavar="UM",
    help="Micrometres per pixel, for all slides, whatever their files state.",
)
@click.option(
    "--tissue",
    type=FiniteRange(0, 1),
    metavar="SHARE",
    help="Minimum share of tissue in a patch; 0: all patches.  [default: as in training; with --dense: any tissue]",
)
@click.option("--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@WORKERS
@click.option("--out", type=FOLDER, default=Path("predictions"), show_default=True, help="Output folder.")
@JSON
def predict(
    runs: Path,
    quiet: bool,
    paths: tuple[Path, ...],
    name: str | None,
    task: str | None,
    shown: str | None,
    patch: int | None,
    mpp: float | None,
    mpp_override: float | None,
    tissue: float | None,
    features: bool,
    dense: bool,
    device: str,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Apply a run's network and head to slides, images, or folders of them.

    Writes for each slide <name>.heatmap.tif (for OpenSlide and QuPath), <name>.heatmap.png with a colour bar, and
    <name>.geojson, its patches for QuPath; with --dense <name>.mask.tif, <name>.masks.geojson and
    <name>.points.geojson. Writes one table, images.csv, for other images. Lists files that cannot be predicted at the
    end; the exit status is then 1.

    \b
    Example: mtrain predict --run RUN --task Camelyon16 slide.svs
    """
    run = run_of(runs, name)
    if task is not None:
        run.check_trained_on(task)
    if dense and (features or shown is not None):
        raise UsageError("--dense goes neither with --features nor with --class", remedy="omit one of them")
    from mtrain.disk.atomic import check_folder
    from mtrain.predict import Classifier, Patch, Segmenter, predict_dense
    from mtrain.predict import predict as run_prediction

    check_folder(out)
    classifier = Classifier(run, task, device)
    segmenter = Segmenter(run, classifier) if dense else None
    size = Patch.of(classifier.about, patch, mpp, mpp_override, tissue)
    report = reporter(quiet or as_json, notes=True)  # what is not read or predicted
    failures: list[str] = []

    def failed(path: Path, error: UserError) -> None:
        failures.append(str(error) if error.where is not None else f"{path}: {error}")

    if mpp_override is not None:
        note_unused(report, {"mpp": "--mpp-override replaces it"})
    if segmenter is not None:
        results = predict_dense(segmenter, paths, size, out, report, workers, failed)
        answer([one.pop("line") for one in results], results, as_json=as_json)
        end(failures)
        return
    results = run_prediction(
        classifier, paths, size, out, report, shown, features=features, workers=workers, on_failure=failed
    )
    if not failures and not any("heatmap" in result for result in results):
        side = ("patch",) if classifier.about.side else ()  # else it was needed
        note_unused(
            report, dict.fromkeys(("mpp", "mpp_override", "tissue", "shown", "workers", *side), "it is for slides")
        )
    answer(map(_line, results), results, as_json=as_json)
    end(failures)


def _line(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in result["classes"].items())
    counts = counts or counted(result["images"], "image")  # of numbers
    names = ("heatmap", "image", "geojson", "features")
    files = f" -> {', '.join(result[name] for name in names if result[name])}" if "heatmap" in result else ""
    return f"{result['file']}: {counts}{files}"
