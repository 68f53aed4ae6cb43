"""Time and memory that the features of one image take on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mtrain.model.devices import find_device
from mtrain.model.inference import Inference
from mtrain.model.network import SharedNetwork

MIB = 2**20
BATCH = {"cuda": 32, "cpu": 4}  # batch size for timing
LEAST_SECONDS, ENOUGH = 0.5, 10.0  # of passes
LEAST_PASSES, MOST_PASSES = 5, 20


@dataclass(frozen=True)
class Cost:
    """The cost of one image: milliseconds on this device, and on CUDA also MiB of memory in addition to the weights."""

    parameters: int
    features: int
    device: str
    milliseconds: float
    mib_weights: float
    mib_image: float | None


def cost(network: SharedNetwork, size: int, device: str = "auto") -> Cost:
    """Time and memory for features of images of `size` px, computed as for transfers, in the same precision."""
    place = find_device(device)
    network = network.eval().to(place).to(memory_format=torch.channels_last)
    images = torch.zeros((BATCH[place.type], 3, size, size), dtype=torch.uint8, device=place)

    inference = Inference.on(place)

    def run() -> None:
        with inference.running():
            network(network.normalize(images)).sum().item()  # .item() waits for the device

    run()
    before = _reset(place)
    seconds = seconds_of(run)
    tensors = list(network.state_dict().values())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
    peak = (torch.cuda.max_memory_allocated(place) - before) / MIB / len(images) if place.type == "cuda" else None
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        features=network.num_features,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        milliseconds=1000 * seconds / len(images),
        mib_weights=weights,
        mib_image=peak,
    )


def _reset(place: torch.device) -> int:
    if place.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(place)
    return torch.cuda.memory_allocated(place)


def seconds_of(run: Callable[[], None]) -> float:
    """The time of the fastest of several passes: other programs make some of them slower, and none faster.

    More passes follow for half a second, and at least `LEAST_PASSES` unless they take longer than `ENOUGH` seconds.
    """
    taken: list[float] = []
    while not taken or (
        len(taken) < MOST_PASSES and sum(taken) < (ENOUGH if len(taken) < LEAST_PASSES else LEAST_SECONDS)
    ):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)
