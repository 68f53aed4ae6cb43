"""How frozen networks are run: the same rows in the same order whatever the batches, and results that come back late.

Without a GPU: in bfloat16 on the CPU, and with copies that are made only when they are waited for.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrain.data.batches.image_batches import OrderedBatches, ordered_batches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.pool import open_pool
from mtrain.data.task import Task
from mtrain.model import frozen, inference
from mtrain.model.inference import Inference, outputs, returned, sent_back
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.transfers import features as cached
from mtrain.transfers.features import features
from tests.mtrain.pools import write_task
from tests.mtrain.test_device import DEVICE, Waits, locked
from tests.mtrain.test_fit import Notes

CPU = torch.device("cpu")
SIZE, IMAGES = 32, 23
HALF = Inference(CPU, torch.bfloat16, 8, 3)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("shards")
    write_task(folder / "Alpha", sizes={"train": IMAGES, "val": 5}, shape=(40, 36))
    (task,) = open_pool(folder).tasks
    return task


@pytest.fixture(scope="module")
def network() -> SharedNetwork:
    torch.manual_seed(0)
    return shared_network("resnet18", "random").eval()


def ordered(task: Task, batch: int) -> OrderedBatches:
    return OrderedBatches(Images([(task, task.rows["train"])]), SIZE, batch)


def means(images: Tensor) -> Tensor:
    """Something to tell each image by: its mean colour (n, 3)."""
    return images.double().mean((2, 3))


class Late:
    """A copy that is made only when it is waited for."""

    def __init__(self, room: Tensor, result: Tensor) -> None:
        self.room, self.result = room, result

    def synchronize(self) -> None:
        self.room.copy_(self.result)


@given(sizes=st.lists(st.integers(1, 5), max_size=12), ring=st.integers(1, 5), send=st.sampled_from([Late, sent_back]))
def test_results_come_back_in_order_whatever_the_batches_and_the_ring(sizes: list[int], ring: int, send: type) -> None:
    results = [torch.full((size, 2), float(number)) for number, size in enumerate(sizes)]
    found = [result.clone() for result in returned(iter(results), send, ring)]
    assert len(found) == len(results)
    assert all(torch.equal(*pair) for pair in zip(found, results, strict=True))


@given(count=st.integers(0, 12), ring=st.integers(1, 5))
def test_a_buffer_is_used_again_only_after_its_result_was_taken_and_no_result_is_waited_for_early(
    count: int, ring: int
) -> None:
    launched, waiting, taken = 0, dict[int, int](), 0  # waiting: address of a buffer -> number of its result

    class Copy:
        def __init__(self, room: Tensor, _result: Tensor) -> None:
            self.address = room.data_ptr()
            assert self.address not in waiting
            waiting[self.address] = launched - 1

        def synchronize(self) -> None:
            assert waiting[self.address] == taken
            assert launched == min(taken + ring, count)  # that many are queued, this one included

    def results() -> Iterator[Tensor]:
        nonlocal launched
        for _ in range(count):
            launched += 1
            yield torch.zeros(4, 2)

    for room in returned(results(), Copy, ring):
        del waiting[room.data_ptr()]
        taken += 1
    assert taken == count


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("batch", "at_once"), [(4, 1), (4, 8), (5, 24), (64, 8), (3, 7)])
def test_every_image_is_seen_once_and_in_order(task: Task, workers: int, batch: int, at_once: int) -> None:
    """Where the last batch of the loader, and the last of the network, are smaller than the others too."""
    sizes: list[int] = []

    def seen(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return means(images)

    some = outputs(seen, ordered(task, batch), Inference(CPU, torch.float32, at_once, 2), workers=workers)
    found = np.concatenate([result.copy() for result in some])
    one_by_one = ordered_batches(task, task.rows["train"], size=SIZE, batch=1, workers=0)
    expected = torch.cat([means(images) for images, _ in one_by_one])
    assert np.array_equal(found, expected.float().numpy())
    together = min(max(at_once // batch, 1) * batch, IMAGES)
    assert sizes == [together] * (IMAGES // together) + [IMAGES % together] * bool(IMAGES % together)
    assert not multiprocessing.active_children()


def test_nothing_waits_for_the_device_until_results_are_taken(
    task: Task, network: SharedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which has no values to wait for. The results cannot be copied from it, so none is."""
    monkeypatch.setattr(inference.torch, "autocast", lambda *_, **__: nullcontext())  # there is none for it
    monkeypatch.setattr(inference, "sent_back", lambda _room, _result: inference.Complete())
    there = copy.deepcopy(network).to(DEVICE)
    how, dataset = Inference(DEVICE, torch.float32, 8, 3), ordered(task, 4)
    sent = [batch.to(DEVICE) for batch in batches(dataset, range(len(dataset)), workers=0)]
    monkeypatch.setattr(inference, "batches_on", lambda *_, **__: iter(sent))
    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
    with Waits(*sent):
        some = outputs(lambda images: there(there.normalize(images)), dataset, how, workers=0)
        assert [len(result) for result in some] == [8, 8, 7]


