"""What a training asks of a GPU, seen without one: on the meta device, which has no values to wait for, and with
streams that only remember what was asked of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mtrain import cli
from mtrain.data import sampling
from mtrain.data.batches import loader, prefetch
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.sending import without_waiting
from mtrain.data.pool import open_pool
from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.model.batchnorm.batchnorm_sync import synchronize
from mtrain.model.network import MultiHead, shared_network
from mtrain.train import trainer
from mtrain.train.head_training import HeadTraining
from mtrain.train.reporting.meter import Meter
from mtrain.train.trainer import Training
from tests.mtrain.dense_networks import dense_training
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import CPU, SMALL, a_training, config

DEVICE = torch.device("meta")
EVERYTHING: dict[str, Any] = {
    "rotations": True,
    "stain_jitter": 0.1,
    "colour_jitter": 0.1,
    "label_smoothing": 0.1,
    "ema": 0.9,
    "schedule": "cosine",
    "accumulate": 2,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of images of other sizes, which are resized on the device."""
    folder = write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta"), sizes={"train": 8, "val": 2})
    return write_pool(folder, ("Gamma",), sizes={"train": 8, "val": 2}, shape=(32, 32))


def on_meta(shards: Path, kind: type[Training] = Training, **changed: Any) -> Training:
    settings, pool = config(shards, **changed), open_pool(shards)
    model = MultiHead(shared_network(SMALL, "random"), {task.name: task.num_classes for task in pool.tasks})
    if settings.sync_batchnorm:
        synchronize(model.shared, CPU)
    if settings.batchnorm == "per-task":
        batchnorm_per_task.split(model.shared, len(pool.tasks))
    return kind(settings, pool, model.to(DEVICE).to(memory_format=torch.channels_last), DEVICE)


@pytest.fixture(autouse=True)
def memory_can_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a device for which it is."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)


