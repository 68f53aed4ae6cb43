"""The loss of a mixed batch, and what scaling makes of the heads' gradients; everything in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtrain.config import FitConfig
from mtrain.model.backbones import Body
from mtrain.model.loss import head_scales, scale_head_gradients, task_losses
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.model.task_heads import TaskHeads
from mtrain.train import checkpoint
from mtrain.train.optimizer import PhaseOptimizer

TASKS = ["A", "B", "C"]
COUNTS = [1, 0, 3]


def a_network() -> MultiHead:
    torch.manual_seed(0)
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
    return MultiHead(SharedNetwork("toy", Body(body)), {"A": 2, "B": 3, "C": 4}).double()


def a_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 4, 4, dtype=torch.float64, generator=generator), torch.tensor([1, 0, 3, 2])


def tasks_of(counts: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor(counts))


def backward(network: MultiHead) -> None:
    images, labels = a_batch()
    losses = task_losses(network(images), labels, tasks_of(COUNTS), network.heads)
    (losses.sum() / sum(COUNTS)).backward()


def test_losses_are_sums_over_the_samples_of_each_task() -> None:
    """Logits (0, ln 3): probabilities 1/4 and 3/4."""
    heads = TaskHeads(1, {"A": 2, "B": 3, "C": 4})
    logits = torch.full((3, 9), 100.0)  # of other tasks, which must not count
    logits[:2, :2], logits[2, 5:] = torch.tensor([0.0, math.log(3)]), 0
    found = task_losses(logits, torch.tensor([0, 1, 3]), tasks_of([2, 0, 1]), heads)
    assert found.tolist() == pytest.approx([math.log(4) + math.log(4 / 3), 0, math.log(4)], rel=1e-6)


def test_losses_of_half_precision_are_taken_in_single() -> None:
    logits, heads = torch.zeros(1, 2, dtype=torch.bfloat16), TaskHeads(1, {"A": 2})
    assert task_losses(logits, torch.tensor([0]), torch.tensor([0]), heads).dtype == torch.float32


def test_scaled_gradients_of_a_head_are_those_of_the_mean_loss_of_its_task() -> None:
    """By softmax: d mean / d logit = (p - 1[label]) / B_t."""
    network = a_network()
    backward(network)
    scale_head_gradients(network.heads, head_scales(COUNTS))
    images, labels = a_batch()

    def gradients(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        assert parameter.grad is not None
        return network.heads.rows_of(parameter.grad)

    with torch.no_grad():
        features = network.shared(images)
        for task, part in (("A", slice(0, 1)), ("C", slice(1, 4))):
            head, x, y = network.heads[task], features[part], labels[part]
            error = (head(x).softmax(1) - F.one_hot(y, len(head.bias))) / len(y)
            assert torch.allclose(gradients(network.heads.weight)[task], error.T @ x, rtol=1e-12, atol=1e-14)
            assert torch.allclose(gradients(network.heads.bias)[task], error.sum(0), rtol=1e-12, atol=1e-14)
    assert not gradients(network.heads.weight)["B"].any()


def test_gradients_of_the_shared_network_are_those_of_the_mean_over_the_whole_batch() -> None:
    network, plain = a_network(), a_network()
    backward(network)
    scale_head_gradients(network.heads, head_scales(COUNTS))
    images, labels = a_batch()
    logits = [plain.heads[task](f[None]) for task, f in zip("ACCC", plain.shared(images), strict=True)]
    each = [F.cross_entropy(one, label[None]) for one, label in zip(logits, labels, strict=True)]
    (sum(each) / 4).backward()  # type: ignore[union-attr]
    for one, other in zip(network.shared.parameters(), plain.shared.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_inactive_head_moves_neither_by_momentum_nor_by_weight_decay(name: str) -> None:
    """Head B is active once and has momentum; then it is not, while gradients from before are still there."""
    network, config = a_network(), FitConfig(iterations=9, warmup=0, lr=0.1, tau=1, weight_decay=0.1, optimizer=name)
    optimizer = PhaseOptimizer(config, network, 0)
    images, labels = a_batch()
    for counts in ([1, 2, 1], COUNTS):
        before = {key: tensor.clone() for key, tensor in checkpoint.training_state(network, optimizer).items()}
        losses = task_losses(network(images), labels.clamp(max=1), tasks_of(counts), network.heads)
        (losses.sum() / 4).backward()
        optimizer.step(head_scales(counts))
    for key, tensor in checkpoint.training_state(network, optimizer).items():
        assert torch.equal(tensor, before[key]) == (".B." in key), key
