"""Verifies an estimate: retrains on random subsets of the sources, and compares."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from dpconvert.runtime.progress import Reporter
from mtrain.data.task import Task
from mtrain.errors import RunError, UsageError
from mtrain.influence import surrogate
from mtrain.influence.estimator import Estimator
from mtrain.influence.margins import Values
from mtrain.influence.subsets import Subset, retraining
from mtrain.influence.task_effects import verified_subsets
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap
from mtrain.train.fit import fit
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import OWN
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer

DRAWS = 1000
LEAST = 3  # minimum number of subsets for a meaningful rank correlation
QUIET = Reporter(quiet=True)


def verify(
    run: Run,
    target: Task,
    shards: Path | str,
    estimator: Estimator,
    count: int,
    seed: int,
    report: Reporter,
    *,
    workers: int,
    device: str,
) -> dict[str, Any]:
    """Train on `count` random subsets with the settings and the start of `run`, and compare the losses of new probes on
    the target's validation set with the estimated losses. Finished runs are reused. shards: folder of the tasks.

    Raises:
        UsageError: too few subsets for a comparison.
        RunError: a training was interrupted.
    """
    if count < LEAST:
        raise UsageError(f"--verify {count} is too few", expected=f"{LEAST} or more")
    subsets, begun = verified_subsets(estimator, count, seed), time.monotonic()
    rows = []
    with report.bar("retraining", len(subsets), unit="subsets") as advance:
        for subset in subsets:
            loss, score, iterations = _retrained(run, target, shards, subset, workers, device)
            estimated = float(estimator.losses(subset).mean())
            rows.append(
                {"tasks": list(subset), "estimate": estimated, "loss": loss, "score": score, "iterations": iterations}
            )
            advance()
    return compared(rows, sorted(estimator.sources), seed) | {"seconds": round(time.monotonic() - begun, 2)}


def _retrained(
    run: Run, target: Task, shards: Path | str, subset: Subset, workers: int, device: str
) -> tuple[float, float | None, int]:
    """Loss and score of a new probe on the target after a training on `subset`, and the iterations of that training."""
    other, config = retraining(run, subset, shards)
    config = config.model_copy(update={"workers": workers, "device": device})
    if fit(config, other, QUIET) == "stopped":
        raise RunError("interrupted; finished training runs are kept", where=other.path, remedy="run the command again")
    options = TransferOptions("logistic", False, workers=workers, recipe=Recipe(device=device))
    source = source_of(other, OWN)
    found = transfer(source, target, options, QUIET)
    with np.load(result_path(source, target, options).with_suffix(".npz"), allow_pickle=False) as answers:
        own = answers["probabilities"][np.arange(len(answers["label"])), answers["label"]]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()), found["score"], config.iterations


def compared(rows: Sequence[dict[str, Any]], sources: Sequence[str], seed: int) -> dict[str, Any]:
    """Rank correlation between estimates and retrained losses with its interval over subsets, and how often the sign of
    a source was right. rows: one per subset, with `tasks`, `estimate`, `loss` and `score`.
    """
    members = surrogate.memberships([row["tasks"] for row in rows], sources)
    estimate, truth = (np.array([row[key] for row in rows]) for key in ("estimate", "loss"))
    picked = np.random.Generator(np.random.Philox(seed)).integers(len(rows), size=(DRAWS, len(rows)))
    right = surrogate.effects(members, truth)
    guessed = surrogate.effects(members, estimate)
    draws = np.stack([surrogate.effects(members[p], truth[p]) for p in picked])
    by_source = [_effect(name, guessed[j], right[j], draws[:, j]) for j, name in enumerate(sources)]
    sure = [one for one in by_source if one["interval"] is not None and one["interval"][0] * one["interval"][1] > 0]
    return {
        "subsets": len(rows),
        "rank_correlation": _correlation(estimate, truth, picked),
        "size_correlation": _correlation(-members.sum(1), truth, picked),
        "signs_right": sum(one["right"] for one in by_source),
        "signs": len(by_source),
        "sure_signs_right": sum(one["right"] for one in sure),
        "sure_signs": len(sure),
        "sources": by_source,
        "rows": list(rows),
    }


def _effect(name: str, guessed: float, right: float, draws: Values) -> dict[str, Any]:
    """Estimated and retrained effect of one source on the same subsets."""
    return {
        "task": name,
        "estimate": float(guessed),
        "truth": float(right),
        "interval": bootstrap.interval(draws),
        "right": bool(guessed * right > 0),
    }


def _correlation(one: Values, other: Values, picked: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Spearman's correlation, and its percentile interval over subsets drawn with replacement; None if undefined."""
    whole = _spearman(one, other)
    drawn = np.array([_spearman(one[p], other[p]) for p in picked])
    return {"value": None if np.isnan(whole) else whole, "interval": bootstrap.interval(drawn)}


def _spearman(one: Values, other: Values) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
