"""Pictures in, a table out: a row a file, with its class and the probability of each."""

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


def predict_pictures(classifier: Classifier, files: Sequence[Path], table: Path, report: Reporter) -> dict[str, int]:
    """Write the table; class -> how many pictures it was the likeliest of.

    Raises:
        ReadError: a file that cannot be read.
    """
    counts: Counter[str] = Counter()
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["file", "class", *(f"p {name}" for name in classifier.classes)])
        with report.bar(f"{classifier.about.task}: pictures", len(files), unit="pictures") as advance:
            for start in range(0, len(files), BATCH):
                some = files[start : start + BATCH]
                answers = classifier.answer([_pixels(file, classifier.about.range) for file in some])
                for file, answer in zip(some, answers, strict=True):
                    name = classifier.classes[int(answer.argmax())]
                    writer.writerow([file, name, *(f"{p:.6f}" for p in answer.tolist())])
                    counts[name] += 1
                advance(len(some))
    return {name: counts[name] for name in classifier.classes}


def _pixels(file: Path, scale: Range | None) -> Pixels:
    with open_image([file], scale=scale) as image:
        return image.read(0, 0, image.width, image.height)
