"""Many linear SVMs on one set of samples, solved at once: features, targets and costs in, decision values out.

A problem is one column. Its targets are +1 or -1; its costs are C where a sample trains and 0 where it is held out.
Each column minimises what LIBLINEAR minimises for an L2-regularised squared-hinge machine (the bias is a weight too):

    f(w) = 1/2 |w|^2 + sum_i cost_i max(0, 1 - y_i x_i.w)^2        x_i = (features_i, 1)

How: the samples are rotated once onto the principal axes of the design, where the Hessian that has every sample inside
the margin is diagonal. All columns then take Newton steps together, by conjugate gradients preconditioned with that
diagonal, so that the work is a few products of the design with all columns. Where few samples remain inside the
margin, which is where a large C makes LIBLINEAR slow, the preconditioner is the factored mean Hessian of columns that
belong together: one class in all folds. With fewer samples than features the axes come from the samples' Gram matrix
and are as many as the samples: the same code then solves a problem of the dual's size.
A rotation says nothing about a held-out sample to the others, so the folds of a cross-validation share the design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = 1e-6  # relative duality gap at which a column is solved
NEGLIGIBLE = 1e-9  # share of an objective that axes with next to no variance may be worth
DWARFED = 1e-6  # share of the first axis' power below which the second one is judged by itself
NOISE = 1e3  # roundings of a row from which its first axis has been taken
NEWTON_STEPS = 100
CG_STEPS = 300
CG_REDUCTION = 0.15  # of the preconditioned residual: the inexact Newton steps that cost least in all
CG_MANY = 40  # steps after which a factored preconditioner pays
NEWTON_MANY = 12  # Newton steps after which it pays too: the inexact ones are then too inexact
LINE_STEPS = 30
LINE_SLOPE = 0.1  # share of the first slope that may be left along a step
ROWS_AT_ONCE = 16384


@dataclass(frozen=True)
class Design:
    """Samples on principal axes: `rows` (n, r) = [features, 1] @ `axes` (d + 1, r), whose columns are orthonormal.

    `power` (r,) holds the sums of squares of the columns of `rows`; the columns are orthogonal to one another.
    """

    rows: Tensor
    axes: Tensor
    power: Tensor
    single: Tensor  # rows in single precision, for the inner products of the Newton steps


@dataclass(frozen=True)
class Solution:
    """`weights` (r, columns) on the principal axes, `decisions` (n, columns) = x_i.w, `gap` (columns,) relative."""

    weights: Tensor
    decisions: Tensor
    gap: Tensor


def principal_axes(features: NDArray[np.float32], largest_cost: float, device: str | torch.device = "cpu") -> Design:
    """Rotate (n, d) features, with a column of ones appended, onto the eigenvectors of the smaller Gram matrix.

    Left out are axes whose power s makes `2 largest_cost s` negligible: the slope of f along such an axis is at most
    2 sqrt(largest_cost s f) and its curvature at least 1, so weights there can lower f by at most that share of f.
    A tiny cost alone does not make an axis negligible: it must also be so beside the first one. Where the first one has
    nearly all of the power, as the ones have beside features of 1e-6, it is taken out, and the others are found and
    judged by themselves: beside it they would be rounding errors.
    """
    blocks = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(features), ROWS_AT_ONCE)]
    gram, axes_of = (_wide_gram, _wide_axes) if len(features) <= features.shape[1] else (_tall_gram, _tall_axes)
    power, vectors = torch.linalg.eigh(gram(features, blocks, device))
    if len(power) > 1 and float(power[-2]) < DWARFED * float(power[-1]):
        axes, power = _beside_the_first(
            features, power[-1:], axes_of(features, power[-1:], vectors[:, -1:]), largest_cost
        )
    else:
        kept = _worth(power, largest_cost)
        axes, power = axes_of(features, power[kept], vectors[:, kept]), power[kept]
    rows = torch.cat([_with_bias(features[block], device) @ axes for block in blocks])
    return Design(rows=rows, axes=axes, power=power, single=rows.float())


def _worth(power: Tensor, largest_cost: float) -> Tensor:
    """Which axes are more than rounding errors, and not negligible."""
    rounding = len(power) * torch.finfo(power.dtype).eps * float(power[-1])
    return power > max(min(NEGLIGIBLE / (2 * largest_cost), NEGLIGIBLE * float(power[-1])), rounding)


def _beside_the_first(
    features: NDArray[np.float32], first_power: Tensor, first: Tensor, largest_cost: float
) -> tuple[Tensor, Tensor]:
    """All axes (d + 1, r) and their power where the `first` (d + 1, 1) dwarfs the others.

    What it explains is taken from every row, so that the rest has the precision of its own size.
    """
    first = first / first.norm()
    rest = _with_bias(features, first.device)
    rest = rest - (rest @ first) @ first.T
    wide = len(rest) <= rest.shape[1]
    power, vectors = torch.linalg.eigh(rest @ rest.T if wide else rest.T @ rest)
    noise = float(first_power) * (NOISE * torch.finfo(power.dtype).eps) ** 2
    kept = _worth(power, largest_cost) & (power > noise)
    axes = rest.T @ (vectors[:, kept] / power[kept].sqrt()) if wide else vectors[:, kept]
    axes = axes - first @ (first.T @ axes)  # roundings of the first are large beside tiny features
    return torch.cat([axes, first], dim=1), torch.cat([power[kept], first_power])


def solve(
    design: Design,
    targets: Tensor,
    costs: Tensor,
    start: Solution | None = None,
    *,
    kinds: int = 0,
    tolerance: float = TOLERANCE,
) -> Solution:
    """Solve every column of `targets` and `costs` (n, columns) to a relative duality gap of `tolerance`.

    With the dual variables 2 cost_i max(0, 1 - y_i x_i.w) the duality gap is |gradient|^2 / 2, so each column carries
    its own certificate; `Solution.gap` is that gap over f as it was reached. A tiny C makes w = 0 nearly optimal, but
    it ranks nothing: the gradient must also be down to sqrt(tolerance) of what it is there.

    Columns i, i + kinds, i + 2 kinds, ... are alike (one class, in several folds); 0 takes each for itself. This
    affects the speed only, not the result.
    """
    weights = design.rows.new_zeros(design.rows.shape[1], targets.shape[1]) if start is None else start.weights.clone()
    decisions = design.rows @ weights
    gap = torch.full_like(weights[0], torch.inf)
    small = tolerance * (2 * design.rows.T @ (costs * targets)).square().sum(0)
    live = torch.arange(targets.shape[1], device=weights.device)
    slow = False
    for number in range(NEWTON_STEPS):
        y, cost, w, z = targets[:, live], costs[:, live], weights[:, live], decisions[:, live]
        short = (1 - y * z).clamp_(min=0)
        gradient = w - 2 * design.rows.T @ (cost * y * short)
        value = 0.5 * w.square().sum(0) + (cost * short.square()).sum(0)
        steepness = gradient.square().sum(0)
        gap[live] = 0.5 * steepness / value.clamp_min(torch.finfo(value.dtype).tiny)
        todo = (gap[live] > tolerance) | (steepness > small[live])
        if not todo.any():
            break
        live, y, cost, w, z = live[todo], y[:, todo], cost[:, todo], w[:, todo], z[:, todo]
        curvature = 2 * cost * (short[:, todo] > 0)
        kind = live % kinds if kinds else live
        precondition = _factored(design, curvature, kind) if slow else _diagonal(design, curvature)
        step, steps = _newton_step(design, gradient[:, todo], curvature, precondition)
        slow = slow or steps > CG_MANY or number >= NEWTON_MANY
        change = design.rows @ step
        length = _step_length(w, z, step, change, y, cost)
        weights[:, live] = w + length * step
        decisions[:, live] = z + length * change
    return Solution(weights=weights, decisions=decisions, gap=gap)


def feature_weights(design: Design, solution: Solution) -> Tensor:
    """Weights (d + 1, columns) of the features, the bias last: decision values are [features, 1] @ weights."""
    return design.axes @ solution.weights


def _newton_step(
    design: Design, gradient: Tensor, curvature: Tensor, precondition: Callable[[Tensor], Tensor]
) -> tuple[Tensor, int]:
    """Solve (1 + X' diag(curvature) X) step = -gradient by conjugate gradients, each column with its own curvature.

    Returns the step, and the number of products with the matrix that it took.
    """
    inside = curvature.any(dim=1)  # samples beyond the margin of every column play no part
    x, active = design.single[inside], curvature[inside].float()
    residual = -gradient.float()
    step = torch.zeros_like(residual)
    direction = precondition(residual)
    energy = first = (residual * direction).sum(0)
    tiny = torch.finfo(energy.dtype).tiny
    taken = 0
    while taken == 0 or (taken < CG_STEPS and bool((energy > CG_REDUCTION**2 * first).any())):
        image = direction + x.T @ (active * (x @ direction))
        advance = energy / (direction * image).sum(0).clamp_min(tiny)
        step += advance * direction
        residual -= advance * image
        scaled = precondition(residual)
        before, energy = energy, (residual * scaled).sum(0)
        direction = scaled + energy / before.clamp_min(tiny) * direction
        taken += 1
    return step.double(), taken


def _diagonal(design: Design, curvature: Tensor) -> Callable[[Tensor], Tensor]:
    """The inverse of the Hessian in which every sample has the column's mean curvature: diagonal on principal axes."""
    diagonal = 1 + (design.power[:, None] * curvature.mean(0)).float()
    return lambda residual: residual / diagonal


def _factored(design: Design, curvature: Tensor, kind: Tensor) -> Callable[[Tensor], Tensor]:
    """The inverse of the mean Hessian of the columns of each kind (columns,), by a Cholesky factor each."""
    factors = []
    for one in torch.unique(kind):
        columns = (kind == one).nonzero()[:, 0]
        mean = curvature[:, columns].mean(1)
        inside = mean > 0
        x = design.rows[inside] * mean[inside].sqrt()[:, None]
        hessian = x.T @ x
        hessian.diagonal().add_(1)
        factors.append((columns, torch.linalg.cholesky(hessian)))

    def apply(residual: Tensor) -> Tensor:
        result = torch.empty_like(residual)
        for columns, factor in factors:
            result[:, columns] = torch.cholesky_solve(residual[:, columns].double(), factor).float()
        return result

    return apply


def _step_length(w: Tensor, z: Tensor, step: Tensor, change: Tensor, y: Tensor, cost: Tensor) -> Tensor:
    """How far to go along each column's step: where the slope of f, piecewise linear and rising, is nearly zero.

    Newton's method in one variable between brackets, from the full step.
    """
    flat, curved = (w * step).sum(0), step.square().sum(0)

    def slope_at(t: Tensor) -> tuple[Tensor, Tensor]:
        short = (1 - y * (z + t * change)).clamp_(min=0)
        slope = flat + t * curved - 2 * (cost * y * short * change).sum(0)
        return slope, curved + 2 * (cost * (short > 0) * change.square()).sum(0)

    t = torch.ones_like(flat)
    low, high = torch.zeros_like(t), torch.full_like(t, 2.0**20)
    enough = LINE_SLOPE * slope_at(low)[0].abs()
    for _ in range(LINE_STEPS):
        slope, bend = slope_at(t)
        if bool((slope.abs() <= enough).all()):
            break
        low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
        newton = t - slope / bend
        inside = (newton > low) & (newton < high)
        t = torch.where(slope.abs() <= enough, t, torch.where(inside, newton, (low + high) / 2))
    return t


def _with_bias(features: NDArray[np.float32], device: str | torch.device) -> Tensor:
    block = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64)).to(device)
    return torch.cat([block, block.new_ones(len(block), 1)], dim=1)


def _tall_gram(features: NDArray[np.float32], blocks: list[slice], device: str | torch.device) -> Tensor:
    parts: Iterator[Tensor] = (_with_bias(features[block], device) for block in blocks)
    first = next(parts)
    gram = first.T @ first
    for part in parts:
        gram += part.T @ part
    return gram


def _wide_gram(features: NDArray[np.float32], blocks: list[slice], device: str | torch.device) -> Tensor:
    whole = torch.cat([_with_bias(features[block], device) for block in blocks])
    return whole @ whole.T


def _tall_axes(features: NDArray[np.float32], power: Tensor, vectors: Tensor) -> Tensor:
    return vectors


def _wide_axes(features: NDArray[np.float32], power: Tensor, vectors: Tensor) -> Tensor:
    return _with_bias(features, vectors.device).T @ (vectors / power.sqrt())
