"""Networks that resemble another by name or width, with the names and shapes of their tensors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mtrain.backbones import catalog
from mtrain.model.backbones import UNBUILDABLE, Body, body_of, body_of_card, names_of_timm, names_of_torchvision
from mtrain.model.network_names import LITE, TIMM, architecture

MOST_RELATIVES, MOST_OTHERS = 20, 5  # per library: of the same family, and of others
LIKE = 0.5  # share of letters that the names of others have in common


def relatives(name: str) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield networks with names similar to `name` and the names and shapes of their tensors, which take no memory.

    Networks of its own library come first, the most similar first.
    """
    for other in _near(name):
        if (shapes := _shapes_of(partial(body_of, other, pretrained=False))) is not None:
            yield other, shapes


def listed_networks(width: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the networks with a table whose tokens have this width, like `relatives`."""
    for card in catalog.listed():
        if card.published is None or card.published.width != width:
            continue
        # only shapes are needed: skip timm's initialization, which takes most of the time
        quickly = card.model_copy(update={"options": card.options | {"weight_init": "skip"}})
        for how in (quickly, card) if card.timm else ():
            if (shapes := _shapes_of(partial(body_of_card, how))) is not None:
                yield card.name, shapes
                break


class _EmptyOnMeta(TorchFunctionMode):
    """Weights take no memory, but what a network computes its widths from, as RegNet does, has values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        place = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **place})


def _shapes_of(make: Callable[[], Body]) -> Mapping[str, Tensor] | None:
    for without_values in (torch.device("meta"), _EmptyOnMeta()):
        with suppress(*UNBUILDABLE), without_values:
            return make().module.state_dict()
    return None


def _near(name: str) -> list[str]:
    """Names of the same family (resnet18: all with "resnet"), then others with like letters (resnext50_32x4d)."""
    plain = architecture(name)
    family = re.search(r"[a-z]{3,}", plain)
    same = family[0] if family else plain

    def nearest(names: list[str]) -> list[str]:
        likeness = {other: difflib.SequenceMatcher(None, plain, other).ratio() for other in names}
        ordered = sorted(likeness, key=lambda other: -likeness[other])
        family = [other for other in ordered if same in other][:MOST_RELATIVES]
        return family + [other for other in ordered if same not in other and likeness[other] > LIKE][:MOST_OTHERS]

    libraries = [nearest(names_of_torchvision()), [TIMM + other for other in nearest(names_of_timm())]]
    own_first = libraries[::-1] if name == LITE or name.startswith(TIMM) else libraries
    return [other for names in own_first for other in names if other != name]
