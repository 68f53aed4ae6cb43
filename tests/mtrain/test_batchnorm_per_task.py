import copy

import pytest
import timm
import torch
from torch import nn

from mtrain.model.batchnorm.batchnorm_per_task import TaskBatchNorm, merge, route, split


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_each_task_is_normalized_by_its_own_images() -> None:
    net, images = network(), torch.randn(5, 3, 6, 6)
    images[2:] += 10
    plain = net[1]
    expected = torch.cat([plain(net[0](images[:2])), plain(net[0](images[2:]))]).relu()
    split(net, 3)
    route(net, torch.tensor([0, 0, 2, 2, 2]))
    assert torch.allclose(net(images), expected, atol=1e-6)


def test_running_statistics_are_kept_for_each_task_and_used_in_inference() -> None:
    net, images = network(), torch.randn(4, 3, 6, 6)
    split(net, 2)
    route(net, torch.tensor([0, 0, 0, 0]))
    for _ in range(200):
        net(images)
    layer = net[1]
    assert isinstance(layer, TaskBatchNorm)
    means, variances = layer.statistics()
    values = net[0](images).transpose(0, 1).flatten(1)
    assert torch.allclose(means[0], values.mean(1), atol=1e-4)
    assert torch.equal(means[1], torch.zeros(4))
    assert torch.equal(variances[1], torch.ones(4))
    net.eval()
    as_first = net(images)
    route(net, torch.tensor([1, 1, 1, 1]))
    assert not torch.allclose(net(images), as_first)


def test_merging_gives_the_moments_of_the_mixture() -> None:
    net = network()
    split(net, 2)
    layer = net[1]
    assert isinstance(layer, TaskBatchNorm)
    for values, of_tasks in zip(layer.statistics(), ((1, 3), (2, 4)), strict=True):
        values.copy_(torch.tensor(of_tasks)[:, None])
    merge(net)
    assert type(net[1]) is nn.BatchNorm2d
    assert torch.allclose(net[1].running_mean, torch.full((4,), 2.0))
    assert torch.allclose(net[1].running_var, torch.full((4,), 4.0))  # (2 + 4) / 2 within, 1 between


def test_splitting_and_merging_an_untouched_network_changes_nothing() -> None:
    """Also where the layer is more than a normalization, as timm's with its activation."""
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    images, before = torch.randn(2, 3, 64, 64), {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        expected = net(images)
        split(net, 2)
        route(net, torch.tensor([0, 1]))
        assert torch.allclose(net(images), expected, atol=1e-5)
        merge(net)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.allclose(after[name].float(), value.float(), atol=1e-6) for name, value in before.items())


def test_a_single_value_is_normalized_by_what_is_known() -> None:
    net = nn.Sequential(nn.BatchNorm1d(4))
    split(net, 2)
    route(net, torch.tensor([0, 1, 1, 1]))
    features = torch.randn(4, 4, requires_grad=True)
    out = net(features)
    assert torch.allclose(out[:1], features[:1] / (1 + 1e-5) ** 0.5)
    out.sum().backward()


@pytest.mark.parametrize("shape", [(9, 4), (9, 4, 3), (9, 4, 5, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_statistics_are_those_of_a_layer_for_each_task(
    shape: tuple[int, ...], training: bool
) -> None:
    """Also with tasks without images, in any order, and where the values lie far from 0."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    torch.manual_seed(1)
    plain = [kind(4, momentum=0.3).double().train(training) for _ in range(4)]
    for layer in plain:
        layer.load_state_dict(plain[0].state_dict())
    nn.init.normal_(plain[0].weight)
    nn.init.normal_(plain[0].bias)
    net = nn.Sequential(copy.deepcopy(plain[0])).train(training)
    split(net, 4)
    tasks = torch.tensor([2, 0, 2, 2, 0, 3, 0, 3, 3])
    images = (20 + 3 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    expected = torch.zeros_like(images)
    for number, layer in enumerate(plain):
        if len(own := images[tasks == number]):
            layer.weight, layer.bias = plain[0].weight, plain[0].bias
            expected = expected.index_put((torch.nonzero(tasks == number)[:, 0],), layer(own))
    route(net, tasks)
    found, slopes = net(images), torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(found, expected)
    ours = torch.autograd.grad((found * slopes).sum(), [images, *net.parameters()])
    theirs = torch.autograd.grad((expected * slopes).sum(), [images, plain[0].weight, plain[0].bias])
    assert all(torch.allclose(*pair) for pair in zip(ours, theirs, strict=True))
    for values, name in zip(net[0].statistics(), ("running_mean", "running_var"), strict=True):
        assert torch.allclose(values, torch.stack([layer.get_buffer(name) for layer in plain]))
    assert net[0].layer.num_batches_tracked == training


def test_the_state_names_the_statistics_of_each_task() -> None:
    """As checkpoints of earlier versions do."""
    net, other = network(), network()
    split(net, 2)
    split(other, 2)
    net[1].means.copy_(torch.arange(8.0).view(2, 4))
    state = net.state_dict()
    assert {"1.mean_0", "1.mean_1", "1.variance_0", "1.variance_1"} < state.keys()
    assert torch.equal(state["1.mean_1"], torch.arange(4.0, 8.0))
    other.load_state_dict(state)
    assert torch.equal(other[1].means, net[1].means)
    del state["1.mean_1"]
    with pytest.raises(RuntimeError, match=r"Missing key.*1\.mean_1"):
        other.load_state_dict(state)


def test_a_state_of_other_tasks_or_channels_is_refused() -> None:
    """As torch refuses it for any other layer: statistics that no task has, and ones that would be spread."""
    two, three = network(), network()
    split(two, 2)
    split(three, 3)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"1\.mean_2", "1\.variance_2"'):
        two.load_state_dict(three.state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.variance_0: \(1,\), not \(4,\)"):
        two.load_state_dict(two.state_dict() | {"1.variance_0": torch.ones(1)})
    assert torch.equal(two[1].variances, torch.ones(2, 4))


def test_the_tasks_of_other_images_are_no_route() -> None:
    net = network().eval()
    split(net, 2)
    route(net, torch.tensor([1]))
    with pytest.raises(AssertionError, match="the tasks are those of other images"):
        net(torch.randn(2, 3, 6, 6))


def test_what_a_layer_does_after_its_normalization_is_done_once() -> None:
    net = nn.Sequential(timm.layers.BatchNormAct2d(4)).double().train()
    plain, images = copy.deepcopy(net), torch.randn(6, 4, 3, 3, dtype=torch.float64)
    split(net, 2)
    route(net, torch.zeros(6, dtype=torch.int64))
    assert torch.allclose(net(images), plain(images))
    assert net[0].layer.training
    assert torch.allclose(net[0].statistics()[0][0], plain[0].running_mean)
