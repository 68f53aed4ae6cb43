"""Logistic regressions on projected gradients estimate how a training on a subset of the tasks would move the weights,
and what that would do to the target. Only numpy.

The margin of a sample after the shared weights have moved by w is m + g.w to first order, m being its margin and g its
projected gradient. A training on the tasks S minimises the mean loss of these margins over S, each task counting alike,
plus ridge / 2 * |w|^2, which keeps w within reach of a training. The target's probe is then fitted again to the moved
features, also to first order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtrain.influence.margins import Margins, Values

STEPS, TOLERANCE = 50, 1e-9


@dataclass(frozen=True)
class Target:
    """The target's samples: those that the probe was fitted to, and those that it is scored on.

    train_head, scored_head: projected gradients (n, d) of the margins in the probe's own weights.
    ridge: the penalty with which the probe was fitted.
    """

    train: Margins
    scored: Margins
    train_head: Values
    scored_head: Values
    ridge: float


def softplus(values: Values) -> Values:
    """log(1 + exp(values))"""
    return np.logaddexp(0, values)


def minimum(x: Values, offset: Values, weights: Values, ridge: float, linear: Values | None = None) -> Values:
    """The w (d,) that minimises sum_i weights_i log(1 + exp(-(offset_i + x_i.w))) + ridge / 2 |w|^2 + linear.w, by
    Newton's method with step halving. x: (n, d); offset, weights: (n,); ridge > 0.
    """
    line = np.zeros(x.shape[1]) if linear is None else linear

    def value(w: Values) -> float:
        return float(weights @ softplus(-(offset + x @ w)) + ridge / 2 * w @ w + line @ w)

    w = np.zeros(x.shape[1])
    now = value(w)
    for _ in range(STEPS):
        wrong = np.exp(-np.logaddexp(0, offset + x @ w))  # 1 - probability of the true class
        gradient = -(weights * wrong) @ x + ridge * w + line
        curvature = (x * (weights * wrong * (1 - wrong))[:, None]).T @ x + ridge * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < TOLERANCE * max(1.0, abs(now)) * 1e-3:
            break
        length = 1.0
        while (after := value(w - length * step)) > now and length > 1e-6:
            length /= 2
        w, now = w - length * step, after
    return w


def moved_by(sources: Mapping[str, Margins], subset: Sequence[str], ridge: float) -> Values:
    """The move w (d,) of the projected weights by a training on these tasks."""
    parts = [sources[name] for name in subset]
    weights = np.concatenate([np.full(len(p.margins), 1 / (len(parts) * len(p.margins))) for p in parts])
    x = np.concatenate([p.gradients for p in parts])
    return minimum(x, np.concatenate([p.margins for p in parts]), weights, ridge)


def target_losses(target: Target, moved: Values) -> Values:
    """Cross-entropy (n,) of the scored samples of the target, in nats, after the weights have moved and the probe has
    been fitted again.
    """
    count = len(target.train.margins)
    weights = np.full(count, 1 / count)
    still = -(weights / (1 + np.exp(target.train.margins))) @ target.train_head
    offset = target.train.margins + target.train.gradients @ moved
    # the linear term keeps the probe, which has a penalty of its own, in place as long as the weights do not move
    probe = minimum(target.train_head, offset, weights, target.ridge, -still)
    return softplus(-(target.scored.margins + target.scored.gradients @ moved + target.scored_head @ probe))


def memberships(subsets: Sequence[Sequence[str]], sources: Sequence[str]) -> Values:
    """Matrix (subsets, sources): 1 where the subset contains the source."""
    return np.array([[float(name in subset) for name in sources] for subset in subsets])


def effects(members: Values, losses: Values) -> Values:
    """theta (..., sources): by how much a source lowers the loss, from least squares with an intercept
    (Li, Nguyen and Zhang, "Identification of negative transfers in multitask learning using surrogate models", TMLR
    2023, whose theta has the opposite sign). Above 0, the source helps.

    members: (subsets, sources). losses: (..., subsets). If there are too few subsets, the solution of smallest norm.
    """
    centred = members - members.mean(0)
    found: Values = (losses.mean(-1, keepdims=True) - losses) @ np.linalg.pinv(centred).T
    return found
