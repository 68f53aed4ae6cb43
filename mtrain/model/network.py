"""`SharedNetwork`, which maps images to features, and `MultiHead`, which adds one linear head per task.

A network has a name known to mtrain.model.backbones or is described by a table (mtrain.backbones); its weights are
"imagenet", "random" or a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.backbones.downloads import announced
from mtrain.data.batches.augment import normalize
from mtrain.data.rows import DenseTargets, Target
from mtrain.disk.checksums import check_published
from mtrain.disk.remembered import remember
from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import PROBE, Body, backbone_called, body_of, body_of_card, timm_with
from mtrain.model.dense.dense_network import DenseNetwork
from mtrain.model.dense.maps import levels_of
from mtrain.model.network_names import AUTHORS_DENSENET, LITE, TIMM, TORCHVISION_DENSENET, architecture
from mtrain.model.relatives import listed_networks, relatives
from mtrain.model.rotary import keep_rotary_embeddings
from mtrain.model.task_heads import TaskHeads
from mtrain.model.tokens import pooled
from mtrain.model.weight_files.weights import Weights, open_weights
from mtrain.model.weight_files.weights_file import files_of, not_read, weights_in
from mtrain.model.weight_files.weights_fit import Candidates, StateDict, fit_names
from mtrain.model.weight_files.weights_names import in_own_names

Network = str | BackboneCard
CLASS_TOKEN = "cls_token"
UPDATE = re.compile(r"\.lora_[AB](\.|$)")


class SharedNetwork(nn.Module):
    """Normalized images (N, 3, H, W) -> features (N, num_features), pooled by the network or as its table states.

    card: the table that describes the network, if any. strict: compute gradients in torch's deterministic mode
    (mtrain.train.backward.exactness).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, body: Body, card: BackboneCard | None = None) -> None:
        super().__init__()
        self.name, self.card, self.strict = name, card, False
        self.body, self.rule, self.interpolation = body.module, body.features, body.interpolation
        keep_rotary_embeddings(self.body)
        self.num_features = _num_features(name, body)
        self.register_buffer("mean", torch.tensor(body.mean), persistent=False)
        self.register_buffer("std", torch.tensor(body.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images)
        if self.rule == "pooled":
            return features
        return pooled(features, self.rule, self.body.num_prefix_tokens)  # type: ignore[arg-type]

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize uint8 images (N, 3, H, W) for `forward`."""
        return normalize(images, self.mean, self.std)


class MultiHead(nn.Module):
    """The shared network and one linear head per task, by task name, in the order of `classes`.

    classes: number of outputs of each task. targets: as in `TaskHeads`.
    dense: the tasks whose masks or points are predicted too. size: side of the images, in pixels.
    """

    def __init__(
        self,
        shared: SharedNetwork,
        classes: Mapping[str, int],
        dense: Mapping[str, DenseTargets] | None = None,
        size: int | None = None,
        targets: Mapping[str, Target] | None = None,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.heads = TaskHeads(shared.num_features, classes, targets)
        levels = levels_of(shared.body, size or PROBE, shared.name) if dense else ()
        self.dense = DenseNetwork(levels, dense) if dense else None

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (N, 3, H, W) -> logits (N, classes of all tasks), whatever the tasks of the images."""
        logits: Tensor = self.heads(self.shared(images))
        return logits


def shared_network(
    name: Network, weights: str | os.PathLike[str] = "imagenet", key: str | None = None
) -> SharedNetwork:
    """Return the network called `name` or described by a table.

    name: a listed table, a network of torchvision, `timm:NAME`, or the path of a table (mtrain.backbones.catalog).
    weights: "imagenet", "random" (from torch's current random state), a file, or the folder that contains it. key: the
    part of the weights file to use if it contains several networks.

    Raises:
        UsageError: the name is unknown, or the network's classifier cannot be identified.
        RunError: the weights are not available or do not fit the network.
    """
    from_file = weights not in ("imagenet", "random")
    if key is not None and not from_file:
        raise UsageError("--weights-key names a part of a file", found=f"--weights {weights}", remedy="omit it")
    card = catalog.described(name) if isinstance(name, str) else name
    pretrained = weights == "imagenet"
    if pretrained and isinstance(name, str) and card is None and name.startswith(TIMM):
        timm_with(name)  # takes seconds, and may refuse the name: before a download is announced
    elsewhere = pretrained and name != LITE  # whose weights are in an installed package
    with announced(f"the ImageNet weights of {name if card is None else card.name}") if elsewhere else nullcontext():
        if card is None:
            assert isinstance(name, str)
            body, called = body_of(name, pretrained=pretrained), name
        else:
            catalog.check_weights(card, str(weights))
            body, called = body_of_card(card, pretrained=pretrained), card.name
    network = SharedNetwork(called, body, card)
    if from_file:
        load_weights(network.body, Path(weights), called, key, card)
    return network


def load_weights(
    network: nn.Module, path: Path, name: str, key: str | None = None, card: BackboneCard | None = None
) -> None:
    """Load the weights in `path` into the network called `name`; only heads and similar parts may be left over.

    card: the table that describes the network and the names of its tensors in its authors' files.

    Raises:
        RunError: the file is not a weights file, or contains another network or several networks.
        UsageError: nothing in the file is called `key`.
    """
    given, names = path, card.files if card else ()
    path = weights_in(given, names)
    if others := not_read(given, path, names):
        remember(f"{given}: {path.name} was read, not {', '.join(others)}; give a file with --weights to choose")
    weights = open_weights(path)
    wanted, tensors = network.state_dict(), weights.tensors
    _check_whole(tensors, path)
    if card is not None:
        files = files_of(path)
        for file in files:
            check_published(file, card.sha256)
        if card.sha256 and weights.backbone is None and not any(file.name in card.sha256 for file in files):
            of = ", ".join(card.sha256)
            remember(f"{path}: its sha256 was not compared; the table of {name} states that of {of}")
        tensors = in_own_names(tensors, wanted, catalog.namings(card).values(), path)
    if card is None or weights.backbone is not None:  # a table itself states the architecture of files of others
        _check_stated(weights, name, path)
    network.load_state_dict(fit_names(tensors, wanted, path, name, key, _others(tensors, name, card)))


def _others(tensors: StateDict, name: str, card: BackboneCard | None) -> Candidates:
    """Yield networks that a file may contain instead of `name`; for vision transformers, those with a table first."""
    for width in {tensor.shape[-1] for given, tensor in tensors.items() if given.endswith(CLASS_TOKEN) and tensor.ndim}:
        yield from ((other, shapes) for other, shapes in listed_networks(width) if other != name)
    if card is None:
        yield from relatives(name)


def _check_whole(tensors: StateDict, path: Path) -> None:
    """Refuse low-rank updates, which are no weights by themselves."""
    if update := next(filter(UPDATE.search, tensors), None):
        raise RunError(
            f"not the weights of a network: low-rank updates of an adapter: {update}",
            where=path,
            remedy="merge them into the weights that they were trained on, as merge_and_unload() of PEFT does",
        )


def _check_stated(weights: Weights, name: str, path: Path) -> None:
    """Compare the network that a file names: networks with equal tensors may compute different functions."""
    called = None if weights.architecture is None else backbone_called(weights.architecture)
    stated = weights.backbone or called
    if stated is None or architecture(stated) == architecture(name):
        return
    if name == AUTHORS_DENSENET and weights.backbone is None and called == TORCHVISION_DENSENET:
        return  # the paper starts from torchvision's ImageNet weights
    raise RunError(
        f"not the weights of {name}", where=path, found=f"weights of {stated}", remedy=f"give --backbone {stated}"
    )


@torch.no_grad()
def check_size(network: SharedNetwork, size: int) -> None:
    """Check that the network accepts images of `size` pixels.

    Raises:
        UsageError: it does not.
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


def _num_features(name: str, body: Body) -> int:
    """Return the number of features per image: an attribute of token networks, else found by running the network."""
    if body.features == "pooled":
        return _probe(name, body)
    width: int = body.module.num_features  # type: ignore[assignment]
    return width * (2 if body.features == "cls+mean" else 1)


@torch.no_grad()
def _probe(name: str, body: Body) -> int:
    """Return the number of features per image, found by running the network on one."""
    was_training = body.module.training
    features = body.module.eval()(torch.zeros(1, 3, body.size, body.size))
    body.module.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UsageError(f"{name} does not end in one vector an image", remedy="choose another --backbone")
    return features.shape[1]
