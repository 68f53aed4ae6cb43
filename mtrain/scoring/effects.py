"""Differences and effects as text: a small one never looks like none."""

from __future__ import annotations

from collections.abc import Sequence


def effect(value: float, decimals: int = 4, figures: int = 2) -> str:
    """A signed number with this many decimals; where these would show fewer significant figures, with `figures` of
    them instead: 0.0123 -> +0.0123, 0.00001 -> +1e-05, 0 -> +0.0000.
    """
    if value and abs(value) < 10.0 ** (figures - 1 - decimals):
        return f"{value:+.{figures}g}"
    return f"{value + 0.0:+.{decimals}f}"


def effects(interval: Sequence[float] | None, decimals: int = 4, figures: int = 2) -> str:
    """The two edges of an interval after a space, ' [+0.0123, +0.0456]'; nothing where there is none."""
    edges = [] if interval is None else [effect(edge, decimals, figures) for edge in interval]
    return f" [{', '.join(edges)}]" if edges else ""
