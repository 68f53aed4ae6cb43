"""The commands that give results away: `report`, `export`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.terminal import JSON, QUIET, answer
from mtrain.cli.options import EVALUATIONS, FOLDER, OUT, RUNS, SWEEPS, note_unused, reporter, run_of


@click.command()
@RUNS
@SWEEPS
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--sweep", metavar="NAME", help="A sweep instead of a run: the paper's tables and figures.")
@EVALUATIONS
@click.option("--paper", is_flag=True, help="Set the published numbers beside those of the sweep.")
@click.option("--out", type=OUT, help="[default: report.html in the run, or in report/ of the sweep]")
@JSON
def report(
    runs: Path, sweeps: Path, name: str | None, sweep: str | None, evaluations: Path, paper: bool, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """One page of a run: pool, learning curves, transfer scores; or, with --sweep, of a sweep.

    A run's tables are written as Markdown too; a sweep's as CSV, its figures as SVG and PNG, beside the page.

    \b
    Example: mtrain report
    """
    said = reporter(as_json)
    if sweep is not None:
        note_unused(said, dict.fromkeys(("runs", "name"), "--sweep names a sweep instead of a run"))
        from mtrain.sweep.store import open_store

        store = open_store(sweeps, sweep)
        from mtrain.report.sweep_page import write_sweep_report

        page = write_sweep_report(store, evaluations, out or store.path / "report" / "report.html", paper=paper,
                                  report=said)  # fmt: skip
        answer([str(page)], {"page": str(page)}, as_json=as_json)
        return
    note_unused(said, dict.fromkeys(("sweeps", "evaluations", "paper"), "it is for --sweep"))
    run = run_of(runs, name)
    from mtrain.report.run_page import write_report

    page, table = write_report(run, out or run.path / "report.html")
    answer([table, str(page)], {"page": str(page), "table": table}, as_json=as_json)


@click.command()
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
@JSON
def export(
    runs: Path, quiet: bool, run: str | None, to: str, task: str | None, out: Path | None, accept_licence: bool,
    push: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a run's network as other tools load it, with a model card.

    RUN is a run's name, by default the newest's.

    \b
    Example: mtrain export --to torchvision --out exported/
    """
    chosen = run_of(runs, run)
    chosen.check_finished()
    if task is not None:
        chosen.check_trained_on(task)
    from mtrain.export import export as write
    from mtrain.export.hub import push as upload

    made = write(chosen, to, out or chosen.path / "export" / to, task, accepted=accept_licence)
    report = reporter(quiet or as_json)
    report.note(f"{chosen.name}: {', '.join(made.files)} -> {made.folder}")
    address = upload(made.folder, push) if push else None
    found = {"folder": str(made.folder), "files": list(made.files), "loading": made.loading, "address": address}
    answer([made.loading, *filter(None, [address])], found, as_json=as_json)


@click.command()
@RUNS
@QUIET
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@click.option("--task", metavar="TASK", help="The head that answers.  [default: the run's only one]")
@click.option("--class", "shown", metavar="CLASS", help="What maps show.  [default: 1 of two, the likeliest of more]")
@click.option("--patch", type=click.IntRange(16), metavar="PX", help="Side of patches.  [default: as in training]")
@click.option("--mpp", type=click.FloatRange(0.05, 10), metavar="UM", help="Um per pixel of slides that state none.")
@click.option("--mpp-override", type=click.FloatRange(0.05, 10), metavar="UM",
    help="Um per pixel of all slides, whatever their files state.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=FOLDER, default=Path("predictions"), show_default=True, help="Folder of the answers.")
@JSON
def predict(
    runs: Path, quiet: bool, paths: tuple[Path, ...], name: str | None, task: str | None, shown: str | None,
    patch: int | None, mpp: float | None, mpp_override: float | None, device: str, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Ask a run's head about slides, pictures, or folders of them.

    Of a slide: <name>.heatmap.tif, a map that OpenSlide and QuPath open, and <name>.geojson, its patches for QuPath.
    Of pictures: pictures.csv.

    \b
    Example: mtrain predict --run RUN --task Camelyon16 slide.svs
    """
    run = run_of(runs, name)
    if task is not None:
        run.check_trained_on(task)
    from mtrain.predict import Classifier, Patch
    from mtrain.predict import predict as ask

    classifier = Classifier(run, task, device)
    size = Patch.of(classifier.about, patch, mpp, mpp_override)
    found = ask(classifier, paths, size, out, reporter(quiet or as_json), shown)
    answer(map(_answered, found), found, as_json=as_json)


def _answered(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in found["classes"].items())
    where = f" -> {found['heatmap']}, {found['geojson']}" if "heatmap" in found else ""
    return f"{found['file']}: {counts}{where}"
