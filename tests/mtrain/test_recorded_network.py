"""Frozen networks that are recorded, with a double of a CUDA graph on the processor."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from mtrain.model import recorded_network
from mtrain.model.inference import Inference, InParts
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.model.recorded_network import RecordedNetwork, repeated
from tests.mtrain.recordings import Double, FirstFails, OfTheProcessor, Unsupported

CPU, META = torch.device("cpu"), torch.device("meta")
HOW = {"float32": Inference(CPU), "bfloat16": Inference(CPU, torch.bfloat16, 8, 3)}
SIZES = (4, 4, 2, 4, 4, 4, 3)  # images of each batch


@pytest.fixture(scope="module")
def network() -> SharedNetwork:
    torch.manual_seed(0)
    return shared_network("resnet18", "random").eval()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_network, "WORTH", 2)


def batches() -> list[Tensor]:
    draw = np.random.default_rng(0)
    return [torch.from_numpy(draw.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)) for size in SIZES]


def results(network: SharedNetwork, how: Inference, recording: Double | None) -> tuple[list[Tensor], list[int]]:
    """The features of all batches, and the sizes of those that the network itself was run on."""
    sizes: list[int] = []

    def features(images: Tensor) -> Tensor:
        sizes.append(len(images))
        found: Tensor = network(network.normalize(images))
        return found

    run = InParts(features if recording is None else RecordedNetwork(features, how, recording), how)
    return [run(images) for images in batches()], sizes


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_a_recording_gives_the_features_of_the_network_to_the_bit(network: SharedNetwork, how: Inference) -> None:
    """All results are kept until the end: none is written over by the next."""
    expected, _ = results(network, how, None)
    found, sizes = results(network, how, Double())
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert sizes == [4, 4, 2, 4, 4, 3]  # the third of 4 is run and recorded; two more are replayed


class Nothing(Double):
    """Replays nothing of what it recorded, and leaves something else."""

    def replay(self, form: int) -> None:
        self.recorded[form].calls[-1][-1].zero_()


@pytest.mark.parametrize("recording", [Nothing, FirstFails, Unsupported])
def test_a_network_that_cannot_be_recorded_runs_as_it_is(network: SharedNetwork, recording: type[Double]) -> None:
    expected, _ = results(network, HOW["bfloat16"], None)
    double = recording()
    found, sizes = results(network, HOW["bfloat16"], double)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert sizes == [4, 4, 2, 4, 4, 4, 4, 3]  # with the attempt
    assert not double.recorded


def test_a_batch_that_does_not_fit_the_memory_is_not_recorded(network: SharedNetwork) -> None:
    class Full(Double):
        def record(self, form: int) -> nullcontext[None]:  # type: ignore[override]
            raise torch.OutOfMemoryError("CUDA out of memory")

        def release(self, form: int) -> None:
            """Nothing was recorded."""

    expected, _ = results(network, HOW["float32"], None)
    found, _ = results(network, HOW["float32"], Full())
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


NETWORKS = ["resnet18", "mtdp_densenet121", "efficientnet_lite0", "timm:vit_tiny_patch16_224", "dinov3-s16"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_recorded_network_touches_no_memory_of_the_processor(name: str) -> None:
    """The device "meta" is in the place of CUDA. A graph would repeat a copy from memory that is gone."""
    if name.startswith(("timm:", "dino")):
        pytest.importorskip("timm", reason="timm is an extra")
    network = shared_network(name, "random").eval().to(META)
    images = torch.zeros((2, 3, 64, 64), dtype=torch.uint8, device=META)
    with torch.inference_mode():
        network(network.normalize(images))  # constants are sent in the first pass
        with OfTheProcessor() as found:
            network(network.normalize(images))
    assert found.calls == []


def test_networks_are_recorded_on_cuda_alone(network: SharedNetwork) -> None:
    assert repeated(network, HOW["bfloat16"]) is network
