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
    route(net, [2, 0, 3])
    assert torch.allclose(net(images), expected, atol=1e-6)


def test_running_statistics_are_kept_for_each_task_and_used_in_inference() -> None:
    net, images = network(), torch.randn(4, 3, 6, 6)
    split(net, 2)
    route(net, [4, 0])
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
    route(net, [0, 4])
    assert not torch.allclose(net(images), as_first)


def test_merging_gives_the_moments_of_the_mixture() -> None:
    net = network()
    split(net, 2)
    layer = net[1]
    assert isinstance(layer, TaskBatchNorm)
    layer.get_buffer("mean_0").fill_(1)
    layer.get_buffer("mean_1").fill_(3)
    layer.get_buffer("variance_0").fill_(2)
    layer.get_buffer("variance_1").fill_(4)
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
        route(net, [1, 1])
        assert torch.allclose(net(images), expected, atol=1e-5)
        merge(net)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.allclose(after[name].float(), value.float(), atol=1e-6) for name, value in before.items())


def test_a_single_value_is_normalized_by_what_is_known() -> None:
    net = nn.Sequential(nn.BatchNorm1d(4))
    split(net, 2)
    route(net, [1, 3])
    features = torch.randn(4, 4, requires_grad=True)
    out = net(features)
    assert torch.allclose(out[:1], features[:1] / (1 + 1e-5) ** 0.5)
    out.sum().backward()
