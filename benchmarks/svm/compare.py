"""The batched solver beside scikit-learn's LinearSVC on the work of an svm transfer: 11 C x 5 folds x classes.

    python benchmarks/svm/compare.py                         10 000 x 1024, 4 classes, synthetic features
    python benchmarks/svm/compare.py --features FILE.npz     arrays x (n, d) and y (n,)

Both must come within 1e-4 of the optimal objective in every problem; the optimum is the batched solver's at a duality
gap of 1e-9. scikit-learn is timed at the loosest of its tolerances that gets there, C by C, and its fits are taken to
share the cores perfectly, which GridSearchCV does not quite reach.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from mtrain.transfers.classifiers import svm_solver
from mtrain.transfers.classifiers.folds import group_folds
from mtrain.transfers.classifiers.svm import COSTS

WITHIN = 1e-4
SKLEARN_TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7)


def synthetic(samples: int, features: int, classes: int, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative features whose variances fall off as those of pooled network features do; classes overlap."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=samples)
    scale = np.arange(1, features + 1) ** -0.75
    latent = (rng.normal(size=(samples, features)) * overlap + rng.normal(size=(classes, features))[y]) * scale
    mixed = latent @ (rng.normal(size=(features, features)) / 3)
    return np.maximum(mixed, 0).astype(np.float32), y


def objective(weights: np.ndarray, x: np.ndarray, y: np.ndarray, cost: float) -> np.ndarray:
    """f of each column of `weights` (d + 1, classes)."""
    short = np.maximum(
        0, 1 - np.where(y[:, None] == np.arange(weights.shape[1]), 1, -1) * (x @ weights[:-1] + weights[-1])
    )
    return 0.5 * (weights**2).sum(0) + cost * (short**2).sum(0)


def batched(x: np.ndarray, y: np.ndarray, fold_of: np.ndarray, tolerance: float) -> tuple[float, list[np.ndarray]]:
    """Seconds, and for each C the weights (d + 1, folds, classes)."""
    begun = time.perf_counter()
    classes, folds = int(y.max()) + 1, int(fold_of.max()) + 1
    design = svm_solver.principal_axes(x, max(COSTS))
    targets = torch.from_numpy(np.where(y[:, None] == np.arange(classes), 1.0, -1.0)).repeat(1, folds)
    trains = torch.from_numpy(np.repeat(fold_of[:, None] != np.arange(folds), classes, axis=1).astype(float))
    solution, found = None, []
    for cost in COSTS:
        solution = svm_solver.solve(design, targets, cost * trains, solution, kinds=classes, tolerance=tolerance)
        found.append(svm_solver.feature_weights(design, solution))
    seconds = time.perf_counter() - begun
    return seconds, [w.numpy().reshape(-1, folds, classes) for w in found]


def sklearn_fit(x: np.ndarray, y: np.ndarray, cost: float, tolerance: float) -> tuple[float, np.ndarray]:
    """CPU seconds of one fit, and its weights (d + 1, classes)."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine = LinearSVC(C=cost, dual=len(x) <= x.shape[1], tol=tolerance, max_iter=20_000).fit(x, y)
    return time.process_time() - begun, np.vstack([machine.coef_.T, machine.intercept_])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--features", help="npz with x (n, d) and y (n,), at least three classes")
    options.add_argument("--shape", type=int, nargs=3, default=(10_000, 1024, 4), metavar=("N", "D", "CLASSES"))
    options.add_argument("--overlap", type=float, default=4.0, help="spread within classes, of the synthetic features")
    args = options.parse_args()
    if args.features:
        with np.load(args.features) as arrays:
            x, y = arrays["x"].astype(np.float32), arrays["y"]
    else:
        x, y = synthetic(*args.shape, args.overlap)
    cores = len(os.sched_getaffinity(0))
    fold_of = group_folds(y, [str(i) for i in range(len(y))]).of
    seconds, mine = batched(x, y, fold_of, WITHIN)
    _, best = batched(x, y, fold_of, 1e-9)
    say = sys.stdout.write
    say(f"{x.shape[0]} x {x.shape[1]}, {int(y.max()) + 1} classes, {cores} cores\n")
    say("       C   batched: excess   LinearSVC: excess       tol    CPU s (5 folds)\n")
    total = 0.0
    for cost, found, optimal in zip(COSTS, mine, best, strict=True):
        parts = [(x[fold_of != k].astype(np.float64), y[fold_of != k]) for k in range(5)]
        floor = np.array([objective(optimal[:, k], *parts[k], cost) for k in range(5)])
        own = np.array([objective(found[:, k], *parts[k], cost) for k in range(5)])
        for tolerance in SKLEARN_TOLERANCES:
            fits = Parallel(n_jobs=cores)(delayed(sklearn_fit)(*part, cost, tolerance) for part in parts)
            theirs = np.array([objective(w, *part, cost) for (_, w), part in zip(fits, parts, strict=True)])
            if (theirs / floor - 1).max() <= WITHIN:
                break
        spent = sum(s for s, _ in fits)
        total += spent
        excess = (own / floor - 1).max(), (theirs / floor - 1).max()
        say(f"{cost:8.0e} {excess[0]:17.1e} {excess[1]:19.1e} {tolerance:9.0e} {spent:18.2f}\n")
        sys.stdout.flush()
    wall = total / cores
    say(f"batched {seconds:.2f} s; LinearSVC {total:.1f} CPU s = {wall:.1f} s on {cores} cores: ")
    say(f"{wall / seconds:.1f} times\n")


if __name__ == "__main__":
    main()
