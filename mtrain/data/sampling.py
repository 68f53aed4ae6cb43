"""Draw task, image and augmentation as a function of (seed, iteration, slot). There is no state, so workers, ranks and
resuming change nothing. Training on a single task uses (seed, epoch, position), with every image once per epoch.

Slot s of iteration i is block (s, i, stream) of the counter-based generator Philox4x64-10 keyed by the seed (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", 2011). Only its raw 64-bit words are used. Each is mapped to 0..n-1
as the upper half of word x n: no outcome is more likely than another by more than a factor of 1 + n / 2^64.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
WORDS_A_SLOT = 4
LOOKS_A_SLOT = 16
LOWER = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


class Stream(enum.IntEnum):
    """The purpose of a draw. Streams are independent of each other."""

    TRAIN = 0
    ADAPT = 1
    MODEL = 2
    EPOCH = 3
    LOOKS = 4
    MORE_LOOKS = 5


@dataclasses.dataclass(frozen=True)
class Draw:
    """An entry per slot: task, row within the task, place of the crop (units of 2^-32), flips (left-right, up-down)."""

    task: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]


class Mixture:
    """The probabilities of tasks and images. In the paper all tasks, and all images of a task, are equally likely.

    shares: relative probability of each task, exact to within 2^-53; None: all equal.
    labels: the labels of each task's images. If given, a class is drawn uniformly from those that the task has, then an
        image uniformly from that class.
    """

    def __init__(
        self, shares: Sequence[float] | None = None, labels: Sequence[npt.NDArray[np.int64]] | None = None
    ) -> None:
        self.bounds: Words | None = None
        if shares is not None:
            chances = np.cumsum(np.asarray(shares, dtype=np.float64) / np.sum(shares))[:-1]
            self.bounds = (np.minimum(chances, 1 - 2.0**-53) * 2.0**64).astype(np.uint64)
        self.classes = None if labels is None else _Classes(labels)

    def task(self, words: Words, tasks: int) -> Words:
        """The task drawn by each word."""
        if self.bounds is None:
            return below(words, np.uint64(tasks))
        return np.searchsorted(self.bounds, words, side="right").astype(np.uint64)

    def row(self, words: Words, task: Words, sizes: Sequence[int]) -> Words:
        """The row, within its task, drawn by the four words of each slot."""
        if self.classes is None:
            return below(words[:, 1], np.asarray(sizes, dtype=np.uint64)[task])
        return self.classes.row(task, words[:, 3] << HALF, words[:, 1])


class _Classes:
    """The rows of all tasks in the order of task and label, and the start of each class."""

    def __init__(self, labels: Sequence[npt.NDArray[np.int64]]) -> None:
        orders = [np.argsort(of_task, kind="stable") for of_task in labels]
        sizes = [np.unique(of_task, return_counts=True)[1] for of_task in labels]
        self.rows = np.concatenate(orders).astype(np.uint64)
        self.sizes = np.concatenate(sizes).astype(np.uint64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.count = np.array([len(of_task) for of_task in sizes], dtype=np.uint64)
        self.first = np.cumsum(self.count) - self.count

    def row(self, task: Words, which: Words, within: Words) -> Words:
        chosen = self.first[task] + below(which, self.count[task])
        drawn: Words = self.rows[self.starts[chosen] + below(within, self.sizes[chosen])]
        return drawn


UNIFORM = Mixture()


def draw(
    sizes: Sequence[int],
    seed: int,
    iteration: int,
    slots: range,
    stream: Stream = Stream.TRAIN,
    mixture: Mixture = UNIFORM,
) -> Draw:
    """The samples of these slots: a task is drawn uniformly, then one of its `sizes[t]` images uniformly, unless
    `mixture` has other probabilities.
    """
    words = _words(seed, iteration, slots, stream)
    task = mixture.task(words[:, 0], len(sizes))
    row = mixture.row(words, task, sizes)
    place, flips = _augmentation(words)
    return Draw(task.astype(np.int64), row.astype(np.int64), place, flips)


def looks(seed: int, iteration: int, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(N, 16) numbers in [0, 1): the amounts of further augmentation of these slots (mtrain.data.batches.colour)."""
    every = range(int(slots.min()), int(slots.max()) + 1)
    words = [
        _words(seed, iteration, every, stream)[slots - every.start] for stream in (Stream.LOOKS, Stream.MORE_LOOKS)
    ]
    halves = np.concatenate([part >> shift & LOWER for part in words for shift in (HALF, np.uint64(0))], axis=1)
    return ((halves >> np.uint64(8)) * 2.0**-24).astype(np.float32)  # float32 holds 24 bits: more could round up to 1


def epoch(size: int, seed: int, number: int, positions: slice = slice(None)) -> Draw:
    """The samples at these positions of an epoch, which holds each of the `size` images of one task once.

    Row r has block (r, number, EPOCH): its first word determines the order of the rows, the others the augmentation.
    """
    words = _words(seed, number, range(size), Stream.EPOCH)
    order = np.argsort(words[:, 0], kind="stable")[positions].astype(np.int64)
    place, flips = _augmentation(words[order])
    return Draw(np.zeros_like(order), order, place, flips)


def model_seed(seed: int, iteration: int, slot: int = 0) -> int:
    """The seed of the network's own randomness (dropout, stochastic depth) for the samples that start at this slot."""
    return int(_words(seed, iteration, range(slot, slot + 1), Stream.MODEL)[0, 0] >> np.uint64(1))


def digest(drawn: Draw, keys: Sequence[str]) -> str:
    """The digest of a batch: sha256 over the keys and the augmentation of its samples, in slot order."""
    rows = zip(keys, drawn.place.tolist(), drawn.flips.tolist(), strict=True)
    return hashlib.sha256("".join(f"{key} {place} {flips}\n" for key, place, flips in rows).encode()).hexdigest()


def _words(seed: int, iteration: int, slots: range, stream: Stream) -> Words:
    """Four raw words for each of these consecutive slots."""
    counter = np.array([slots.start, iteration, stream, 0], dtype=np.uint64)
    generator = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter)
    words: Words = np.asarray(generator.random_raw(WORDS_A_SLOT * len(slots)), dtype=np.uint64)
    return words.reshape(-1, WORDS_A_SLOT)


def _augmentation(words: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Place and flips of each slot."""
    flips = np.stack([words[:, 3] >> np.uint64(63), (words[:, 3] >> np.uint64(62)) & np.uint64(1)], axis=1)
    return (words[:, 2] >> HALF).astype(np.int64), flips.astype(bool)


def below(words: Words, bound: np.uint64 | Words) -> Words:
    """words x bound >> 64, exactly, for bounds below 2^32."""
    upper, lower = words >> HALF, words & LOWER
    return (upper * bound + (lower * bound >> HALF)) >> HALF