def test_there_is_no_result_of_no_image(task: Task) -> None:
    nothing = OrderedBatches(Images([(task, task.rows["train"].take([]))]), SIZE, 4)
    assert list(outputs(means, nothing, HALF, workers=1)) == []


def test_on_the_cpu_features_are_those_of_one_plain_pass_to_the_bit(task: Task, network: SharedNetwork) -> None:
    rows = task.rows["train"]
    found = frozen.computed(
        network, task, rows, "train", size=SIZE, workers=0, inference=Inference.on(CPU), report=Notes()
    )
    ((images, _),) = ordered_batches(task, rows, size=SIZE, batch=64, workers=0)
    with torch.inference_mode():
        expected = network(network.normalize(images)).numpy()
    assert np.array_equal(found, expected)


def test_features_of_bfloat16_are_those_of_float32_within_its_precision(task: Task, network: SharedNetwork) -> None:
    """8 bits of mantissa in each of 18 layers: within 2% of the largest feature, and not equal."""
    rows = task.rows["train"]
    exact, rough = (
        frozen.computed(network, task, rows, "train", size=SIZE, workers=0, inference=how, report=Notes())
        for how in (Inference.on(CPU), HALF)
    )
    difference = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 0 < difference < 0.02
    assert rough.dtype == np.float32


def test_cuda_runs_in_bfloat16_and_the_cpu_in_float32() -> None:
    cuda, cpu = Inference.on(torch.device("cuda", 0)), Inference.on(CPU)
    assert (cuda.dtype, cuda.at_once, cuda.precision) == (torch.bfloat16, 256, " computed in bfloat16")
    assert (cpu.dtype, cpu.at_once, cpu.precision) == (torch.float32, 1, "")


def test_features_of_one_precision_are_not_taken_for_those_of_the_other(
    task: Task, network: SharedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the training set's had been computed on the CPU, and the validation set's were needed on CUDA."""
    options = {"size": SIZE, "cache": tmp_path, "workers": 0, "report": Notes(), "device": "cpu"}
    exact = np.array(features(network, task, "val", **options))  # type: ignore[arg-type]
    monkeypatch.setattr(cached.Inference, "on", lambda _device: HALF)
    rough = np.array(features(network, task, "val", **options))  # type: ignore[arg-type]
    assert not np.array_equal(rough, exact)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    assert np.array_equal(features(network, task, "val", **options), exact)  # type: ignore[arg-type]


def test_a_network_runs_on_fewer_images_at_once_if_the_device_has_too_little_memory(task: Task) -> None:
    sizes: list[int] = []

    def seen(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return means(images)

    some = outputs(seen, ordered(task, 4), Inference(CPU, torch.float32, 16), workers=0)
    found = np.concatenate([result.copy() for result in some])
    expected = np.concatenate([r.copy() for r in outputs(means, ordered(task, 4), Inference(CPU), workers=0)])
    assert np.array_equal(found, expected)
    assert sizes == [16, 8, 4, 4, 4, 4, 4, 3]


def test_a_single_image_that_does_not_fit_the_memory_is_an_error(task: Task) -> None:
    def too_large(_images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(outputs(too_large, ordered(task, 4), Inference(CPU, torch.float32, 16), workers=0))


def test_the_choice_of_kernels_by_speed_is_off_while_a_network_runs_and_as_before_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with HALF.running():
        assert not torch.backends.cudnn.benchmark
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.backends.cudnn.benchmark
    with Inference(CPU).running():
        assert not torch.is_autocast_enabled("cpu")
