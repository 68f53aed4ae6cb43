"""Predicts image files: a table with one row per file, its class and the probability of each class."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image import Pixels, open_image
from dpconvert.image.rgb import Range
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.disk.atomic import replacing
from mtrain.errors import UserError
from mtrain.predict.classifier import BATCH, Classifier

HALF = 0.5  # probability above which an image with any number of classes has one
COMMON = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
JPEG_2000 = {".jp2", ".j2k", ".j2c", ".jpx", ".jpf"}
NETPBM = {".pbm", ".pgm", ".pnm", ".ppm", ".pam"}
SUFFIXES = COMMON | JPEG_2000 | NETPBM


OnFailure = Callable[[Path, UserError], None]


def predict_images(
    classifier: Classifier, files: Sequence[Path], table: Path, report: Reporter, on_failure: OnFailure
) -> dict[str, int] | None:
    """Write the table. Returns for each class the number of images that it is the most probable class of; of tasks with
    any number of classes for an image, those that it has a probability above a half for. None if no image can be read:
    there is no table.

    on_failure: is called for each file that cannot be read, which has no row.
    """
    counts: Counter[str] = Counter()
    notes: dict[str, list[Path]] = {}
    rows = _rows(classifier, files, report, on_failure, counts, notes)
    first = next(rows, None)
    if first is None:
        return None
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file", *_head(classifier)])
        writer.writerows(chain([first], rows))
    for note, some in notes.items():
        report.note(f"{counted(len(some), 'image')}: {note}, the first: {some[0]}")
    return {name: counts[name] for name in classifier.classes}


def _rows(
    classifier: Classifier,
    files: Sequence[Path],
    report: Reporter,
    on_failure: OnFailure,
    counts: Counter[str],
    notes: dict[str, list[Path]],
) -> Iterator[list[object]]:
    """The row of each image that can be read; its classes are added to `counts`, what is not read of it to `notes`."""
    with report.bar(f"{classifier.about.task}: images", len(files), unit="images") as advance:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            images = {}
            for file in batch:
                try:
                    images[file] = _pixels(file, classifier.about.range, notes)
                except ReadError as error:
                    on_failure(file, error)
            answers = classifier.answer(list(images.values())) if images else ()
            for file, answer in zip(images, answers, strict=True):
                cells, found = _cells(classifier, answer)
                counts.update(found)
                yield [file, *cells]
            advance(len(batch))


def _head(classifier: Classifier) -> list[str]:
    if classifier.about.target == "value":
        return [f"value ({classifier.about.unit})" if classifier.about.unit else "value"]
    named = {"class": "class", "labels": "classes"}[classifier.about.target]
    return [named, *(f"p {name}" for name in classifier.classes)]


def _cells(classifier: Classifier, answer: NDArray[np.float32]) -> tuple[list[str], list[str]]:
    """The cells of an image, and the classes that it is counted for."""
    if classifier.about.target == "value":
        return [f"{answer[0]:.6g}"], []
    if classifier.about.target == "labels":
        found = [name for name, p in zip(classifier.classes, answer, strict=True) if p > HALF]
    else:
        found = [classifier.classes[int(answer.argmax())]]
    return ["; ".join(found), *(f"{p:.6f}" for p in answer.tolist())], found


def _pixels(file: Path, scale: Range | None, notes: dict[str, list[Path]]) -> Pixels:
    with open_image([file], scale=scale) as image:
        for note in image.notes:
            notes.setdefault(note, []).append(file)
        return image.read(0, 0, image.width, image.height)
