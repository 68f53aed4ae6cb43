"""The code of a model card for other tools: executed as it stands, against the tools' documented signatures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtrain.backbones.card import BackboneCard
from mtrain.export import snippets
from mtrain.export.formats import WRITERS
from mtrain.model.backbones import body_of_card
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.runs.seen import Seen
from tests.doubles import tools

pytest.importorskip("timm")

BLOCK = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
OPTIONS = {"img_size": 28, "depth": 1, "embed_dim": 16, "num_heads": 2}
CARD = BackboneCard(
    name="tiny",
    title="Tiny",
    timm="vit_small_patch14_reg4_dinov2",
    options=OPTIONS,
    features="cls+mean",
    mean=(0.7, 0.6, 0.5),
    std=(0.2, 0.25, 0.3),
    interpolation="bicubic",
    size=28,
    patch=14,
)


def network_of(name: str) -> SharedNetwork:
    torch.manual_seed(4)
    if name == "table":
        return SharedNetwork("tiny", body_of_card(CARD), CARD).eval()
    return shared_network(name, "random").eval()


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in tools.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("name", "to"),
    [("table", "timm"), ("table", "safetensors"), ("timm:resnet10t", "timm"), ("shufflenet_v2_x0_5", "torchvision")],
)
@torch.inference_mode()
def test_each_tool_gets_the_features_of_the_network(
    name: str, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, size = network_of(name), 28 if name == "table" else 64
    written = WRITERS[to](network, None, tmp_path, size, Seen())
    text = "\n".join(snippets.section("my-run", network, size, written.encoder))
    preamble, trident, eva, thunder, lazyslide = BLOCK.findall(text)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "card"}
    exec(f"{written.loading.replace('(images)', '(torch.zeros(1, 3, 28, 28))')}\n{preamble}", scope)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    prepared, expected = scope["transform"](picture)[None], network(network.normalize(pixels))
    torch.testing.assert_close(prepared, network.normalize(pixels))
    exec(trident, scope)
    encoder = scope["patch_encoder"]
    torch.testing.assert_close(encoder(encoder.eval_transforms(picture)[None].to(encoder.precision)), expected)
    exec(eva, scope)
    torch.testing.assert_close(scope["model"](prepared), expected)
    exec(thunder, scope)
    model = scope["model"]
    torch.testing.assert_close(model.get_linear_probing_embeddings(model.get_transform()(picture)[None]), expected)
    assert (model.name, model.emb_dim, model.vlm) == ("my-run", expected.shape[1], False)
    exec(lazyslide, scope)
    slide = SimpleNamespace(tiles=[picture, picture])
    scope["extract"](slide)
    assert slide.features[0] == "my-run"
    np.testing.assert_allclose(slide.features[1], expected.repeat(2, 1).numpy(), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_images_of_other_sizes_are_prepared_as_in_training() -> None:
    scope: dict[str, Any] = {}
    exec(snippets.preamble(network_of("table"), 28, ""), scope)
    from mtrain.data.batches.augment import square

    smooth = np.linspace(0, 255, 60 * 40 * 3).reshape(60, 40, 3).astype(np.uint8)
    own = square(torch.from_numpy(smooth).permute(2, 0, 1), 28, how="bicubic")
    theirs = scope["transform"](Image.fromarray(smooth)) * torch.tensor(CARD.std)[:, None, None]
    theirs = (theirs + torch.tensor(CARD.mean)[:, None, None]) * 255
    assert (theirs - own).abs().max() < 6  # the square is cut after it is resized, not before


def test_a_format_without_a_module_has_no_section() -> None:
    assert list(snippets.section("my-run", network_of("table"), 28, "")) == []
