"""An audit of labels as files: a page with the images, a table, and an entry for `[[errata]]` of the manifest."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from dpconvert.plural import counted
from dpconvert.readers.draft.toml import printed, quoted
from mtrain.data.batches.images import Images
from mtrain.disk.atomic import replacing, write_text
from mtrain.report.pages.page import template
from mtrain.transfers.label_errors import Doubt, LabelAudit

SHOWN = 200  # images on the page
PAIRS = 5  # pairs of classes that the terminal shows
SIDE = 224  # px
COLUMNS = ("sample", "key", "split", "group", "given", "predicted", "p_given", "p_predicted")
CITATION = "mtrain audit-labels; confident learning, Northcutt et al., JAIR 70 (2021)"


def write_labels(audit: LabelAudit, folder: Path) -> list[Path]:
    """Write <Task>.html, <Task>.csv and <Task>.toml into the folder. Returns their paths.

    Raises:
        ShardError: an image cannot be read.
        RunError: a file cannot be written.
    """
    paths = [folder / f"{audit.task.name}.{kind}" for kind in ("html", "csv", "toml")]
    write_text(paths[0], _page(audit, paths[2].name))
    with replacing(paths[1]) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(described(audit, doubt) for doubt in audit.doubts)
    write_text(paths[2], erratum(audit))
    return paths


def described(audit: LabelAudit, doubt: Doubt) -> dict[str, Any]:
    """A doubt as JSON."""
    rows, classes = audit.rows, audit.names
    return {
        "sample": doubt.sample,
        "key": str(rows.key[doubt.row]),
        "split": doubt.split,
        "group": str(rows.group[doubt.row]),
        "given": classes[doubt.given],
        "predicted": classes[doubt.predicted],
        "p_given": round(doubt.p_given, 4),
        "p_predicted": round(doubt.p_predicted, 4),
    }


def dump(audit: LabelAudit, paths: list[Path]) -> dict[str, Any]:
    """The audit as JSON."""
    return {
        "task": audit.task.name,
        "weights": audit.weights,
        "samples": len(audit.rows),
        "accuracy": audit.accuracy,
        "doubts": [described(audit, doubt) for doubt in audit.doubts],
        "notes": list(audit.notes),
        "files": [str(path) for path in paths],
    }


def lines(audit: LabelAudit, paths: list[Path]) -> Iterator[str]:
    """What the terminal shows: numbers, the pairs of classes that are most often in doubt, and the files."""
    count = counted(len(audit.doubts), "label")
    yield f"{audit.task.name}: {count} of {_judgements(audit):,} in doubt; predictions agree with {audit.accuracy:.1%}"
    pairs = _pairs(audit)
    yield from (f"  {given}, looks like {predicted}: {number}" for number, given, predicted in pairs[:PAIRS])
    if rest := sum(number for number, _, _ in pairs[PAIRS:]):
        yield f"  other pairs of classes: {rest}"
    yield from (f"note: {note}" for note in audit.notes)
    yield from map(str, paths)


def _judgements(audit: LabelAudit) -> int:
    """The number of labels: one for each image, or one for each image and class."""
    return len(audit.rows) * (1 if audit.task.target == "class" else audit.task.num_classes)


def erratum(audit: LabelAudit) -> str:
    """The entry for the manifest, with a line for each sample, as TOML."""
    name = audit.task.name
    head = [
        f"# Labels of {name} that predictions from other groups contradict with confidence, the most doubtful first.",
        f"# Look at the images in {name}.html, delete the lines of those whose label is right, and append the rest to",
        "# the manifest. `dpconvert` then leaves these samples out; `--errata none` keeps them.",
        "",
        "[[errata]]",
        'name = "labels"',
        f"reason = {quoted(f'label contradicted by predictions from other groups (features: {audit.weights})')}",
        f"citation = {quoted(CITATION)}",
        "samples = [",
    ]
    return "\n".join([*head, *(f"  {line}" for line in _samples(audit)), "]", ""])


def _samples(audit: LabelAudit) -> Iterator[str]:
    about: dict[str, list[str]] = {}
    for doubt in audit.doubts:
        given, predicted = (printed(audit.names[label]) for label in (doubt.given, doubt.predicted))
        text = f"{given} {doubt.p_given:.3f}, predicted {predicted} {doubt.p_predicted:.3f}"
        about.setdefault(doubt.sample, []).append(text)
    yield from (f"{quoted(sample)},  # {'; '.join(texts)}" for sample, texts in about.items())


def _pairs(audit: LabelAudit) -> list[tuple[int, str, str]]:
    """(number of doubts, given class, predicted class), the most frequent pair first."""
    matrix, classes = audit.matrix(), audit.names
    pairs = [(int(matrix[i, j]), one, other) for i, one in enumerate(classes) for j, other in enumerate(classes)]
    return sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])


def _page(audit: LabelAudit, toml: str) -> str:
    shown = audit.doubts[:SHOWN]
    images = Images([(audit.task, audit.rows.take([doubt.row for doubt in shown]))]) if shown else None
    figures = [
        described(audit, doubt) | {"src": _inlined(images, number)}
        for number, doubt in enumerate(shown)
        if images is not None
    ]
    return template("labels.html").render(
        task=audit.task.name,
        kind=audit.task.card.group_kind,
        samples=_judgements(audit),
        doubts=len(audit.doubts),
        accuracy=audit.accuracy,
        weights=audit.weights,
        notes=audit.notes,
        pairs=_pairs(audit),
        figures=figures,
        backbone=audit.backbone,
        toml=toml,
    )


def _inlined(images: Images, number: int) -> str:
    """The image, scaled to at most SIDE px, as a data URI."""
    small = Pillow.fromarray(images.decode(number))
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
