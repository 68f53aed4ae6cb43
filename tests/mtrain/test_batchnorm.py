"""Batch-normalization adaptation: the paper's formulas, and an output that stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mtrain.model.batchnorm.batchnorm_adapt import Moments, adapt
from mtrain.model.network import shared_network


def a_layer() -> nn.BatchNorm2d:
    """sqrt(var_s + eps) = 2."""
    layer = nn.BatchNorm2d(1, eps=1.0).eval()
    with torch.no_grad():
        layer.weight.fill_(2)
        layer.bias.fill_(1)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.fill_(1)
        layer.running_var.fill_(3)
    return layer


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


def unsettled(name: str) -> nn.Module:
    """A network in float64 whose batch normalization has statistics and weights of its own."""
    torch.manual_seed(0)
    network = shared_network(name, "random").double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)  # type: ignore[arg-type]
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)  # type: ignore[arg-type]
    return network


def test_one_layer_by_hand() -> None:
    """1, 5, 5, 9 have mean 5 and variance 8: weight 2 * 3 / 2 = 3, bias 1 + 2 * (5 - 1) / 2 = 5."""
    layer = a_layer().train()
    assert adapt(layer, [column(1, 5), column(5, 9)]) == 1
    layer.eval()
    found = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    assert [tensor.tolist() for tensor in found] == [[3], [5], [5], [8]]  # type: ignore[union-attr]
    assert layer(column(1, 9, -100)).flatten().tolist() == a_layer()(column(1, 9, -100)).flatten().tolist()


def test_the_first_training_step_meets_the_outputs_of_inference() -> None:
    batch = column(1, 5, 5, 9)
    layer, before = a_layer(), a_layer()(batch)
    assert not torch.allclose(a_layer().train()(batch), before, atol=1)
    adapt(layer, [batch])
    assert torch.allclose(layer.train()(batch), before)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "shufflenet_v2_x0_5"])
def test_no_output_of_a_network_changes_and_its_statistics_are_those_of_the_batches(name: str) -> None:
    network = unsettled(name).eval()
    batches = [torch.randn(n, 3, 32, 32, dtype=torch.float64) * 2 + 1 for n in (3, 1, 4)]
    others = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    inputs: dict[nn.Module, list[torch.Tensor]] = {}
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [m.register_forward_pre_hook(lambda m, x: inputs.setdefault(m, []).append(x[0])) for m in layers]
    with torch.inference_mode():
        before = network(others)
        inputs.clear()
        for batch in batches:
            network(batch)
        for hook in hooks:
            hook.remove()
        adapt(network, batches)
        assert torch.allclose(network(others), before, rtol=1e-9, atol=1e-9 * float(before.abs().max()))
        for layer in layers:
            seen = torch.cat(inputs[layer])
            assert torch.allclose(layer.running_mean, seen.mean((0, 2, 3)), rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]
            assert torch.allclose(layer.running_var, seen.var((0, 2, 3), correction=0), rtol=1e-9)  # type: ignore[arg-type]


def test_moments_combine_exactly_over_uneven_batches() -> None:
    """Far from zero, where sums of squares would lose all digits."""
    values = 1e6 + np.random.default_rng(0).normal(size=(9, 2, 3, 3))
    moments = Moments()
    for part in np.split(values, [1, 4]):
        moments.add(torch.from_numpy(part))
    assert moments.count == 81
    np.testing.assert_allclose(moments.mean.numpy(), values.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(moments.variance.numpy(), values.var((0, 2, 3)), rtol=1e-9)


def test_mode_and_hooks_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1, affine=False), nn.Dropout()).train()
    assert adapt(network, [column(1, 2)]) == 1
    assert [module.training for module in (network, *network)] == [True, True, True, True]
    assert not any(module._forward_pre_hooks for module in network)


def test_without_batches_nothing_changes() -> None:
    layer = a_layer()
    adapt(layer, [])
    assert all(
        torch.equal(a, b) for a, b in zip(layer.state_dict().values(), a_layer().state_dict().values(), strict=True)
    )
