"""torch.compile: optional, tried at once, and said aloud where it does not work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtrain.train.compilation import compiled

IMAGES = torch.randn(4, 3, 8, 8)


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())


def test_where_it_does_not_work_the_network_itself_is_used_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_network: nn.Module) -> nn.Module:
        def fails(_images: Tensor) -> Tensor:
            raise RuntimeError("\nbackend='inductor' raised:\nInvalidCxxCompiler:\n  no working C++ compiler found")

        return fails  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", no_compiler)
    network, said = a_network(), []
    assert compiled(network, IMAGES, said.append) is network
    assert said == ["torch.compile failed, so the network is not compiled: no working C++ compiler found"]


def test_too_little_memory_is_not_taken_for_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(_network: nn.Module) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "compile", lambda _network: too_large)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(a_network(), IMAGES, lambda _text: None)


@pytest.mark.stress
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiled_it_gives_the_same_and_trying_changes_nothing(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: plain(network, backend=backend))
    network, other, said = a_network().eval(), a_network(), []
    faster = compiled(network, IMAGES, said.append)
    assert said == []
    assert faster is not network
    assert not network.training
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.allclose(faster(IMAGES), other.eval()(IMAGES), atol=1e-6)
