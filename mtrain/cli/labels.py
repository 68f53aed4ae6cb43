"""The command that looks for wrong labels: `audit-labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.terminal import JSON, Detailed, answer
from mtrain.cli.options import DEVICE, FEATURES_OF, FOLDER, TASKS, WORKERS, end, network_of, reporter
from mtrain.cli.unused_options import note_unused


@click.command(
    "audit-labels",
    cls=Detailed,
    rarely=("cache", "cache_size", "check_images", "weights_key", "backbone_options", "size"),
)
@FEATURES_OF
@TASKS
@click.option("--out", type=FOLDER, default=Path("labels"), show_default=True, help="Output folder.")
@DEVICE
@WORKERS
@JSON
def audit_labels(
    runs: Path,
    quiet: bool,
    name: str | None,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
    weights: str,
    weights_key: str | None,
    shards: Path | None,
    tasks: tuple[str, ...],
    out: Path,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Find training and validation images whose labels are probably wrong (confident learning).

    A classifier on a network's features predicts each image from those of other patients or slides. Where it
    contradicts the label with confidence, the image is shown on a page, and listed for [[errata]] of the manifest. The
    weights must not have been trained on the task.

    \b
    Example: mtrain audit-labels --task Lung --weights imagenet
    """
    from mtrain.transfers.request import places, targets, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    chosen, weights = targets(run, shards, tasks, option="--task"), weights_of(run, weights, key=weights_key)
    report = reporter(quiet or as_json)
    note_unused(report, places(tasks))
    from mtrain.cli import transfer_work
    from mtrain.report.pages.labels_page import dump, lines, write_labels
    from mtrain.transfers.label_errors import audit_labels as audit
    from mtrain.transfers.transfer import source_of

    source, shown = source_of(run, weights, key=weights_key), list[str]()

    def audited(task: Any) -> list[dict[str, Any]]:
        found = audit(source, task, workers=workers, device=device, report=report)
        paths = write_labels(found, out)
        shown.extend(lines(found, paths))
        return [dump(found, paths)]

    results, failures = transfer_work.each(chosen, audited)
    answer(shown, results, as_json=as_json)
    end(failures)
