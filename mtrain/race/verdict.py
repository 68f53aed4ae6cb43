"""Compares the choices of a race with those of the full grid, once a later run has completed the grid."""

from __future__ import annotations

import numpy as np

from dpconvert.plural import counted
from mtrain.evaluation.selecting import ranks, selection
from mtrain.evaluation.selecting.selection import Selection
from mtrain.sweep.race_record import ContestRecord, read_record
from mtrain.sweep.store import Store


def verdict(store: Store) -> list[str]:
    """The comparison in words; empty if there was no race, or race or grid are unfinished.

    Raises:
        RunError: this is not the folder of a sweep, or a file is damaged.
    """
    record = read_record(store)
    if record is None or not record.finished or len(store.results(planned := store.planned())) < len(planned):
        return []
    full = selection.select(store, incomplete=True)
    if full.race is not None or set(record.tasks) != set(full.grid.tasks):
        return []
    wrong = [line for contest in record.contests if (line := _difference(full, contest)) is not None]
    right = len(record.contests) - len(wrong)
    return [
        f"the race, at {record.cost:.1%} of the iterations, chose as the full grid does in {right} of "
        f"{counted(len(record.contests), 'contest')}",
        *wrong,
    ]


def _difference(full: Selection, contest: ContestRecord) -> str | None:
    """One line for each target for which the full grid chooses another combination than the race."""
    best = full.winner(contest.target, contest.network)
    if best is None or contest.winner is None or full.combinations[best[0]] == contest.winner:
        return None
    chosen = full.combinations.index(contest.winner)
    without = None if contest.target is None else full.grid.tasks.index(contest.target)
    means = np.round(ranks.mean_ranks(full.ranks, without), ranks.DIGITS)
    network = [contest.network in (None, combination.backbone) for combination in full.combinations]
    place = 1 + int(((means < means[chosen]) & network).sum())
    return (
        f"  {contest.target or 'over all tasks'}: the race chose {contest.winner}, which has place {place} "
        f"(mean rank {means[chosen]:.2f}) in the full grid; the full grid chooses {full.combinations[best[0]]} "
        f"({best[1]:.2f})"
    )