def locked(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory that a device can copy from without the processor, as it is said."""
    assert tensor.device == CPU
    found = tensor.clone()
    found.is_locked = True  # type: ignore[attr-defined]
    return found


class Waits(TorchFunctionMode):
    """Refuses what waits on CUDA devices though the meta device allows it: a copy from the CPU that is not told not to
    wait, as `torch.tensor(..., device=...)` is one, or whose memory is not page-locked, and what looks whether a matrix
    was singular.

    batches: those that the loader gives, whose memory is page-locked on a machine with a GPU.
    """

    LOOKING = (torch.linalg.inv, torch.linalg.solve, torch.linalg.cholesky, torch.inverse)

    def __init__(self, *batches: Batch) -> None:
        self.locked = {tensor.untyped_storage().data_ptr() for batch in batches for tensor in batch}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if isinstance(found, torch.Tensor) and found.device == DEVICE:
            copies = func in (torch.Tensor.to, torch.Tensor.copy_)
            source = args[-1] if func is torch.Tensor.copy_ else args[0] if args else None
            if copies and isinstance(source, torch.Tensor) and source.device == CPU:
                assert kwargs.get("non_blocking"), "a copy that waits"
                inside = source.untyped_storage().data_ptr() in self.locked
                assert inside or getattr(source, "is_locked", False), "a copy from memory that is not page-locked"
            made = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
            assert not made, "made on the CPU and copied with a wait"
            assert func not in self.LOOKING, "whether it is singular is waited for"
        return found


@pytest.mark.parametrize(
    "choices",
    [
        {},
        EVERYTHING,
        {"batchnorm": "per-task"},
        {"batchnorm": "per-task", "sync_batchnorm": True},
        {"batchnorm": "frozen"},
    ],
    ids=["defaults", "everything", "per-task", "per-task-sync", "frozen"],
)
def test_no_iteration_waits_for_the_device(
    shards: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    """Neither in the warm-up nor after it: no `.item()`, no copy to the CPU, no shape that depends on values, and no
    operation on tensors of two devices: on the meta device these are errors. Nor anything that `Waits` knows.
    """
    monkeypatch.setattr(trainer.torch, "autocast", lambda *_, **__: nullcontext())  # there is none for it
    monkeypatch.setattr(batchnorm_per_task, "sum_over_ranks", lambda values: values)
    choices = {"warmup": 1, "batch": 8, "size": 32} | choices
    drawn, ours = a_training(shards, **choices), on_meta(shards, **choices)
    meter = Meter(ours.tasks)
    for parts in drawn.iterations(range(3)):
        with Waits(*parts):
            meter.add(ours.step(*parts), ours.counts)
    assert ours.iteration == 3
    assert (ours.average is not None) == bool(ours.config.ema)
    with pytest.raises((RuntimeError, NotImplementedError)):  # and this is what waits: the losses, when they are told
        meter.take(3)


def test_no_iteration_on_features_that_were_computed_before_waits_for_the_device(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from files into ordinary memory, not by the loader."""
    monkeypatch.setattr(trainer.torch, "autocast", lambda *_, **__: nullcontext())
    ours = on_meta(shards, HeadTraining, tune="heads", features="cached", batch=8)
    assert isinstance(ours, HeadTraining)
    width = ours.model.shared.num_features
    ours.train = tuple(torch.zeros(len(task.rows["train"]), width) for task in ours.pool.tasks)
    for parts in ours.iterations(range(3)):
        with Waits():
            ours.step(*parts)
    assert ours.iteration == 3


def dense_on_meta(shards: Path, **changed: Any) -> tuple[Training, Training]:
    """A training with masks and points that draws batches, and one that takes them on the meta device."""
    drawn = dense_training(shards, **changed)
    taking = dense_training(shards, **changed)
    model = taking.model.float().to(DEVICE).to(memory_format=torch.channels_last)
    return drawn, Training(taking.config, taking.pool, model, DEVICE)


@pytest.mark.parametrize(
    "choices", [{}, {"optimizer": "adamw", "rotations": True, "accumulate": 2}], ids=["sgd", "adamw"]
)
def test_no_iteration_with_masks_and_points_waits_for_the_device_nor_launches_more_for_some_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    monkeypatch.setattr(trainer.torch, "autocast", lambda *_, **__: nullcontext())
    drawn, ours = dense_on_meta(write_mixed_pool(tmp_path), warmup=1, **choices)
    launches, dense = [], []
    for parts in drawn.iterations(range(6)):
        # batches travel to the device ahead of time, as mtrain.data.batches.prefetch has it
        sent = [part.to(DEVICE) for part in parts]
        with Operators() as counted, Waits(*parts):
            ours.step(*sent)
        launches.append(counted.count)
        dense.append(sum(len(part.masks) for part in parts))
    assert len(set(dense)) > 1
    assert len(set(launches[2:])) == 1  # the second ends the warm-up


class Operators(TorchDispatchMode):
    """Counts the ATen operators that are called, each of which is a launch or more on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(tasks: int, sides: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch, **choices: Any) -> list[int]:
    """Of a step of the warm-up and of one after it, on the meta device, where the path is that of a GPU."""
    monkeypatch.setattr(trainer.torch, "autocast", lambda *_, **__: nullcontext())  # there is none for it
    for number, side in enumerate(sides):
        write_pool(folder, (f"Task{number}",), sizes={"train": 4}, shape=(side, side))
    for number in range(len(sides), tasks):
        write_pool(folder, (f"Task{number}",), sizes={"train": 4})
    choices = {"leave_out": (), "warmup": 1, "batch": 8, "size": 32} | choices
    drawn, ours, found = a_training(folder, **choices), on_meta(folder, **choices), []
    for parts in drawn.iterations(range(2)):
        ours.prepare(parts[0])  # constants are computed once
        with Operators() as counted:
            ours.step(*parts)
        found.append(counted.count)
    return found


@pytest.mark.parametrize(
    "choices",
    [{}, {"optimizer": "adamw"}, EVERYTHING, {"batchnorm": "per-task"}],
    ids=["defaults", "adamw", "everything", "per-task"],
)
def test_launches_depend_neither_on_the_number_of_tasks_nor_on_the_sides_of_the_images(
    choices: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = operators(2, [32], tmp_path / "few", monkeypatch, **choices)
    many = operators(9, [20, 32, 33, 40, 50, 64], tmp_path / "many", monkeypatch, **choices)
    assert few == many


def test_what_lies_on_the_device_is_not_sent_again() -> None:
    """Whether its number is stated or not: torch holds "cuda" and "cuda:0" for different devices."""
    assert torch.device("meta") != torch.device("meta", 0)
    for there in (torch.zeros(2, device="meta"), torch.zeros(2, device="meta:0")):
        assert without_waiting(there, torch.device("meta")) is there
        assert without_waiting(there, torch.device("meta", 0)) is there
    here = torch.zeros(2)
    assert without_waiting(here, CPU) is here
    assert without_waiting(here, DEVICE).device == DEVICE


def test_images_reach_the_network_channels_last(shards: Path) -> None:
    (batch,) = a_training(shards, batch=8, size=32).drawn(range(1))
    prepared = on_meta(shards, batch=8, size=32).prepare(batch)
    assert prepared.device == DEVICE
    assert prepared.is_contiguous(memory_format=torch.channels_last)


class Event(NamedTuple):
    name: str
    done: list[str]

    def __str__(self) -> str:
        return self.name

    def synchronize(self) -> None:
        self.done.append(f"{self.name} waited for")


class Streams:
    """The current stream and one beside it, and a list of what is asked of them and of tensors, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.current = "main"
        self.main = Mock(wait_event=lambda event: self.done.append(f"main waits for {event}"))
        side = Mock(record_event=self._event)
        entered = MagicMock()
        entered.__enter__.side_effect = lambda: setattr(self, "current", "side")
        entered.__exit__.side_effect = lambda *_: setattr(self, "current", "main")
        monkeypatch.setattr(prefetch.torch.cuda, "Stream", lambda _device: side)
        monkeypatch.setattr(prefetch.torch.cuda, "stream", lambda _stream: entered)
        monkeypatch.setattr(prefetch.torch.cuda, "current_stream", lambda _device: self.main)

    def _event(self) -> Event:
        self.done.append("event")
        return Event(f"event {self.done.count('event')}", self.done)

    def batch(self, number: int) -> Batch:
        """A batch whose tensors, when sent to a device, are said to be there."""
        return Batch(*(self._tensor(f"{field} {number}") for field in Batch._fields))

    def _tensor(self, name: str) -> Any:
        def to(device: torch.device, non_blocking: bool) -> Any:
            assert non_blocking
            self.done.append(f"{name} sent on {self.current}")
            return SimpleNamespace(device=device, name=name, record_stream=self._recorded(name))

        return SimpleNamespace(device=CPU, name=name, to=to, record_stream=self._refused)

    def _refused(self, stream: object) -> None:
        raise NotImplementedError("torch has no record_stream of tensors on the CPU")

    def _recorded(self, name: str) -> Any:
        def record(stream: object) -> None:
            assert stream is self.main
            self.done.append(f"{name} kept for main")

        return record


def test_batches_are_sent_ahead_on_a_stream_of_their_own_and_kept_until_the_network_has_used_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = Streams(monkeypatch)
    found = prefetch.on_device((streams.batch(number) for number in range(3)), torch.device("cuda", 0))
    for number in range(3):
        batch = next(found)
        there = [tensor.name for tensor in batch if tensor.device.type == "cuda"]
        assert {name.split()[0] for name in there} >= {"pixels", "labels", "flips"}
        done = streams.done
        assert all(f"{name} sent on side" in done and f"{name} kept for main" in done for name in there)
        waits = done.index(f"main waits for event {number + 1}")
        assert all(done.index(f"{name} sent on side") < waits for name in there)
        if number < 2:
            assert done.index(f"pixels {number + 1} sent on side") < waits  # the next one is on its way
    assert next(found, None) is None


def test_memory_of_a_batch_is_reused_after_the_device_has_copied_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before batch n is requested, the copy of batch n - ON_THEIR_WAY is complete."""
    streams = Streams(monkeypatch)

    def batches() -> Iterator[Batch]:
        for number in range(6):
            copied = [line for line in streams.done if line.endswith("waited for")]
            assert len(copied) == max(number - prefetch.ON_THEIR_WAY + 1, 0)
            assert copied == [f"event {one + 1} waited for" for one in range(len(copied))]
            yield streams.batch(number)

    assert len(list(prefetch.on_device(batches(), torch.device("cuda", 0)))) == 6


class Runtime:
    """CUDA's runtime, which locks this many pieces of memory."""

    def __init__(self, room: int) -> None:
        self.room, self.locked = room, dict[int, int]()

    def cudaHostRegister(self, address: int, size: int, _flags: int) -> int:  # noqa: N802
        if len(self.locked) == self.room:
            return 2
        self.locked[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        del self.locked[address]
        return 0


@pytest.mark.parametrize("room", [100, 1])
def test_batches_for_a_device_lie_where_the_workers_wrote_them_if_that_memory_can_be_locked(
    shards: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    runtime, empty_like = Runtime(room), torch.empty_like
    monkeypatch.setattr(prefetch.torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(prefetch.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "empty_like", lambda tensor, pin_memory=False: empty_like(tensor))
    drawn = a_training(shards, batch=8, size=32)
    dataset = drawn._batches(range(8), sampling.Stream.TRAIN)
    plain = list(loader.batches(dataset, range(9), workers=0))
    found = []
    for batch in loader.batches(dataset, range(9), workers=2, pin=True):
        inside = [address <= batch.pixels.data_ptr() < address + size for address, size in runtime.locked.items()]
        assert any(inside) == (room == 100)
        found.append(Batch(*(tensor.clone() for tensor in batch)))
        kept = batch
    assert all(
        torch.equal(*pair) for one, other in zip(found, plain, strict=True) for pair in zip(one, other, strict=True)
    )
    assert torch.equal(kept.labels, plain[-1].labels)
    assert not runtime.locked


def test_products_of_float32_are_not_rounded_in_nvidias_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch reads the variable once, when it first needs it, and has no other switch against it."""
    monkeypatch.setenv(cli.TF32, "1")
    monkeypatch.setattr("sys.argv", ["mtrain", "--version"])
    cli.main()
    assert cli.TF32 not in os.environ
