"""Rotary position embeddings that are kept: the values are those of timm, and follow the grid, device and copy."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mtrain.backbones.card import BackboneCard
from mtrain.export.onnx import write_onnx
from mtrain.model.backbones import body_of_card
from mtrain.model.network import SharedNetwork

timm = pytest.importorskip("timm", reason="timm is an extra")
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
ROTARY = {"dinov3": "vit_small_patch16_dinov3", "eva02": "eva02_tiny_patch14_224"}


def network_of(name: str) -> SharedNetwork:
    card = BackboneCard(name="net", title="Net", timm=name, options=SMALL, features="cls", mean=(0.5,) * 3)
    torch.manual_seed(0)
    return SharedNetwork("net", body_of_card(card), card).eval()


def of_timm(network: SharedNetwork, images: Tensor) -> Tensor:
    """The features without what is kept."""
    other = copy.deepcopy(network)
    del other.body.rope.__dict__["get_embed"]
    found: Tensor = other(images)
    return found


@pytest.mark.parametrize("name", ROTARY.values(), ids=ROTARY)
def test_features_are_those_of_timm_whatever_the_grid(name: str) -> None:
    network = network_of(name)
    with torch.no_grad():
        for size in (112, 224, 224, 112):
            images = torch.randn(2, 3, size, size)
            assert torch.equal(network(images), of_timm(network, images))


def test_an_embedding_is_computed_once_for_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    network, made = network_of(ROTARY["dinov3"]), []
    rope = network.body.rope
    plain = type(rope).get_embed
    monkeypatch.setattr(type(rope), "get_embed", lambda *args, **kwargs: made.append(1) or plain(*args, **kwargs))
    with torch.inference_mode():
        for _ in range(3):
            network(torch.zeros(1, 3, 64, 64))
    assert len(made) == 1
    network(torch.zeros(1, 3, 64, 64)).sum().backward()  # gradients flow beside what inference mode has made
    assert len(made) == 1


def test_a_copy_has_an_embedding_of_its_own() -> None:
    network = network_of(ROTARY["dinov3"])
    other = copy.deepcopy(network)
    assert other.body.rope.get_embed.module is other.body.rope is not network.body.rope
    images = torch.zeros(1, 3, 64, 64)
    assert other.double()(images.double()).dtype == torch.float64
    assert network(images).dtype == torch.float32


def test_learned_and_augmented_embeddings_are_computed_each_time() -> None:
    learned = network_of("vit_small_patch16_rope_mixed_224")
    assert "get_embed" not in learned.body.rope.__dict__
    augmented = body_of_card(
        BackboneCard(name="net", title="Net", timm=ROTARY["dinov3"], options=SMALL | {"rope_rescale_coords": 2.0})
    )
    network = SharedNetwork("net", augmented)
    assert isinstance(network.body.rope, nn.Module)
    assert "get_embed" not in network.body.rope.__dict__


@pytest.mark.stress  # seconds of imports; test_export.py runs an ONNX graph of another network
def test_an_onnx_graph_holds_the_embedding_and_its_export_prints_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, path = network_of(ROTARY["dinov3"]), tmp_path / "model.onnx"
    write_onnx(network, None, path, 64)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = network(network.normalize(images))
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-4)
