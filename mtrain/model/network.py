"""A `SharedNetwork` from images to features, and `MultiHead`, which adds one linear head a task.

Networks go by the names of mtrain.model.backbones; their weights are "imagenet", "random" or a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mtrain.data.augment import normalize
from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import Body, backbone_called, body_of, relatives
from mtrain.model.names import AUTHORS_DENSENET, TORCHVISION_DENSENET, architecture
from mtrain.model.task_heads import TaskHeads
from mtrain.model.weights import Weights, open_weights
from mtrain.model.weights_fit import fit_names


class SharedNetwork(nn.Module):
    """Normalized images (N, 3, H, W) -> features (N, num_features), globally average-pooled."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, body: Body) -> None:
        super().__init__()
        self.name = name
        self.body = body.module
        self.num_features = _probe(name, body)
        self.register_buffer("mean", torch.tensor(body.mean), persistent=False)
        self.register_buffer("std", torch.tensor(body.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images)
        return features

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> what `forward` takes."""
        return normalize(images, self.mean, self.std)


class MultiHead(nn.Module):
    """The shared network and a linear head for each task, by task name in `classes` order."""

    def __init__(self, shared: SharedNetwork, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.shared = shared
        self.heads = TaskHeads(shared.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (N, 3, H, W) -> logits (N, classes of all tasks), whichever task each image is of."""
        logits: Tensor = self.heads(self.shared(images))
        return logits


def shared_network(
    name: str, weights: str | os.PathLike[str] = "imagenet", key: str | None = None
) -> SharedNetwork:  # fmt: skip
    """The network called `name`; "random" weights come from torch's current random state.

    key: which part of a weights file to take, where it holds more than one network.

    Raises:
        UsageError: an unknown name, or a network whose classifier cannot be told apart.
        RunError: weights that cannot be had or do not fit.
    """
    from_file = weights not in ("imagenet", "random")
    if key is not None and not from_file:
        raise UsageError("--weights-key names a part of a file", found=f"--weights {weights}", remedy="leave it away")
    body = body_of(name, pretrained=weights == "imagenet")
    if from_file:
        load_weights(body.module, Path(weights), name, key)
    return SharedNetwork(name, body)


def load_weights(network: nn.Module, path: Path, name: str, key: str | None = None) -> None:
    """Put the weights in `path` into `network`, which is called `name`; all of them, but for heads and the like.

    Raises:
        RunError: not a weights file, one of another network, or of several.
        UsageError: nothing in the file is called `key`.
    """
    weights = open_weights(path)
    _check_stated(weights, name, path)
    network.load_state_dict(fit_names(weights.tensors, network.state_dict(), path, name, key, relatives(name)))


def _check_stated(weights: Weights, name: str, path: Path) -> None:
    """Networks whose tensors are alike may compute different things: what a file says it is of counts too."""
    called = None if weights.architecture is None else backbone_called(weights.architecture)
    stated = weights.backbone or called
    if stated is None or architecture(stated) == architecture(name):
        return
    if name == AUTHORS_DENSENET and weights.backbone is None and called == TORCHVISION_DENSENET:
        return  # the paper begins from torchvision's ImageNet weights
    raise RunError(
        f"not the weights of {name}", where=path, found=f"weights of {stated}", remedy=f"give --backbone {stated}"
    )


def find_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"no device {name!r}", remedy="use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device {name!r} here", remedy="use --device auto or cpu")
    return device


@torch.no_grad()
def check_size(network: SharedNetwork, size: int) -> None:
    """Raises:
    UsageError: the network cannot take images of `size` pixels.
    """
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{network.name} does not take images of {size} px: {reason}", remedy="give another --size"
        ) from None
    finally:
        network.train(was_training)


@torch.no_grad()
def _probe(name: str, body: Body) -> int:
    """Features an image, found by running one."""
    was_training = body.module.training
    features = body.module.eval()(torch.zeros(1, 3, body.size, body.size))
    body.module.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UsageError(f"{name} does not end in one vector an image", remedy="choose another --backbone")
    return features.shape[1]
