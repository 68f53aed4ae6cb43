"""Gradients that are the same bits each time: when torch's deterministic mode is on, and what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtrain.model.backbones import Body
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.train.backward.exactness import exact_gradients, has_attention, inexact_operator, make_exact
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import a_training

CPU = torch.device("cpu")


class Inexact(torch.autograd.Function):
    """The identity, whose gradient has no deterministic form."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(context: Any, gradients: Tensor) -> Tensor:  # type: ignore[override]
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("upsample_backward does not have a deterministic implementation, but you set ...")
        return gradients


class Small(nn.Module):
    """(N, 3, S, S) -> (N, 3), with statistics."""

    def __init__(self, *, inexact: bool) -> None:
        super().__init__()
        self.norm, self.inexact = nn.BatchNorm2d(3), inexact

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(images)
        return (Inexact.apply(found) if self.inexact else found).mean((2, 3))  # type: ignore[no-untyped-call, no-any-return]


def small(*, inexact: bool) -> SharedNetwork:
    return SharedNetwork("small", Body(Small(inexact=inexact)))


def test_attention_is_found_where_there_is_some() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    assert has_attention(shared_network("timm:vit_tiny_patch16_224", "random"), 32)
    assert not has_attention(shared_network("resnet18", "random"), 32)


def test_the_first_operator_without_a_deterministic_form_is_named_and_nothing_is_changed() -> None:
    network = small(inexact=True).train()
    network.strict = True
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert inexact_operator(network, 8) == "upsample_backward"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert inexact_operator(small(inexact=False), 8) is None


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(inexact=False)
    monkeypatch.setattr(network.body, "forward", lambda images: images.view(7))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        inexact_operator(network, 8)


def test_the_mode_of_torch_is_on_within_and_as_before_afterwards() -> None:
    network = small(inexact=False)
    for strict in (False, True):
        network.strict = strict
        with exact_gradients(network):
            assert torch.are_deterministic_algorithms_enabled() == strict
            assert torch.utils.deterministic.fill_uninitialized_memory == (not strict)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("choice", [{}, {"gradients": "pcgrad"}], ids=str)
def test_a_training_computes_its_gradients_in_the_mode_that_its_network_needs(
    tmp_path: Path, choice: dict[str, Any]
) -> None:
    write_pool(tmp_path, ("Alpha", "Beta"))
    training = a_training(tmp_path, leave_out=(), warmup=0, **choice)
    seen: list[bool] = []
    weights = next(training.model.shared.body.parameters())
    weights.register_hook(lambda gradient: seen.append(torch.are_deterministic_algorithms_enabled()))
    for number, strict in enumerate((False, True)):
        training.model.shared.strict = strict
        training.step(*next(iter(training.iterations(range(number, number + 1)))))
        assert set(seen) == {strict}
        seen.clear()


def test_on_the_cpu_nothing_is_changed() -> None:
    network, notes = small(inexact=True), list[str]()
    make_exact(network, 8, CPU, notes.append)
    assert not network.strict
    assert notes == []
