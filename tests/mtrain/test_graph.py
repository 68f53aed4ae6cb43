"""Recorded iterations, with a double of a CUDA graph on the processor: it repeats operators on the same addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from mtrain.train.graph import UNRECORDED
from mtrain.train.trainer import Training
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import a_training

WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
ITERATIONS = UNRECORDED + 4
CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "adamw": {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.01},
    "augmented": {
        "rotations": True,
        "stain_jitter": 0.1,
        "colour_jitter": 0.1,
        "label_smoothing": 0.1,
        "ema": 0.9,
        "schedule": "cosine",
    },
    "frozen": {"batchnorm": "frozen"},
    "heads": {"tune": "heads"},
}


class Recorded(TorchDispatchMode):
    """Operators with the tensors that they were called with. As on a device, nothing may be read from them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, "an operator that waits for the device"
        before = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}))  # shapes may change in place
        found = func(*args, **(kwargs or {}))
        if not func.is_view and torch.Tag.inplace_view not in func.tags:  # views launch nothing
            self.calls.append((func, *before, tree_map_only(torch.Tensor, torch.Tensor.detach, found)))
        return found


class Double:
    """Records and replays operators, as `CudaGraph` does kernels, but runs them while it records."""

    def __init__(self) -> None:
        self.recorded, self.inside = Recorded(), False

    @contextmanager
    def running(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    @contextmanager
    def record(self) -> Iterator[None]:
        assert self.inside, "a stream that the iterations before did not run on"
        self.recorded = Recorded()
        with self.recorded:
            yield

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, kept in self.recorded.calls:
            found = func(*args, **kwargs)
            for old, new in zip(_tensors(kept), _tensors(found), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def release(self) -> None:
        self.recorded.calls.clear()

    def trim(self) -> None:
        """There is no memory of its own."""


class Wrong(Double):
    """Replays something else."""

    def replay(self) -> None:
        super().replay()
        super().replay()


class FirstFails(Double):
    """Fails at the first recording, as a device does that must load something then."""

    failed = False

    @contextmanager
    def record(self) -> Iterator[None]:
        with super().record():
            yield
        if not self.failed:
            self.failed = True
            raise RuntimeError("operation failed due to a previous error during capture")


class Unsupported(Double):
    @contextmanager
    def record(self) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def _tensors(found: Any) -> list[torch.Tensor]:
    return [one for one in (found if isinstance(found, tuple | list) else [found]) if isinstance(one, torch.Tensor)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More tasks than a batch has images, whose sides differ: heads are empty, batches differ in bytes."""
    folder = tmp_path_factory.mktemp("pool")
    for number, side in enumerate([16, 20, 24, 32, 40]):
        write_pool(folder, (f"Task{number}",), sizes={"train": 6, "val": 2}, shape=(side, side))
    return folder


@pytest.fixture(scope="module")
def unresized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the network's size: the recorded products with weights round those of other sizes otherwise."""
    names = [f"Task{number}" for number in range(5)]
    return write_pool(tmp_path_factory.mktemp("pool"), names, sizes={"train": 6, "val": 2}, shape=(16, 16))


def trained(shards: Path, recording: Any, numbers: range, state: Any = None, **choices: Any) -> tuple[Training, Any]:
    """A training that has run these iterations, and their losses."""
    settings = {"leave_out": (), "warmup": 0, "batch": 4, "size": 16, "iterations": 2 * ITERATIONS} | choices
    training = a_training(shards, **settings)
    if state is not None:
        training.iteration = numbers.start
        training.restore(state)
    training.recording = recording
    losses = [training.step(*parts) for parts in training.iterations(numbers)]
    return training, torch.stack(losses)


def whole_state(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.state().items()}


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_recorded_iterations_have_the_bits_of_the_same_iterations_without_a_recording(
    shards: Path, choices: dict[str, Any]
) -> None:
    recorded, losses = trained(shards, Double, range(ITERATIONS), **choices)
    assert recorded.recorded is not None
    assert recorded.recorded.losses is not None
    plain, expected = trained(shards, Unsupported, range(ITERATIONS), **choices)
    assert torch.equal(losses, expected)
    assert agree(whole_state(recorded), whole_state(plain))


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_recorded_iterations_are_those_of_a_training_without_graphs_but_for_rounding(
    unresized: Path, choices: dict[str, Any]
) -> None:
    """Of learning rates, which are tensors in single precision."""
    recorded, losses = trained(unresized, Double, range(ITERATIONS), lr=1e-6, **choices)
    plain, expected = trained(unresized, None, range(ITERATIONS), lr=1e-6, **choices)
    assert torch.equal(losses[0], expected[0])
    assert torch.allclose(losses, expected, rtol=0.01)
    assert recorded.counts == plain.counts


def test_the_warm_up_and_the_training_are_recorded_one_after_the_other(shards: Path) -> None:
    training, losses = trained(shards, Double, range(2 * ITERATIONS), warmup=ITERATIONS)
    assert training.recorded is not None
    assert training.recorded.losses is not None
    _, expected = trained(shards, Unsupported, range(2 * ITERATIONS), warmup=ITERATIONS)
    assert torch.equal(losses, expected)


def test_a_resumed_training_ends_with_the_bits_of_an_undisturbed_one(shards: Path) -> None:
    calm, _ = trained(shards, Double, range(2 * ITERATIONS))
    first, _ = trained(shards, Double, range(ITERATIONS))
    resumed, _ = trained(shards, Double, range(ITERATIONS, 2 * ITERATIONS), whole_state(first))
    assert agree(whole_state(resumed), whole_state(calm))


@pytest.mark.parametrize(
    ("recording", "reason"),
    [(Unsupported, "operation not permitted when stream is capturing"), (Wrong, "its replay gives other bits")],
)
def test_a_recording_that_is_not_the_iteration_is_said_and_not_used(
    shards: Path, recording: type[Double], reason: str
) -> None:
    said: list[str] = []
    training = a_training(shards, leave_out=(), warmup=0, batch=4, size=16)
    training.recording, training.note = recording, said.append
    for parts in training.iterations(range(ITERATIONS)):
        training.step(*parts)
    assert len(said) == 1
    assert reason in said[0]
    assert training.recorded is not None
    assert training.recorded.losses is None
    assert isinstance(training.recorded.recording, Double)
    assert not training.recorded.recording.recorded.calls  # its memory is free


def test_a_recording_that_fails_once_is_tried_again(shards: Path) -> None:
    again, losses = trained(shards, FirstFails, range(ITERATIONS))
    assert again.recorded is not None
    assert again.recorded.losses is not None
    once, expected = trained(shards, Double, range(ITERATIONS))
    assert torch.equal(losses, expected)
    assert agree(whole_state(again), whole_state(once))
