"""The memory of an iteration, estimated from shapes: compared with tensors that a real iteration keeps."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.model import tuning
from mtrain.model.backbones import body_of_card
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.train.footprint import GIB, Footprint, footprint, remarks

pytest.importorskip("timm")

CPU = torch.device("cpu")
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2}
LARGE = {"img_size": 224}


@pytest.fixture
def memory_is_not_estimated() -> None:
    """It is, here."""


def model_of(options: dict[str, Any], timm: str = "vit_small_patch16_224", **given: Any) -> MultiHead:
    card = BackboneCard(name="net", title="Net", timm=timm, options=options, features="cls")
    shared = SharedNetwork("net", body_of_card(card), card)
    tuning.prepare(shared.body, given.get("tune", "all"), "net")
    if given.get("checkpointing"):
        tuning.check_pointing(shared.body, "net")
    return MultiHead(shared, {"Alpha": 2})


def estimate(samples: int = 16, options: dict[str, Any] = SMALL, size: int = 32, **given: Any) -> Footprint:
    config = FitConfig(size=size, **given)
    return footprint(config, model_of(options, **given), CPU, samples)


def kept_bytes(model: MultiHead, samples: int) -> int:
    """Bytes of the distinct storages that a real forward pass keeps for the backward pass, weights apart."""
    kept: dict[int, tuple[Tensor, int]] = {}
    images = torch.zeros(samples, 3, 32, 32)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model.train()(images)
    assert logits.requires_grad
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("tune", ["all", "bias", "last:1", "lora:2"])
def test_activations_are_those_that_a_real_pass_keeps(tune: str) -> None:
    found, kept = estimate(tune=tune).activations, kept_bytes(model_of(SMALL, tune=tune), 16)
    assert kept <= found <= 1.35 * kept + 16 * 17 * 64 * 4 * 8  # besides a few tensors of the layer that is computed


def test_weights_gradients_and_states_are_counted_by_hand() -> None:
    layer = nn.Linear(64, 2)
    model = model_of(SMALL)
    count = sum(parameter.numel() for parameter in model.parameters())
    found = estimate(optimizer="adamw")
    assert 4 * count < found.weights < 4 * count + 100  # and the buffers: mean, std and the tasks of the heads
    assert (found.gradients, found.optimizer) == (4 * count, 8 * count)
    heads = estimate(tune="heads")
    own = 4 * sum(parameter.numel() for parameter in layer.parameters())
    assert (heads.gradients, heads.optimizer) == (own, own)  # the momentum of SGD
    assert estimate(momentum=0).optimizer == 0
    assert estimate(momentum=0, ema=0.9).optimizer == found.weights


def test_what_stands_still_keeps_less() -> None:
    whole, last, heads = (estimate(tune=tune).activations for tune in ("all", "last:1", "heads"))
    assert heads < last < 0.5 * whole


def test_checkpointing_is_estimated_where_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, checkpointing keeps the states of generators of CUDA devices, which fake tensors cannot hold."""
    expected = estimate(checkpointing=True)

    def refused(*_: object) -> None:
        raise RuntimeError("the states of generators")

    monkeypatch.setattr(torch.cuda, "_initialized", True)
    monkeypatch.setattr(torch.utils.checkpoint, "get_device_states", refused)
    assert estimate(checkpointing=True) == expected
    assert torch.utils.checkpoint.get_device_states is refused


def test_checkpointing_is_estimated_for_a_device_that_the_network_is_not_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" is in the place of CUDA: what is run again in the backward pass belongs on it, too."""
    given: dict[str, Any] = {"checkpointing": True, "tune": "lora:2"}
    config, model = FitConfig(size=32, **given), model_of(SMALL, **given)
    expected = footprint(config, model, CPU, 16)
    monkeypatch.setattr(torch, "autocast", lambda *_types, enabled: nullcontext(enabled))
    found = footprint(config, model, torch.device("meta"), 16)
    assert found.activations == pytest.approx(expected.activations, rel=0.05)  # attention is another operator there


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block() -> None:
    deep = SMALL | {"depth": 12}
    plain = estimate(options=deep, tune="bias").activations
    saving = estimate(options=deep, tune="bias", checkpointing=True).activations
    half = estimate(options=SMALL | {"depth": 6}, tune="bias", checkpointing=True).activations
    tokens = 16 * 17 * 64 * 4  # bytes of what one block gives to the next
    assert saving < 0.4 * plain
    assert saving - half == pytest.approx(6 * tokens, rel=0.2)


def test_activations_grow_with_the_batch() -> None:
    one, two = estimate(samples=16).activations, estimate(samples=32).activations
    assert two == pytest.approx(2 * one, rel=0.01)


def test_a_large_transformer_is_estimated_without_its_memory() -> None:
    card = BackboneCard(name="net", title="Net", timm="vit_large_patch16_224", options=LARGE, features="cls")
    with torch.device("meta"):
        shared = SharedNetwork("net", body_of_card(card), card)
    model = MultiHead(shared, {"Alpha": 2})
    found = footprint(FitConfig(optimizer="adamw"), model, CPU, 64)
    assert all(parameter.is_meta for parameter in shared.parameters())
    assert found.weights / GIB == pytest.approx(303.3e6 * 4 / GIB, rel=0.01)
    tokens = 64 * 197 * 1024 * 4
    assert 24 * 14 * tokens < found.activations < 24 * 24 * tokens  # a block keeps about 17 widths of each token


def test_more_than_there_is_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtrain.train.footprint.free_memory", lambda _device: 2**20)
    line, warning = remarks(FitConfig(size=32), model_of(SMALL), CPU, 16)
    assert line.startswith("memory of an iteration, estimated from shapes: ")
    assert line.endswith("; cpu has 1 MiB free")
    assert warning.startswith("WARNING: this is more memory than cpu has free")
    monkeypatch.setattr("mtrain.train.footprint.free_memory", lambda _device: 2**40)
    assert len(remarks(FitConfig(size=32), model_of(SMALL), CPU, 16)) == 1


@pytest.mark.parametrize("given", [{"gradients": "upgrad"}, {"gradients": "pcgrad"}, {"log_cosines": 10}])
def test_the_gradients_of_each_task_are_counted(given: dict[str, Any]) -> None:
    model = model_of(SMALL)
    shared = sum(parameter.numel() for parameter in model.shared.parameters())
    assert shared < 2**20  # all of them are multiplied at once, in double precision
    many = MultiHead(model.shared, {"Alpha": 2, "Beta": 3, "Gamma": 2})
    found = footprint(FitConfig(size=32, **given), many, CPU, 2)
    assert found.tasks == 3 * shared * (4 + 8)
    assert "gradients of each task" in str(found)
    assert footprint(FitConfig(size=32), many, CPU, 2).total == found.total - found.tasks
    for without in (footprint(FitConfig(size=32, **given), model, CPU, 2), estimate(2, tune="heads", **given)):
        assert without.tasks == 0
