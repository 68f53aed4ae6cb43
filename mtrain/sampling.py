"""(seed, iteration, slot) in; task, picture and augmentation out. No state: workers, ranks and resuming change nothing.
For training on one task alone the same with (seed, epoch, position), every picture once an epoch.

Slot s of iteration i is block (s, i, stream) of the counter-based generator Philox4x64-10 keyed by the seed (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", 2011). Only its raw 64-bit words are used, and each is mapped to
0..n-1 as the upper half of word x n: no outcome is more likely than another by more than a factor of 1 + n / 2^64.
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
LOWER = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


class Stream(enum.IntEnum):
    """What a draw is for; streams are independent of each other."""

    TRAIN = 0
    ADAPT = 1
    MODEL = 2
    EPOCH = 3


@dataclasses.dataclass(frozen=True)
class Draw:
    """One entry a slot: task, row within the task, place of the crop (units of 2^-32), flips (left-right, up-down)."""

    task: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]


def draw(sizes: Sequence[int], seed: int, iteration: int, slots: range, stream: Stream = Stream.TRAIN) -> Draw:
    """The samples of these slots: a task uniformly (`sizes[t]` pictures each), then one of its pictures uniformly."""
    words = _words(seed, iteration, slots, stream)
    task = _below(words[:, 0], np.uint64(len(sizes)))
    row = _below(words[:, 1], np.asarray(sizes, dtype=np.uint64)[task])
    place, flips = _augmentation(words)
    return Draw(task.astype(np.int64), row.astype(np.int64), place, flips)


def epoch(size: int, seed: int, number: int, positions: slice = slice(None)) -> Draw:
    """The samples at these positions of an epoch, in which each of `size` pictures of one task comes once.

    Row r has block (r, number, EPOCH): the rows are ordered by its first word, its others are the augmentation.
    """
    words = _words(seed, number, range(size), Stream.EPOCH)
    order = np.argsort(words[:, 0], kind="stable")[positions].astype(np.int64)
    place, flips = _augmentation(words[order])
    return Draw(np.zeros_like(order), order, place, flips)


def model_seed(seed: int, iteration: int) -> int:
    """The seed of the network's own randomness (dropout, stochastic depth) in one iteration."""
    return int(_words(seed, iteration, range(1), Stream.MODEL)[0, 0] >> np.uint64(1))


def digest(drawn: Draw, keys: Sequence[str]) -> str:
    """A name for a batch: sha256 over the keys and the augmentation of its samples, in slot order."""
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


def _below(words: Words, bound: np.uint64 | Words) -> Words:
    """words x bound >> 64, exactly, for bounds below 2^32."""
    upper, lower = words >> HALF, words & LOWER
    return (upper * bound + (lower * bound >> HALF)) >> HALF
