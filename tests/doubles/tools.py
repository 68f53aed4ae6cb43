"""Doubles of what model cards give a network to: the documented signatures, and nothing else.

TRIDENT: `CustomInferenceEncoder(enc_name, model, transforms, precision)`; `forward(x)` calls the model
(trident/patch_encoder_models/load.py). eva 0.4.5: `ModelFromFunction(path, arguments=None, checkpoint_path=None,
transforms=None)` builds the model by calling `path` (eva/core/models/wrappers/from_function.py). THUNDER 0.2.2: the
abstract class `PretrainedModel`; `benchmark` reads `name`, `emb_dim` and `vlm` (thunder/models/pretrained_models.py,
thunder/tasks/train_eval_probe.py, thunder/tasks/pre_computing_patch_embeddings.py). LazySlide 0.13.0:
`tl.feature_extraction(wsi, model, *, model_name, transform)` stacks the outputs of a callable model
(lazyslide/tools/_features.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class CustomInferenceEncoder(nn.Module):
    def __init__(self, enc_name: str, model: nn.Module, transforms: Callable[..., Any], precision: torch.dtype) -> None:
        super().__init__()
        self.enc_name, self.model, self.eval_transforms, self.precision = enc_name, model, transforms, precision

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class ModelFromFunction(nn.Module):
    def __init__(
        self,
        path: Callable[..., nn.Module],
        arguments: dict[str, Any] | None = None,
        checkpoint_path: str | None = None,
        transforms: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = path(**arguments or {})

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class PretrainedModel(nn.Module, ABC):
    @abstractmethod
    def get_transform(self) -> Any: ...

    @abstractmethod
    def get_linear_probing_embeddings(self, x: Tensor) -> Any: ...

    @abstractmethod
    def get_segmentation_embeddings(self, x: Tensor) -> Any: ...


def feature_extraction(
    wsi: Any, model: Callable[[Tensor], Tensor], *, model_name: str | None = None, transform: Any = None
) -> None:
    """The slide of a test is a list of PIL images; what is found goes to its attribute `features`."""
    with torch.inference_mode():
        wsi.features = model_name, np.vstack([model(transform(tile)[None]).numpy() for tile in wsi.tiles])


def modules() -> dict[str, ModuleType]:
    """Name -> module, for sys.modules."""
    names = {
        "trident.patch_encoder_models": CustomInferenceEncoder,
        "eva.core.models.wrappers": ModelFromFunction,
        "thunder.models.pretrained_models": PretrainedModel,
        "lazyslide.tl": feature_extraction,
    }
    found: dict[str, ModuleType] = {}
    for path, content in names.items():
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:depth]), ModuleType(".".join(parts[:depth])))
        setattr(found[path], content.__name__, content)
    found["lazyslide"].tl = found["lazyslide.tl"]  # type: ignore[attr-defined]
    return found
