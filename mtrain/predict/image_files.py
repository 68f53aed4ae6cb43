"""Predicts image files: a table with one row per file, its class and the probability of each class."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Pixels, open_image
from dpconvert.image.rgb import Range
from dpconvert.runtime.progress import Reporter
from mtrain.atomic import replacing
from mtrain.predict.classifier import BATCH, Classifier

HALF = 0.5  # probability above which an image with any number of classes has one
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def predict_images(classifier: Classifier, files: Sequence[Path], table: Path, report: Reporter) -> dict[str, int]:
    """Write the table. Returns for each class the number of images that it is the most probable class of; of tasks with
    any number of classes for an image, those that it has a probability above a half for.

    Raises:
        ReadError: a file cannot be read.
    """
    counts: Counter[str] = Counter()
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file", *_head(classifier)])
        with report.bar(f"{classifier.about.task}: images", len(files), unit="images") as advance:
            for start in range(0, len(files), BATCH):
                batch = files[start : start + BATCH]
                answers = classifier.answer([_pixels(file, classifier.about.range) for file in batch])
                for file, answer in zip(batch, answers, strict=True):
                    cells, found = _cells(classifier, answer)
                    writer.writerow([file, *cells])
                    counts.update(found)
                advance(len(batch))
    return {name: counts[name] for name in classifier.classes}


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


def _pixels(file: Path, scale: Range | None) -> Pixels:
    with open_image([file], scale=scale) as image:
        return image.read(0, 0, image.width, image.height)
