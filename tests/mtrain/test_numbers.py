"""The paper's networks: adaptation, loss, head scaling and SGD against the formulas, written out plainly in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.pool import open_pool
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.model.network import MultiHead, shared_network
from mtrain.train.trainer import Training
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import pieces

LR, TAU, MOMENTUM, DECAY, BATCH = 1e-4, 5.0, 0.9, 0.01, 4


def a_training(shards: Path, backbone: str) -> Training:
    config = FitConfig(
        shards=str(shards),
        backbone=backbone,
        iterations=2,
        warmup=0,
        lr=LR,
        tau=TAU,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        batch=BATCH,
        size=64,
        workers=0,
    )
    torch.manual_seed(0)
    pool = open_pool(shards)
    model = MultiHead(shared_network(backbone, "random"), {task.name: task.num_classes for task in pool.tasks})
    ours = Training(config, pool, model.double(), torch.device("cpu"))
    ours.prepare = lambda batch: Training.prepare(ours, batch).double()  # type: ignore[method-assign]
    return ours


def adapted(network: nn.Module, images: list[Tensor]) -> dict[str, Tensor]:
    """Weight, bias and statistics of every layer after adaptation: its inputs gathered whole, then the two formulas."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, name=name: seen[name].append(x[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for batch in images:
            network.eval()(batch)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, layer in layers.items():
        values = torch.cat(seen[name]).numpy()
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
        weight, bias, eps = layer.weight.detach().numpy(), layer.bias.detach().numpy(), layer.eps
        before = np.sqrt(layer.running_var.numpy() + eps)  # type: ignore[union-attr]
        found[f"{name}.weight"] = weight * np.sqrt(variance + eps) / before
        found[f"{name}.bias"] = bias + weight * (mean - layer.running_mean.numpy()) / before  # type: ignore[union-attr]
        found[f"{name}.running_mean"], found[f"{name}.running_var"] = mean, variance
    return {name: torch.from_numpy(values) for name, values in found.items()}


class Plain:
    """Sample by sample: loss = -(1/B) sum of log softmax(z)_y under the head of its task; head gradients x B / B_t;
    g + decay p; v = momentum v + g; p - rate v; nothing at all for a head without samples.
    """

    def __init__(self, model: MultiHead, tasks: list[str]) -> None:
        self.model, self.tasks = copy.deepcopy(model).train(), tasks
        self.velocity: dict[str, Tensor] = {}

    def step(self, images: Tensor, batch: Batch) -> float:
        owners = [task for task, count in zip(self.tasks, batch.counts.tolist(), strict=True) for _ in range(count)]
        features, loss = self.model.shared(images), torch.zeros((), dtype=torch.float64)
        for feature, label, owner in zip(features, batch.labels.tolist(), owners, strict=True):
            head = self.model.heads[owner]
            logits = head.weight @ feature + head.bias
            loss = loss - (logits[label] - logits.exp().sum().log()) / len(owners)
        self.model.zero_grad()
        loss.backward()
        for name, parameter, gradient, task in pieces(self.model):
            rate = LR
            if task is not None:
                share = owners.count(task) / len(owners)
                if not share:
                    continue
                gradient, rate = gradient / share, LR * TAU
            self.velocity[name] = MOMENTUM * self.velocity.get(name, 0) + gradient + DECAY * parameter
            parameter -= rate * self.velocity[name]
        return float(loss.detach())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"), sizes={"train": 16})


@pytest.mark.parametrize("backbone", [pytest.param("resnet50", marks=pytest.mark.stress), "densenet121"])
def test_adaptation_loss_scaling_and_two_steps_are_what_the_formulas_say(shards: Path, backbone: str) -> None:
    ours = a_training(shards, backbone)
    images = [ours.prepare(batch) for batch in ours.drawn(range(2), sampling.Stream.ADAPT)]
    expected = adapted(ours.model.shared, images)
    assert batchnorm_adapt.adapt(ours.model.shared, images) == len(expected) / 4
    state = ours.model.shared.state_dict()
    for name, values in expected.items():
        assert torch.allclose(state[name], values, rtol=1e-9, atol=1e-11), name

    plain = Plain(ours.model, ours.tasks)
    inactive = 0
    for number, batch in enumerate(ours.drawn(range(2))):
        torch.manual_seed(sampling.model_seed(0, number))
        loss = plain.step(ours.prepare(batch), batch)
        assert float(ours.step(batch).sum()) / BATCH == pytest.approx(loss, rel=1e-9)
        inactive += batch.counts.tolist().count(0)
    assert inactive > 0
    for (name, one), other in zip(ours.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9), name
