"""Prints in, pairs that look alike out: in time N log N, whatever the pictures.

The signs of the lowest waves are a hash of 63 bits. It is sorted under many random orders of its bits; pictures that
look alike agree in their first bits under some of these orders, and then lie next to each other (LSH forest: Bawa,
Condie and Ganesan, WWW 2005). Each hash is looked up in all eight positions that a picture can be laid in. A candidate
becomes a pair by the correlation of all waves, in the position that suits best; where few waves make up a picture, as
a single cell on an even ground, chance correlates them easily, and more of it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dpconvert.tasks.audit.prints import SIDE

HASHED = 8  # waves a side that the hash is made of
ORDERS = 24
AROUND = 4  # places to each side of where a hash would be sorted in
MOST_DIFFERENT = 13  # bits of 63: a crop by 2 % changes 7, and a million others give few candidates
ALIKE = 0.85  # correlation; docs/reliability.md has what it was chosen by
SURE = 8.0  # standard deviations of chance (Fisher's z)
AT_ONCE = 1 << 15  # pairs
POPULATION = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]


def pairs(
    waves: NDArray[np.int8], *, alike: float = ALIKE, orders: int = ORDERS, seed: int = 0
) -> tuple[Indices, NDArray[np.float32]]:
    """Pairs (P, 2) of pictures that look alike, the lower number first, sorted; and their correlation (P,).

    waves: (N, SIDE, SIDE). The same input gives the same pairs.
    """
    found = candidates(signs(waves), orders, seed)
    kept, likeness = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(found), AT_ONCE):
        some = found[start : start + AT_ONCE]
        r = correlation(waves[some[:, 0]], waves[some[:, 1]])
        same = (r >= alike) & (r >= _chance(waves[some]))
        kept.append(some[same])
        likeness.append(r[same])
    return np.concatenate(kept), np.concatenate(likeness)


def signs(waves: NDArray[np.int8]) -> NDArray[np.bool_]:
    """The hash (N, HASHED * HASHED) of each picture: whether a wave is positive; the first, its mean, never is."""
    bits: NDArray[np.bool_] = waves[:, :HASHED, :HASHED].reshape(-1, HASHED * HASHED) > 0
    bits[:, 0] = False
    return bits


def candidates(bits: NDArray[np.bool_], orders: int, seed: int, *, turned: bool = True) -> Indices:
    """Pairs (P, 2), the lower number first, sorted, of hashes that differ little.

    turned: in one of the eight positions of a picture; else as they are.
    """
    count = len(bits)
    rng = np.random.default_rng(seed)
    codes = [np.zeros(0, np.int64)]
    for _ in range(orders):
        order = rng.permutation(np.arange(1, HASHED * HASHED))
        codes.append(np.unique(np.concatenate(list(_neighbours(bits, order, turned)))))
    found = np.unique(np.concatenate(codes))
    return np.stack([found // count, found % count], axis=1) if count else np.zeros((0, 2), np.int64)


def _neighbours(bits: NDArray[np.bool_], order: NDArray[np.intp], turned: bool) -> Iterator[Indices]:
    """Pairs, as lower * N + higher, that lie next to each other under one order of the bits."""
    upright = _words(bits, order)
    by_hash = np.argsort(upright, kind="stable")
    there = upright[by_hash]
    for transposed, mirrored in _positions(order) if turned else [(False, np.uint64(0))]:
        words = (_words(bits, _transposed(order)) if transposed else upright) ^ mirrored
        looked = np.argsort(words, kind="stable")  # in order, so that they are found fast
        words = words[looked]
        at = np.searchsorted(there, words)
        for step in range(-AROUND, AROUND):
            place = np.clip(at + step, 0, len(there) - 1)
            near = np.flatnonzero(_differing(there[place], words) <= MOST_DIFFERENT)
            one, other = by_hash[place[near]], looked[near]
            apart = one != other
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            yield low.astype(np.int64) * len(bits) + high


def _words(bits: NDArray[np.bool_], order: NDArray[np.intp]) -> Words:
    """The bits in this order as one number each, the first the highest."""
    ordered = np.zeros((len(bits), 64), np.uint8)
    ordered[:, : len(order)] = bits[:, order]
    return np.packbits(ordered, axis=1).view(">u8").astype(np.uint64).ravel()


def _positions(order: NDArray[np.intp]) -> Iterator[tuple[bool, np.uint64]]:
    """The eight positions: whether rows and columns change places, and the bits that mirroring changes."""
    rows, columns = order // HASHED, order % HASHED
    for transposed in (False, True):
        for odd in (np.zeros_like(rows), rows, columns, rows + columns):
            yield transposed, _words((odd % 2 == 1)[None], np.arange(len(order)))[0]


def _transposed(order: NDArray[np.intp]) -> NDArray[np.intp]:
    places: NDArray[np.intp] = order % HASHED * HASHED + order // HASHED
    return places


def _differing(one: Words, other: Words) -> NDArray[np.uint8]:
    """How many bits differ."""
    parts = POPULATION[(one ^ other).view(np.uint16)].reshape(-1, 4)
    return parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3]


def correlation(one: NDArray[np.int8], other: NDArray[np.int8]) -> NDArray[np.float32]:
    """(P,) of the waves (P, SIDE, SIDE) of pairs, in the position of the eight in which it is highest."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    a[:, 0, 0] = b[:, 0, 0] = 0
    length = np.sqrt(np.square(a).sum((1, 2)) * np.square(b).sum((1, 2)))
    best = np.full(len(a), -np.inf, np.float32)
    for turned in (b, b.transpose(0, 2, 1)):
        best = np.maximum(best, ((a * turned).reshape(-1, SIDE * SIDE) @ _mirrors()).max(axis=1))
    found: NDArray[np.float32] = best / np.maximum(length, 1e-6)
    return found


def _chance(waves: NDArray[np.int8]) -> NDArray[np.float64]:
    """The correlation (P,) that pairs (P, 2, SIDE, SIDE) of so few waves must pass not to be alike by chance."""
    power = np.square(waves.astype(np.float32)).reshape(*waves.shape[:2], -1)
    power[..., 0] = 0
    count = np.square(power.sum(-1)) / np.maximum(np.square(power).sum(-1), 1e-6)
    limit: NDArray[np.float64] = np.tanh(SURE / np.sqrt(np.maximum(count.min(axis=1) - 3, 1e-6)))
    return limit


def _mirrors() -> NDArray[np.float32]:
    """(SIDE * SIDE, 4): the signs that waves take when a picture is mirrored not, up and down, left and right, both."""
    alternating = np.where(np.arange(SIDE) % 2, -1.0, 1.0)
    rows, columns = np.meshgrid(alternating, alternating, indexing="ij")
    signs_of = [np.ones((SIDE, SIDE)), rows, columns, rows * columns]
    return np.stack([s.ravel() for s in signs_of], axis=1).astype(np.float32)
