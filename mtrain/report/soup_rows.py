"""The averages of seeds that `mtrain select --soup` made, for the page of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtrain.evaluation.comparing.comparisons import SETS
from mtrain.scoring.metrics import METRICS
from mtrain.sweep.store import SELECTED, Store


@dataclass(frozen=True)
class SoupRow:
    """One average beside the networks that it is made of. score, seeds: in 0..1; None where a metric is undefined."""

    target: str
    network: str
    metric: str
    scored_on: str
    score: float | None
    seeds: tuple[float | None, ...]
    folder: str


def soup_rows(store: Store) -> list[SoupRow]:
    """One row for each target and network, from selected.json; none where nothing was selected, or without --soup.

    Raises:
        RunError: the file is damaged.
    """
    if not (store.path / SELECTED).is_file():
        return []
    return [
        _row(target, network, choice["soup"])
        for target, found in store.selection()["targets"].items()
        for network, choice in found["by_backbone"].items()
        if choice and "soup" in choice
    ]


def _row(target: str, network: str, soup: Mapping[str, Any]) -> SoupRow:
    metric, scored_on = METRICS.get(soup["metric"], soup["metric"]), SETS.get(soup["set"], soup["set"])
    return SoupRow(target, network, metric, scored_on, soup["score"], tuple(soup["seeds"]), soup["run"])
