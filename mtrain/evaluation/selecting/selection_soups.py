"""Averages the seeds of the cells that a selection chose, and scores the averages as the sweep scored its cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.disk.documents import short_digest
from mtrain.evaluation.selecting import ranks
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import METRICS
from mtrain.soups.making import make
from mtrain.soups.weight_arithmetic import SoupRecipe
from mtrain.sweep.cell_run import options_of
from mtrain.sweep.store import Store
from mtrain.transfers.request import OWN, targets
from mtrain.transfers.transfer import source_of, transfer

FOLDER = "soups"
NOTE = (
    "soups are scored on validation sets, as the cells are: preferring one to its seeds is one more choice made there"
)


def with_soups(
    content: dict[str, Any], store: Store, shards: Path | None, device: str, workers: int, report: Reporter
) -> dict[str, Any]:
    """Add a `soup` to each choice for a target, by network. content: that of selected.json.

    Raises:
        UsageError: a cell has a single seed, or its seeds began from different weights.
        RunError: a run is not there any more, or was trained on other shards.
    """
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def added(target: str, choice: dict[str, Any] | None) -> dict[str, Any] | None:
        if choice is None:
            return None
        key = target, " ".join(model["run"] for model in choice["models"])
        if key not in known:
            known[key] = _soup(store, target, choice["models"], shards, device, workers, report)
        return choice | {"soup": known[key]}

    made = {
        target: {
            "winner": added(target, found["winner"]),
            "by_backbone": {backbone: added(target, choice) for backbone, choice in found["by_backbone"].items()},
        }
        for target, found in content["targets"].items()
    }
    return content | {"targets": made, "notes": [*content["notes"], NOTE]}


def _soup(
    store: Store,
    target: str,
    models: list[dict[str, Any]],
    shards: Path | None,
    device: str,
    workers: int,
    report: Reporter,
) -> dict[str, Any]:
    """Make and score the soup of these models; its run is relative to the folder of the sweep."""
    runs = tuple(Run(store.path / model["run"]) for model in models)
    config = runs[0].config()
    name = f"{catalog.slug(config.backbone)}-{short_digest(' '.join(model['run'] for model in models))[:8]}"
    run = Run(store.path / FOLDER / name)
    soup = make(SoupRecipe(runs), run, report, shards=shards, device=device, workers=workers)
    (task,) = targets(run, shards, [target])
    options = options_of(store.transfer(), config.model_copy(update={"device": device, "workers": workers}))
    result = transfer(source_of(run, OWN), task, options, report)
    results = [store.result(model["cell"]) for model in models]
    seeds = [one.scores[target].score for one in results if one is not None]
    return {
        "run": str(run.path.relative_to(store.path)),
        **{name: result[name] for name in ("metric", "set", "score")},
        "seeds": seeds,
        **{name: soup[name] for name in ("batchnorm_layers", "images")},
    }


def lines(content: dict[str, Any]) -> Iterator[str]:
    """A line for each soup: its score, those of its seeds, and its folder."""
    for target, found in content["targets"].items():
        for backbone, choice in found["by_backbone"].items():
            if choice:
                yield f"{target}, {backbone}: {_line(choice['soup'])}"
    yield f"note: {NOTE}"


def _line(soup: dict[str, Any]) -> str:
    scores = [score for score in soup["seeds"] if score is not None]
    seeds = f"seeds {', '.join(_percent(score) for score in soup['seeds'])}"
    mean = f", mean {_percent(ranks.summary(scores).mean)}" if scores else ""
    metric = METRICS.get(soup["metric"], soup["metric"])
    return f"soup {_percent(soup['score'])} ({metric} on {soup['set']}; {seeds}{mean}) -> {soup['run']}"


def _percent(score: float | None) -> str:
    return "undefined" if score is None else f"{100 * score:.1f}"
