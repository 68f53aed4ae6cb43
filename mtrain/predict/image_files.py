"""Predicts image files: a table with one row per file, its class and the probability of each class."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dpconvert.image import Pixels, open_image
from dpconvert.image.rgb import Range
from dpconvert.runtime.progress import Reporter
from mtrain.atomic import replacing
from mtrain.predict.classifier import BATCH, Classifier

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def predict_images(classifier: Classifier, files: Sequence[Path], table: Path, report: Reporter) -> dict[str, int]:
    """Write the table. Returns for each class the number of images that it is the most probable class of.

    Raises:
        ReadError: a file cannot be read.
    """
    counts: Counter[str] = Counter()
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file", "class", *(f"p {name}" for name in classifier.classes)])
        with report.bar(f"{classifier.about.task}: images", len(files), unit="images") as advance:
            for start in range(0, len(files), BATCH):
                batch = files[start : start + BATCH]
                answers = classifier.answer([_pixels(file, classifier.about.range) for file in batch])
                for file, answer in zip(batch, answers, strict=True):
                    name = classifier.classes[int(answer.argmax())]
                    writer.writerow([file, name, *(f"{p:.6f}" for p in answer.tolist())])
                    counts[name] += 1
                advance(len(batch))
    return {name: counts[name] for name in classifier.classes}


def _pixels(file: Path, scale: Range | None) -> Pixels:
    with open_image([file], scale=scale) as image:
        return image.read(0, 0, image.width, image.height)
