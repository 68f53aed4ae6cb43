"""Writes a network as an ONNX graph with torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from mtrain.disk.atomic import replacing
from mtrain.errors import UsageError
from mtrain.model.network import SharedNetwork

OPSET = 18
TALKATIVE = ("torch.onnx", "onnxscript")  # loggers


class FromPixels(nn.Module):
    """uint8 images (N, 3, size, size) -> features (N, num_features), and with a head also logits (N, classes)."""

    def __init__(self, network: SharedNetwork, head: nn.Module | None) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        network = self.network
        mean, std = network.mean[:, None, None], network.std[:, None, None]
        features = network((images.float() / 255 - mean) / std)
        return features if self.head is None else (features, self.head(features))


def write_onnx(network: SharedNetwork, head: nn.Module | None, path: Path, size: int) -> None:
    """Write the graph. Its batch size is variable; its image size is fixed.

    Raises:
        UsageError: a required package is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it, but reports that only late
    except ModuleNotFoundError:
        raise UsageError("ONNX needs packages that are not installed", remedy="pip install 'dpconvert[onnx]'") from None
    model = FromPixels(network, head).eval()
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with _quietly():
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["features", "logits"][: 1 if head is None else 2],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        )
    assert program is not None
    with replacing(path) as partial:
        onnx.save(program.model_proto, str(partial))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the exporter's warnings about harmless things."""
    levels = {logger: logger.level for logger in map(logging.getLogger, TALKATIVE)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in levels:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
