"""What a process that runs one training after the other keeps for the next one. Outside `keeping`, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_kept: dict[str, tuple[Hashable, Any]] | None = None


@contextmanager
def keeping() -> Iterator[None]:
    """Keep what is made in the block, until the end of the outermost such block."""
    global _kept
    if _kept is not None:
        yield
        return
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def kept(name: str, key: Hashable, make: Callable[[], T]) -> T:
    """Return what `make` returns, or what it returned the last time under this name if the key was the same.

    key: everything on which the result depends. The result is shared: nobody may change it.
    """
    if _kept is None:
        return make()
    if name not in _kept or _kept[name][0] != key:
        _kept.pop(name, None)  # frees the memory of the former one first
        _kept[name] = key, make()
    found: T = _kept[name][1]
    return found
