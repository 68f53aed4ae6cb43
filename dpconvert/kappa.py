"""The agreement of two ratings in ordered classes, such as Gleason grades: Cohen's kappa with quadratic weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quadratic_kappa(confusion: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """1 - sum(w O) / sum(w E) with w = (i - j) ** 2: 1 for equal ratings, 0 for chance, below 0 if worse than chance.

    confusion: (..., classes, classes), counts O; true classes in rows. E is the product of its margins. The result is
    (...); NaN where only one true class occurs (Cohen, Psychological Bulletin 70, 1968).
    """
    table = np.asarray(confusion, np.float64)
    place = np.arange(table.shape[-1])
    weights = (place[:, None] - place).astype(np.float64) ** 2
    truth, found = table.sum(-1), table.sum(-2)
    observed = (table * weights).sum((-2, -1))
    chance = np.einsum("...i,ij,...j->...", truth, weights, found) / np.maximum(table.sum((-2, -1)), 1e-300)
    defined = (truth > 0).sum(-1) > 1
    kappa: NDArray[np.float64] = np.where(defined, 1 - observed / np.where(chance > 0, chance, 1), np.nan)
    return kappa
