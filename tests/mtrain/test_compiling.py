"""torch.compile: optional, tried at once, and said aloud where it does not work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtrain.data.rows import DenseTargets
from mtrain.model.backbones import Body
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.train.compilation import Passes, compiled, plain
from tests.mtrain.dense_networks import body, dense_training
from tests.mtrain.dense_pools import write_mixed_pool

IMAGES = torch.randn(4, 3, 8, 8)
# torch reads this attribute of the inputs of what it compiles, and only keeps the warning from being shown
not_shown = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor")


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """torch compiles with this backend; returns the options of each compilation."""
    given, plainly = [], torch.compile

    def compile_with(network: nn.Module, **options: Any) -> Any:
        given.append(options)
        return plainly(network, backend=request.param, **options)

    monkeypatch.setattr(torch, "compile", compile_with)
    torch.compiler.reset()
    return given


def a_network(dense: dict[str, DenseTargets] | None = None) -> MultiHead:
    torch.manual_seed(0)
    layers = body() if dense else nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return MultiHead(SharedNetwork("toy", Body(layers)), {"A": 2}, dense, 8)


def test_where_it_does_not_work_the_networks_themselves_are_used_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_compiler(_network: nn.Module, **_options: Any) -> Callable[..., Tensor]:
        def fails(*_given: Any) -> Tensor:
            raise RuntimeError("\nbackend='inductor' raised:\nInvalidCxxCompiler:\n  no working C++ compiler found")

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    for dense, shares in ((None, ()), ({"A": DenseTargets(seg=("x", "y"))}, (2, 4))):
        network, said = a_network(dense), []
        passes = compiled(network, IMAGES, said.append, shares)
        assert passes.decode is network.dense
        assert torch.equal(passes.features(IMAGES)[0], network.shared(IMAGES))
        assert len(passes.features(IMAGES)[1]) == (1 if dense else 0)
        assert said == ["torch.compile failed, so the network is not compiled: no working C++ compiler found"]


def test_too_little_memory_is_not_taken_for_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(_network: nn.Module) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "compile", lambda _network: too_large)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(a_network(), IMAGES, lambda _text: None)


def tried(network: MultiHead, shares: tuple[int, ...] = ()) -> Passes:
    """The network compiled; trying has changed nothing."""
    before = {name: values.clone() for name, values in network.state_dict().items()}
    network.shared.eval()
    passes = compiled(network, IMAGES, pytest.fail, shares)
    assert (network.training, network.shared.training) == (True, False)
    assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    return passes


@pytest.mark.stress
@pytest.mark.parametrize("backend", ["eager", "inductor"], indirect=True)
def test_compiled_it_gives_the_same_and_trying_changes_nothing(backend: list[dict[str, Any]]) -> None:
    network = a_network()
    passes = tried(network)
    assert backend == [{}]
    features, maps = passes.features(IMAGES)
    assert torch.allclose(features, network.shared(IMAGES), atol=1e-6)
    assert (len(maps), passes.decode) == (0, None)


def the_same_with_maps() -> None:
    network = a_network({"A": DenseTargets(seg=("x", "y"), points=("p",)), "B": DenseTargets(points=("q", "r"))})
    faster, slower = tried(network, (1, 2, 4)), plain(network)
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    others = torch.randn(4, 3, 8, 8)
    for share in (4, 1, 2):
        slots, tasks, found = torch.arange(share), torch.arange(share) % 2, []
        for passes in (faster, slower):
            features, maps = passes.features(others)
            assert passes.decode is not None
            logits = passes.decode([level.index_select(0, slots) for level in maps], tasks)
            (features.square().sum() + logits.square().sum()).backward()
            gradients = [part.grad for part in network.parameters() if part.grad is not None]
            found.append([features, *maps, logits, *gradients])
            network.zero_grad()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations


@not_shown
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_maps_and_the_decoder_are_compiled_for_each_number_of_images(backend: list[dict[str, Any]]) -> None:
    the_same_with_maps()
    assert backend == [{}, {"dynamic": False}]


@not_shown
@pytest.mark.stress
@pytest.mark.parametrize("backend", ["inductor"], indirect=True)
@pytest.mark.usefixtures("backend")
def test_maps_and_the_decoder_compiled_give_the_same() -> None:
    the_same_with_maps()


@not_shown
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
@pytest.mark.usefixtures("backend")
def test_a_compiled_training_on_masks_is_the_training(tmp_path: Path) -> None:
    """With a warm-up, whose iterations run as they are, and cosines, which need the graph that a compiled one frees."""
    shards, found, calls = write_mixed_pool(tmp_path), [], []

    def counted(one: Callable[..., Any] | None) -> Callable[..., Any]:
        assert one is not None
        return lambda *given: (calls.append(one), one(*given))[1]

    for compiling in (False, True):
        ours = dense_training(shards, precision=torch.float32, compile=compiling)
        if compiling:
            ours.compile(pytest.fail)
            ours.passes = Passes(*map(counted, ours.passes))
        losses = [ours.step(*parts) for parts in ours.iterations(range(6))]
        (parts,) = ours.iterations(range(6, 7))
        assert len(calls) == (2 * 4 if compiling else 0)
        cosines = torch.tensor([*ours.cosines(*parts).values()])
        found.append([torch.stack(losses), cosines, *ours.model.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
