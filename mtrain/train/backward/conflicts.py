"""Ways to combine the gradients of tasks that conflict, from the package torchjd.

Each gives a weight to the gradient of each task, and without conflicts a weight of 1: the step is then that of the sum
of the losses. Only the inner products of the gradients are needed.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from mtrain.errors import UsageError

if TYPE_CHECKING:
    from torchjd.linalg import PSDMatrix

RIDGE = 1e-4  # share of the mean squared length that is added to squared lengths, so that the cone is not degenerate


def check_installed(way: str) -> None:
    """Raises:
    UsageError: the package that combines gradients is not installed.
    """
    if way != "mean" and importlib.util.find_spec("torchjd") is None:
        raise UsageError(
            "torchjd is not installed", found=f"--gradients {way}", remedy="pip install 'dpconvert[gradients]'"
        )


def weights(way: str, products: Tensor, seed: int) -> Tensor:
    """Return the weight of each task's gradient, (tasks,). products: the inner products (tasks, tasks) of the
    gradients; tasks with a gradient of 0 weigh 0. seed: of the order in which `pcgrad` takes the tasks.
    """
    moving = products.diagonal() > 0
    found = torch.zeros(len(products), dtype=products.dtype)
    if moving.any():
        own = products[moving][:, moving].cpu()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            found[moving.cpu()] = _WAYS[way](own / own.diagonal().mean())
    return found.to(products.device)


def _pcgrad(products: Tensor) -> Tensor:
    """Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020."""
    from torchjd.aggregation import PCGradWeighting

    return PCGradWeighting()(_psd(products))


def _upgrad(products: Tensor) -> Tensor:
    """Quinton and Rey, "Jacobian descent for multi-objective optimization", arXiv 2406.16232."""
    from torchjd.aggregation import UPGradWeighting

    ridge = RIDGE * torch.eye(len(products), dtype=products.dtype)
    ones = torch.ones(len(products), dtype=products.dtype)
    return UPGradWeighting(pref_vector=ones, projector=_projector())(_psd(products + ridge))


def _psd(products: Tensor) -> PSDMatrix:
    return products  # type: ignore[return-value]  # the caller passes a positive semidefinite matrix


def _projector() -> Any:
    """A projector on the dual cone that needs only scipy: torchjd's own needs a package under the GPL."""
    from torchjd.linalg import DualConeProjector

    class Projector(DualConeProjector):
        """min v'Gv over v >= u is, with v = u + s and G = L L', a non-negative least squares problem in s."""

        def __call__(self, U: Tensor, G: PSDMatrix) -> Tensor:
            factor = np.linalg.cholesky(G.numpy()).T
            rows = [u + nnls(factor, -factor @ u)[0] for u in U.numpy()]
            return torch.from_numpy(np.stack(rows))

    return Projector()


_WAYS = {"pcgrad": _pcgrad, "upgrad": _upgrad}
