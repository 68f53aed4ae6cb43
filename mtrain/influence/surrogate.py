"""Logistic regressions on projected gradients: where would a training on a subset of the tasks move the weights, and
what would that do to the target? Pure numpy.

The margin of a sample after the shared weights have moved by w is m + g.w to first order, m being its margin and g its
projected gradient. A training on the tasks S minimises the mean loss of these margins over S, each task counting alike,
plus ridge / 2 * |w|^2, which keeps w where a training can reach it. The target's probe is fitted again to the moved
features, to first order too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtrain.influence.gradients import Margins, Values

STEPS, TOLERANCE = 50, 1e-9


@dataclass(frozen=True)
class Target:
    """The target's probed samples: those that the probe was fitted to, and those that it is scored on.

    train_head, scored_head: (n, d) projected gradients of the margins in the probe's own weights. ridge: the penalty
    that the probe was fitted with.
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
    """(d,) the w that minimises sum_i weights_i log(1 + exp(-(offset_i + x_i.w))) + ridge / 2 |w|^2 + linear.w, by
    Newton's method with step halving. x: (n, d); offset, weights: (n,); ridge > 0.
    """
    line = np.zeros(x.shape[1]) if linear is None else linear

    def value(w: Values) -> float:
        return float(weights @ softplus(-(offset + x @ w)) + ridge / 2 * w @ w + line @ w)

    w = np.zeros(x.shape[1])
    now = value(w)
    for _ in range(STEPS):
        wrong = np.exp(-np.logaddexp(0, offset + x @ w))  # 1 - probability of the own class
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
    """(d,) how far a training on these tasks moves the projected weights."""
    parts = [sources[name] for name in subset]
    weights = np.concatenate([np.full(len(p.margins), 1 / (len(parts) * len(p.margins))) for p in parts])
    x = np.concatenate([p.gradients for p in parts])
    return minimum(x, np.concatenate([p.margins for p in parts]), weights, ridge)


def target_losses(target: Target, moved: Values) -> Values:
    """(n,) the cross-entropy of each scored sample of the target, in nats, after the weights have moved and the probe
    has been fitted again.
    """
    count = len(target.train.margins)
    weights = np.full(count, 1 / count)
    still = -(weights / (1 + np.exp(target.train.margins))) @ target.train_head
    offset = target.train.margins + target.train.gradients @ moved
    # the linear term makes the probe, which includes its own penalty, stay where it is while the weights do not move
    probe = minimum(target.train_head, offset, weights, target.ridge, -still)
    return softplus(-(target.scored.margins + target.scored.gradients @ moved + target.scored_head @ probe))


def memberships(subsets: Sequence[Sequence[str]], sources: Sequence[str]) -> Values:
    """(subsets, sources): 1 where the subset holds the source."""
    return np.array([[float(name in subset) for name in sources] for subset in subsets])


def effects(members: Values, losses: Values) -> Values:
    """(..., sources) theta: by how much a source in the subset lowers the loss, by least squares with an intercept
    (Li, Nguyen and Zhang, "Identification of negative transfers in multitask learning using surrogate models", TMLR
    2023, whose theta has the opposite sign). Above 0, the source helps.

    members: (subsets, sources); losses: (..., subsets). With fewer subsets than that needs, the smallest solution.
    """
    centred = members - members.mean(0)
    found: Values = (losses.mean(-1, keepdims=True) - losses) @ np.linalg.pinv(centred).T
    return found
