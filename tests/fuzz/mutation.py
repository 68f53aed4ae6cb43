"""A valid input to a spoilt one: bits, bytes, pieces, words of the format; the same seed, the same input."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

Change = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> bytes:
    """One to eight changes of one of the seeds."""
    data = bytearray(chance.choice(seeds))
    for _ in range(1 << chance.randrange(4)):
        chance.choice(CHANGES)(data, chance, [*words, *seeds])
    return bytes(data)


def repeated(seeds: Sequence[bytes], words: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Words and pieces of the seeds, so many bytes of each: alone, in the middle of a seed and near its end.

    What takes the square of its input shows here, as an expression that begins at each and reaches to the end of all.
    """
    pieces = set(words)
    for seed in seeds[:6]:
        pieces |= {seed[at : at + 1] for at in range(min(len(seed), 200))}
        pieces |= set(re.findall(rb"[\w\"'<>{}\[\]().,:/=\- ]{1,12}", seed[:20_000])[:40])
    for piece in sorted(piece for piece in pieces if 0 < len(piece) <= 40):
        many = piece * (size // len(piece))
        for cut in (0, len(seeds[0]) // 2, max(len(seeds[0]) - 3, 0)):
            yield many if cut == 0 else seeds[0][:cut] + many + seeds[0][cut:]


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data)) if data else 0


def _bit(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, chance)] = chance.choice((0, 1, 9, 10, 32, 34, 45, 127, 128, 255, chance.randrange(256)))


def _remove(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, chance)
    del data[at : at + chance.randrange(1, 64)]


def _repeat(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, chance)
    piece = bytes(data[at : at + chance.randrange(1, 64)])
    data[at:at] = piece * chance.randrange(1, 5)


def _cut(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del data[_place(data, chance) :]


def _word(data: bytearray, chance: random.Random, words: Sequence[bytes]) -> None:
    at, word = _place(data, chance), chance.choice(words)[:256]
    data[at : at + (len(word) if chance.random() < 0.5 else 0)] = word


def _number(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(data, chance), chance.choice((2, 4, 8))
    value = chance.choice((0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**63, chance.getrandbits(64))) & (2 ** (8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))


CHANGES: tuple[Change, ...] = (_bit, _byte, _remove, _repeat, _cut, _word, _word, _number)
