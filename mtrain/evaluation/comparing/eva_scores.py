"""The scores that kaiko-eva published, beside those of `mtrain transfer --mode eva`.

They are comparable only where the task has the sets of the split `eva`, and on the set that was scored there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpconvert.manifest.catalog import manifest_folder
from dpconvert.runtime.progress import Reporter
from mtrain.evaluation.comparing.comparisons import Comparison, titles_of

SPLIT, MODE = "eva", "eva"
NONE = "--paper: kaiko-eva published scores of --mode eva on the tasks of --split eva, and none of these is here"


@dataclass(frozen=True)
class EvaScores:
    """The published scores of one task on one set, in 0..1: network -> score, the highest first."""

    task: str
    set: str
    source: str
    url: str
    scores: Mapping[str, float]


def published_facts() -> dict[str, Any]:
    """The content of manifests/eva-scores.toml."""
    return tomllib.loads((manifest_folder() / "eva-scores.toml").read_text(encoding="utf-8"))


def published_for(result: Mapping[str, Any]) -> EvaScores | None:
    """The published scores that stand beside a result of a transfer; None if there are none that are comparable.

    result: as stored, with `split` the split policy of its task.
    """
    if result.get("mode") != MODE or result.get("split") != SPLIT:
        return None
    facts = published_facts()
    wanted = {"task": result["task"], "set": result["set"]}
    column = next((name for name, of in facts["columns"].items() if of == wanted), None)
    if column is None:
        return None
    scores = {network: of[column] for network, of in facts["scores"].items()}
    ordered = dict(sorted(scores.items(), key=lambda one: -one[1]))
    return EvaScores(result["task"], result["set"], facts["source"], facts["url"], ordered)


@dataclass(frozen=True)
class Beside:
    """Scores of one task and set, the highest first: (network, score in 0..1, whether it is published)."""

    title: str
    published: EvaScores
    rows: list[tuple[str, float, bool]]


def beside_published(comparisons: Sequence[Comparison], report: Reporter | None = None) -> list[Beside]:
    """The scores of each comparison that has published ones, with these; a note if there are none."""
    names = titles_of(comparisons)
    found = []
    for c in comparisons:
        results = [one for same in c.results.values() for one in same]
        if (published := next(filter(None, map(published_for, results)), None)) is not None:
            own = {names[weights]: score for weights, score in c.scores.items() if score is not None}
            found.append(Beside(f"{c.task} ({c.metric}, {c.scored_on})", published, ranked(own, published.scores)))
    if not found and report is not None:
        report.note(NONE)
    return found


def ranked(own: Mapping[str, float], published: Mapping[str, float]) -> list[tuple[str, float, bool]]:
    """(network, score, whether it is published), the highest score first."""
    rows = [(name, score, False) for name, score in own.items()]
    rows += [(name, score, True) for name, score in published.items()]
    return sorted(rows, key=lambda row: -row[1])
