"""The cosines of the tasks' gradients that `mtrain fit --log-cosines` logged, for the page of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

STRONGEST = 60  # percent of colour in the cell of the largest mean


@dataclass(frozen=True)
class TaskCosine:
    """Cosines of two tasks: their mean over `logged` iterations, in `below` of which they were less than 0."""

    mean: float
    below: int
    logged: int


@dataclass(frozen=True)
class Cosines:
    """tasks: by name. pairs: (task, task), in both orders. means: (iteration, mean over the pairs)."""

    tasks: tuple[str, ...]
    pairs: Mapping[tuple[str, str], TaskCosine]
    means: tuple[tuple[float, float], ...]

    @property
    def most_opposed(self) -> tuple[str, str]:
        """The pair with the smallest mean."""
        return min(self.pairs, key=lambda pair: (self.pairs[pair].mean, pair))

    def shade(self, pair: TaskCosine) -> str:
        """The background of a cell: green for gradients of one direction, red for opposite ones, stronger for larger
        means.
        """
        largest = max(abs(one.mean) for one in self.pairs.values())
        strength = round(STRONGEST * abs(pair.mean) / largest) if largest else 0
        colour = "#2a9d5c" if pair.mean > 0 else "#d1495b"
        return f"background: color-mix(in srgb, {colour} {strength}%, transparent)"


def cosines_in(events: Iterable[Mapping[str, Any]]) -> Cosines | None:
    """The cosines in the events of a run's log; None if there are none."""
    found: dict[tuple[str, str], list[float]] = {}
    means = []
    for event in events:
        logged = _pairs(event)
        for pair, value in logged.items():
            found.setdefault(pair, []).append(value)
        if logged:
            means.append((float(event["iteration"]), fmean(logged.values())))
    if not found:
        return None
    pairs = {pair: TaskCosine(fmean(values), sum(v < 0 for v in values), len(values)) for pair, values in found.items()}
    both = pairs | {(b, a): pair for (a, b), pair in pairs.items()}
    return Cosines(tuple(sorted({a for a, _ in both})), both, tuple(means))


def _pairs(event: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(task, task) -> cosine; nothing of other events, and of entries that are not finite numbers."""
    logged = event.get("cosines") if event["event"] == "cosines" else None
    numbers = logged.items() if isinstance(logged, dict) else ()
    split = ((name.partition("/"), value) for name, value in numbers)
    return {(a, b): value for (a, _, b), value in split if isinstance(value, float | int) and math.isfinite(value)}
