"""What the colours of images alone reveal of their classes: a baseline for judging a high score.

The colours of an image are a histogram of 8 x 8 x 8 cells of RGB, without any position. An image of the validation set
takes the classes of the training images with the nearest histograms (Hellinger distance). A high score means that
stain, scanner or compression differ between the classes, or that the classes differ in colour: a network may then
learn nothing else (for NCT-CRC-HE, arXiv:2409.11546 reports over 80%).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpconvert.card import METRICS
from dpconvert.kappa import quadratic_kappa

MOST = {"train": 1000, "val": 500}  # images of each set, evenly spaced
CELLS = 8  # per channel
NEIGHBOURS = 10
Labels = NDArray[np.int64]
Reader = Callable[[list[int]], Iterable[tuple[int, NDArray[np.uint8]]]]


@dataclass(frozen=True)
class ColourBaseline:
    """The score on the validation set by colours alone. chance: that of the most frequent class, or of a coin.

    metric: that of the task's card. train, val: number of images examined.
    """

    metric: str
    score: float
    chance: float
    train: int
    val: int

    def in_words(self) -> str:
        """The result in one line."""
        return (
            f"{self.score:.2f} {METRICS[self.metric]} on {self.val:,} validation images, from {self.train:,} training "
            f"images (chance: {self.chance:.2f})"
        )


def baseline(
    metric: str, classes: int, train: tuple[list[int], Labels], val: tuple[list[int], Labels], read: Reader
) -> ColourBaseline | None:
    """The score of a nearest-neighbour classifier on colour histograms; None if it is not defined.

    train, val: numbers of samples, and their labels. read: gives (number, RGB pixels) of each numbered sample.
    """
    (rows, labels), (queries, truth) = train, val
    needed = 1 if metric == "accuracy" else 2
    if len(set(labels.tolist())) < 2 or len(set(truth.tolist())) < needed:
        return None
    votes = _votes(_histograms(read, queries), _histograms(read, rows), labels, classes)
    score, chance = _score(metric, truth, votes, int(np.bincount(labels, minlength=classes).argmax()))
    return ColourBaseline(metric, score, chance, len(rows), len(queries))


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The square roots of the shares of pixels (height, width, 3) in each cell of RGB: (CELLS ** 3,), of length 1."""
    cell = (pixels.reshape(-1, 3).astype(np.int64) * CELLS) >> 8
    counts = np.bincount(cell @ np.array([CELLS * CELLS, CELLS, 1]), minlength=CELLS**3)
    shares: NDArray[np.float32] = np.sqrt(counts / counts.sum()).astype(np.float32)
    return shares


def _histograms(read: Reader, rows: list[int]) -> NDArray[np.float32]:
    found = {number: histogram(pixels) for number, pixels in read(sorted(rows))}
    return np.stack([found[row] for row in rows])


def _votes(
    queries: NDArray[np.float32], known: NDArray[np.float32], labels: Labels, classes: int
) -> NDArray[np.float64]:
    """The mean cosine of the nearest histograms of each class among the NEIGHBOURS nearest: (n, classes)."""
    likeness = queries @ known.T
    count = min(NEIGHBOURS, len(labels))
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    votes = np.zeros((len(queries), classes))
    for place in range(count):
        column = nearest[:, place]
        np.add.at(votes, (np.arange(len(queries)), labels[column]), np.take_along_axis(likeness, nearest, 1)[:, place])
    return votes / count


def _score(metric: str, truth: Labels, votes: NDArray[np.float64], frequent: int) -> tuple[float, float]:
    """The score, and that of chance."""
    if metric == "roc_auc":
        from scipy.stats import mannwhitneyu  # takes longer to import than all else here

        positive, value = truth == 1, votes[:, 1] - votes[:, 0]
        above = mannwhitneyu(value[positive], value[~positive], method="asymptotic").statistic
        return float(above / (positive.sum() * (~positive).sum())), 0.5
    found = votes.argmax(axis=1)
    if metric == "quadratic_kappa":
        classes = votes.shape[1]
        table = np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes)
        return float(quadratic_kappa(table)), 0.0
    return float((found == truth).mean()), float((truth == frequent).mean())


def chosen(splits: NDArray[np.object_], evenly: Callable[[NDArray[np.intp], int], list[int]]) -> Iterator[list[int]]:
    """The numbers of the training and of the validation samples to look at."""
    for split, most in MOST.items():
        yield evenly(np.flatnonzero(splits == split), most)
