import math
from typing import Any

import pytest
import torch
from torch import nn

from mtrain.config import FitConfig
from mtrain.model.loss import head_scales, task_losses
from mtrain.model.network import MultiHead, shared_network
from mtrain.train import checkpoint
from mtrain.train.averaging import Average
from mtrain.train.optimizer import PhaseOptimizer, learning_rates


class Tiny(nn.Module):
    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


def model() -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(Tiny(), {"A": 2, "B": 3})  # type: ignore[arg-type]


CONFIG = FitConfig(iterations=100, warmup=20, warmup_lr=0.5, lr=0.1, tau=3)


def test_the_rates_are_the_papers() -> None:
    assert learning_rates(CONFIG, 0) == (0, 0.5)
    assert learning_rates(CONFIG, 19) == (0, 0.5)
    assert learning_rates(CONFIG, 20) == learning_rates(CONFIG, 99) == pytest.approx((0.1, 0.3))


@pytest.mark.parametrize(("iteration", "share"), [(20, 1), (60, 0.5), (99, 0.5 * (1 + math.cos(math.pi * 79 / 80)))])
def test_the_cosine_falls_from_the_end_of_the_warmup_to_the_end(iteration: int, share: float) -> None:
    config = CONFIG.model_copy(update={"schedule": "cosine"})
    assert learning_rates(config, 19) == (0, 0.5)
    assert learning_rates(config, iteration) == pytest.approx((0.1 * share, 0.3 * share))


def test_the_warmup_moves_the_heads_alone() -> None:
    net = model()
    assert PhaseOptimizer(CONFIG, net, 0).shared is None
    after = PhaseOptimizer(CONFIG, net, 20)
    assert after.rates == pytest.approx({"shared": 0.1, "heads": 0.3})
    assert after.shared is not None
    held = {id(p) for group in after.shared.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.shared.parameters()}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_rates_change_from_iteration_to_iteration(name: str) -> None:
    config = CONFIG.model_copy(update={"optimizer": name})
    for iteration, expected in ((3, {"heads": 0.25}), (30, {"shared": 0.125, "heads": 0.25})):
        optimizer = PhaseOptimizer(config, model(), iteration)
        optimizer.set_rates((0.125, 0.25))
        assert optimizer.rates == expected


def test_adamw_is_used_with_its_weight_decay() -> None:
    config = CONFIG.model_copy(update={"optimizer": "adamw", "weight_decay": 0.1})
    optimizer = PhaseOptimizer(config, model(), 50).shared
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


def by_hand(
    momentum: float, decay: float, rate: float, gradients: list[torch.Tensor], start: torch.Tensor
) -> torch.Tensor:
    """Plain SGD: g <- g + decay * p; v <- momentum * v + g, where v is g at first; p <- p - rate * v."""
    value, velocity = start.clone(), None
    for gradient in gradients:
        gradient = gradient + decay * value
        velocity = gradient if velocity is None else momentum * velocity + gradient
        value = value - rate * velocity
    return value


def by_torch(kind: Any, gradients: list[torch.Tensor], start: torch.Tensor, **options: float) -> torch.Tensor:
    """What PyTorch's own optimizer makes of the same gradients."""
    value = nn.Parameter(start.clone())
    optimizer = kind([value], **options)
    for gradient in gradients:
        value.grad = gradient.clone()
        optimizer.step()
    return value.detach()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_head_may_have_its_first_sample_in_any_iteration(name: str, resumed: bool) -> None:
    """Head B has its first in iteration 7, and then moves as a plain optimizer would move it."""
    config = CONFIG.model_copy(update={"optimizer": name, "warmup": 3, "weight_decay": 0.1})
    net, generator = model(), torch.Generator().manual_seed(3)
    optimizer = PhaseOptimizer(config, net, 0)
    start = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    gradients = []
    for iteration in range(9):
        if iteration == config.warmup:
            optimizer = PhaseOptimizer(config, net, iteration)
        if resumed and iteration in (2, 5, 8):
            state = {key: tensor.clone() for key, tensor in checkpoint.training_state(net, optimizer).items()}
            net = model()
            optimizer = PhaseOptimizer(config, net, iteration)
            checkpoint.restore(net, optimizer, state)
        if optimizer.shared is not None:
            assert optimizer.shared.defaults["fused"], "the kernel that CUDA gets"
        optimizer.set_rates(learning_rates(config, iteration))
        counts = [2, 0] if iteration < 6 else [1, 1]
        optimizer.zero_grad()
        logits = net.heads(net.shared.layer(torch.randn(2, 3, generator=generator)))
        losses = task_losses(logits, torch.tensor([1, 0]), torch.repeat_interleave(torch.tensor(counts)), net.heads)
        (losses.sum() / 2).backward()
        optimizer.step(head_scales(counts))
        if counts[1]:
            gradients.append(net.heads.rows_of(net.heads.weight.grad)["B"].clone())
        assert torch.equal(net.heads["B"].weight, start["heads.B.weight"]) == (iteration < 6)
    assert len(gradients) == 3
    rate = config.lr * config.tau
    if name == "sgd":
        expected = by_hand(config.momentum, 0.1, rate, gradients, start["heads.B.weight"])
    else:
        expected = by_torch(torch.optim.AdamW, gradients, start["heads.B.weight"], lr=rate, weight_decay=0.1)
    assert torch.allclose(net.heads["B"].weight, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "timm:vit_tiny_patch16_224"])
def test_gradients_lie_in_memory_as_their_parameters_do(name: str) -> None:
    """The fused kernels read both from end to end: of another layout they would move the wrong weights on the CPU."""
    net = shared_network(name, "random").to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 224, 224).to(memory_format=torch.channels_last)
    net.train()(images).sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
        assert torch.zeros_like(parameter).stride() == parameter.stride()


def test_the_average_by_hand() -> None:
    """Weights 0, then 1, then 2, decay 0.5: early on the decay is (1 + n) / (10 + n)."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = Average(net, 0.5)
    first, second = 2 / 11, 3 / 12
    for steps in (1, 2):
        nn.init.constant_(net.weight, steps)
        average.update(steps)
    expected = (1 - first) * second + (1 - second) * 2
    assert average.state["weight"].item() == pytest.approx(expected)
    with average.applied():
        assert net.weight.item() == pytest.approx(expected)
    assert net.weight.item() == 2
    assert average.state["weight"].item() == pytest.approx(expected)


def test_the_decay_is_the_one_requested_in_the_long_run() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = Average(net, 0.5)
    nn.init.ones_(net.weight)
    average.update(1000)
    assert average.state["weight"].item() == pytest.approx(0.5)
