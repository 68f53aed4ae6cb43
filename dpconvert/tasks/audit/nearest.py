"""Finds pairs of images that look alike from their prints, in time N log N.

The signs of the lowest waves are a hash of 63 bits. The hashes are sorted under many random orders of their bits;
similar images agree in their first bits under some of these orders, and are then neighbours (LSH forest: Bawa, Condie
and Ganesan, WWW 2005). Each hash is looked up in all eight orientations of an image. A candidate becomes a pair if all
its waves correlate, in the best orientation. Images with few waves, such as a single cell on a uniform background,
correlate easily by chance, so they need a higher correlation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dpconvert.tasks.audit.prints import SIDE

HASHED = 8  # waves per side that form the hash
ORDERS = 24
AROUND = 4  # neighbours to each side of the position of a hash in the sorted order
MOST_DIFFERENT = 13  # bits of 63: a crop by 2% changes 7, while a million other images give few candidates
ALIKE = 0.85  # correlation; docs/explanation/audit-accuracy.md explains the choice
SURE = 8.0  # standard deviations of chance (Fisher's z)
AT_ONCE = 1 << 15  # pairs
POPULATION = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]


def pairs(
    waves: NDArray[np.int8], *, alike: float = ALIKE, orders: int = ORDERS, seed: int = 0
) -> tuple[Indices, NDArray[np.float32]]:
    """Pairs (P, 2) of images that look alike, the lower number first, sorted; and their correlations (P,).

    waves: (N, SIDE, SIDE). The result is deterministic.
    """
    near = candidates(signs(waves), orders, seed)
    kept, likeness = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(near), AT_ONCE):
        chunk = near[start : start + AT_ONCE]
        r = correlation(waves[chunk[:, 0]], waves[chunk[:, 1]])
        same = (r >= alike) & (r >= _chance(waves[chunk]))
        kept.append(chunk[same])
        likeness.append(r[same])
    return np.concatenate(kept), np.concatenate(likeness)


def signs(waves: NDArray[np.int8]) -> NDArray[np.bool_]:
    """The hash (N, HASHED * HASHED) of each image: whether each wave is positive, without the first, the mean."""
    bits: NDArray[np.bool_] = waves[:, :HASHED, :HASHED].reshape(-1, HASHED * HASHED) > 0
    bits[:, 0] = False
    return bits


def candidates(bits: NDArray[np.bool_], orders: int, seed: int, *, turned: bool = True) -> Indices:
    """Pairs (P, 2) of hashes that differ little, the lower number first, sorted.

    turned: whether to compare all eight orientations of an image, or only the given one.
    """
    count = len(bits)
    rng = np.random.default_rng(seed)
    codes = [np.zeros(0, np.int64)]
    for _ in range(orders):
        order = rng.permutation(np.arange(1, HASHED * HASHED))
        codes.append(np.unique(np.concatenate(list(_neighbours(bits, order, turned)))))
    unique = np.unique(np.concatenate(codes))
    return np.stack([unique // count, unique % count], axis=1) if count else np.zeros((0, 2), np.int64)


def _neighbours(bits: NDArray[np.bool_], order: NDArray[np.intp], turned: bool) -> Iterator[Indices]:
    """Pairs of neighbours under one order of the bits, encoded as lower * N + higher."""
    upright = _words(bits, order)
    by_hash = np.argsort(upright, kind="stable")
    hashes = upright[by_hash]
    for transposed, mirrored in _positions(order) if turned else [(False, np.uint64(0))]:
        words = (_words(bits, _transposed(order)) if transposed else upright) ^ mirrored
        queries = np.argsort(words, kind="stable")  # sorted queries are faster
        words = words[queries]
        positions = np.searchsorted(hashes, words)
        for step in range(-AROUND, AROUND):
            place = np.clip(positions + step, 0, len(hashes) - 1)
            near = np.flatnonzero(_differing(hashes[place], words) <= MOST_DIFFERENT)
            one, other = by_hash[place[near]], queries[near]
            apart = one != other
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            yield low.astype(np.int64) * len(bits) + high


def _words(bits: NDArray[np.bool_], order: NDArray[np.intp]) -> Words:
    """The bits of each hash in this order as one number, the first bit the highest."""
    ordered = np.zeros((len(bits), 64), np.uint8)
    ordered[:, : len(order)] = bits[:, order]
    return np.packbits(ordered, axis=1).view(">u8").astype(np.uint64).ravel()


def _positions(order: NDArray[np.intp]) -> Iterator[tuple[bool, np.uint64]]:
    """The eight orientations: whether rows and columns are exchanged, and the bits that mirroring flips."""
    rows, columns = order // HASHED, order % HASHED
    for transposed in (False, True):
        for odd in (np.zeros_like(rows), rows, columns, rows + columns):
            yield transposed, _words((odd % 2 == 1)[None], np.arange(len(order)))[0]


def _transposed(order: NDArray[np.intp]) -> NDArray[np.intp]:
    places: NDArray[np.intp] = order % HASHED * HASHED + order // HASHED
    return places


def _differing(one: Words, other: Words) -> NDArray[np.uint8]:
    """The number of bits that differ."""
    parts = POPULATION[(one ^ other).view(np.uint16)].reshape(-1, 4)
    return parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3]


def correlation(one: NDArray[np.int8], other: NDArray[np.int8]) -> NDArray[np.float32]:
    """The correlation (P,) of the waves (P, SIDE, SIDE) of pairs, in the orientation in which it is highest."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    a[:, 0, 0] = b[:, 0, 0] = 0
    length = np.sqrt(np.square(a).sum((1, 2)) * np.square(b).sum((1, 2)))
    best = np.full(len(a), -np.inf, np.float32)
    for turned in (b, b.transpose(0, 2, 1)):
        best = np.maximum(best, ((a * turned).reshape(-1, SIDE * SIDE) @ _mirrors()).max(axis=1))
    normalized: NDArray[np.float32] = best / np.maximum(length, 1e-6)
    return normalized


def _chance(waves: NDArray[np.int8]) -> NDArray[np.float64]:
    """The correlation (P,) that pairs of waves (P, 2, SIDE, SIDE) must exceed so that it is not due to chance."""
    power = np.square(waves.astype(np.float32)).reshape(*waves.shape[:2], -1)
    power[..., 0] = 0
    count = np.square(power.sum(-1)) / np.maximum(np.square(power).sum(-1), 1e-6)
    limit: NDArray[np.float64] = np.tanh(SURE / np.sqrt(np.maximum(count.min(axis=1) - 3, 1e-6)))
    return limit


def _mirrors() -> NDArray[np.float32]:
    """(SIDE * SIDE, 4): the signs of waves if the image is not mirrored, mirrored vertically, horizontally, or both."""
    alternating = np.where(np.arange(SIDE) % 2, -1.0, 1.0)
    rows, columns = np.meshgrid(alternating, alternating, indexing="ij")
    signs_of = [np.ones((SIDE, SIDE)), rows, columns, rows * columns]
    return np.stack([s.ravel() for s in signs_of], axis=1).astype(np.float32)
