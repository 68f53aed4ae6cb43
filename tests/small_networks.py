"""Networks that cost the tests little: most of a small training is the number of its layers, and of a start a look at
how many features a network gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torchvision.models import _api
from torchvision.models.shufflenetv2 import ShuffleNetV2

from mtrain.model import network
from mtrain.model.backbones import Body

NAME = "shufflenet_v2_x0_5"
WHOLE = _api.BUILTIN_MODELS[NAME]
PROBE = network._probe
WIDTHS: dict[tuple[str, int, int], int] = {}  # name, size, parameters -> features


@wraps(WHOLE)  # torchvision finds networks by their modules
def shallow(*, weights: Any = None, progress: bool = True, **options: Any) -> ShuffleNetV2:
    """The network with two, one and one units in its stages instead of four, eight and four: the same layers and
    number of features (1024)."""
    if weights is not None:
        return WHOLE(weights=weights, progress=progress, **options)
    return ShuffleNetV2([2, 1, 1], [24, 48, 96, 192, 1024], **options)


def width(name: str, body: Body) -> int:
    """What the network gave when it was first asked."""
    key = name, body.size, sum(parameter.numel() for parameter in body.module.parameters())
    if key not in WIDTHS:
        WIDTHS[key] = PROBE(name, body)
    return WIDTHS[key]


def use_small_networks() -> None:
    """Build the shallow one under the name of the whole one, in this process and its forks, and ask no network twice
    for the number of its features."""
    _api.BUILTIN_MODELS[NAME] = shallow
    network._probe = width


@contextmanager
def whole_networks() -> Iterator[None]:
    """Build what other interpreters build."""
    before, _api.BUILTIN_MODELS[NAME] = _api.BUILTIN_MODELS[NAME], WHOLE
    try:
        yield
    finally:
        _api.BUILTIN_MODELS[NAME] = before
