"""A decoder of masks and points whose network is trained with it: `--mode dense --tune WHAT`.

All of the recipe of the frozen network holds (mtrain.transfers.dense.dense_frozen): loss, optimizer, batches, steps,
and the rate of the decoder. The chosen parameters of the network have a separate rate, 1e-4 by default, a twentieth
of that of the decoder, which starts from random weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtrain.data.rows import DenseTargets
from mtrain.model import tuning
from mtrain.model.dense.maps import features_and_maps
from mtrain.model.network import SharedNetwork
from mtrain.transfers.dense.dense_frozen import FrozenDense
from mtrain.transfers.request import DENSE_LR, FROZEN_NETWORK


@dataclass(frozen=True)
class Moving:
    """What is trained of the network, as in `FitConfig.tune`; its learning rate, and the factor from block to block."""

    tune: str = FROZEN_NETWORK
    lr: float = DENSE_LR
    layer_decay: float | None = None

    def determining(self) -> dict[str, Any]:
        """What a result depends on; nothing for a frozen network."""
        if self.tune == FROZEN_NETWORK:
            return {}
        decay = {} if self.layer_decay is None else {"layer_decay": self.layer_decay}
        return {"tune": self.tune, "lr": self.lr} | decay


class TunedDense(FrozenDense):
    """A decoder and a copy of a network under training."""

    def __init__(
        self, network: SharedNetwork, dense: DenseTargets, size: int, seed: int, device: str, moving: Moving
    ) -> None:
        own = copy.deepcopy(network).cpu()  # the network given serves other targets too
        torch.manual_seed(seed)
        tuning.prepare(own.body, moving.tune, own.name)
        super().__init__(own, dense, size, seed, device)
        for group in self._moved(moving):
            self.optimizer.add_param_group(group)

    def _moved(self, moving: Moving) -> list[dict[str, Any]]:
        body = self.network.body
        if moving.layer_decay is None:
            return [{"params": tuning.moved(body), "lr": moving.lr}]
        layers = tuning.by_layer(body, moving.layer_decay, self.network.name)
        return [{"params": own, "lr": moving.lr * factor} for factor, own in layers]

    @property
    def parts(self) -> nn.Module:
        """All modules that training changes: batch normalization gathers statistics even where it is not tuned."""
        return nn.ModuleDict({"decoder": self.decoder, "network": self.network})

    @property
    def moved(self) -> int:
        """Number of values of the network that are trained."""
        return sum(parameter.numel() for parameter in tuning.moved(self.network.body))

    def maps(self, pixels: Tensor) -> Tensor:
        """The last map of the network, with what its gradients need."""
        return features_and_maps(self.network, self.network.body, [self.level], pixels)[1][0]

    def train(self, training: bool) -> None:
        """Have batch normalization take the statistics of each batch, or those that it has gathered."""
        super().train(training)
        self.network.train(training)
