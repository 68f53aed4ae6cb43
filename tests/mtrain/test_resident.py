"""Decoded images that stay in the memory of the device: batches and weights are those of a training without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtrain.config import FitConfig
from mtrain.data.batches import resident
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import Parts, batches
from mtrain.data.batches.prefetch import on_device
from mtrain.data.batches.resident import GIB, resident_images
from mtrain.data.pool import open_pool
from mtrain.data.sampling import Stream
from mtrain.errors import UsageError
from mtrain.runs.run_folder import Run
from mtrain.train import fit
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_device import Operators, Waits, locked
from tests.mtrain.test_fit import Notes, a_training, config, interrupted

SIZE = 24
CPU = torch.device("cpu")
ALL = 1 << 30
SHAPES = {"High": (40, 32), "Wide": (30, 50), "Same": (24, 24), "Large": (100, 100), "Odd": (100, 120)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    folder = tmp_path_factory.mktemp("pool")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        write_task(folder / name, sizes={"train": 6 + seed, "val": 1}, shape=shape, seed=seed)
    return Images([(task, task.rows["train"]) for task in open_pool(folder).tasks])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"), sizes={"train": 16, "val": 5})


@pytest.fixture(params=[1 << 22, 1000], ids=["at once", "in groups"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "AT_ONCE", request.param)


def drawn(images: Images, workers: int, budget: int, *, apart: bool) -> Iterator[Batch]:
    """Batches of two parts. apart: their pixels are copied, as to a device with memory of its own."""
    kept = replace(resident_images(images, SIZE, budget, CPU)[0], apart=apart)
    parts = [TrainingBatches(images, SIZE, 3, slots, Stream.TRAIN, resident=kept.shapes) for slots in SLOTS]
    dataset, numbers = Parts(parts), range(8)

    def send(batch: Batch, position: int) -> Batch:
        item, part = divmod(numbers[position], 2)
        chosen = parts[part].drawn(item)
        return kept.sent(batch, chosen.index, chosen.place)

    return on_device(batches(dataset, numbers, workers=workers), CPU, send)


SLOTS = [range(9), range(9, 20)]


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("workers", "budget"), [(0, ALL), (1, ALL), (0, 60_000), (0, 0)])
def test_batches_are_those_without_to_the_bit(workers: int, budget: int, apart: bool, images: Images) -> None:
    plain = Parts([TrainingBatches(images, SIZE, 3, slots, Stream.TRAIN) for slots in SLOTS])
    expected = list(batches(plain, range(8), workers=0))
    found = [Batch(*(part.clone() for part in batch)) for batch in drawn(images, workers, budget, apart=apart)]
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_launches_do_not_depend_on_the_number_of_tasks_and_none_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which every other one is resident. The device "meta" is in the place of CUDA."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
    found = set[int]()
    for tasks in (2, 9, 20):
        for number in range(tasks):
            many, side = 8 + 4 * (number % 2), 30 + number  # the smaller half fits
            write_task(tmp_path / str(tasks) / f"Task{number}", sizes={"train": many, "val": 1}, shape=(side, side))
        pool = open_pool(tmp_path / str(tasks))
        images = Images([(task, task.rows["train"]) for task in pool.tasks])
        small = [images.sizes[task] == 8 for task in range(tasks)]
        budget = sum(3 * 8 * (30 + int(images.names[task][4:])) ** 2 for task in range(tasks) if small[task])
        kept, _ = resident_images(images, SIZE, budget, CPU)
        assert len(kept.tasks) == sum(small)
        kept = replace(kept, pixels=kept.pixels.to("meta"), apart=True)
        dataset = TrainingBatches(images, SIZE, 3, range(32), Stream.TRAIN, resident=kept.shapes)
        for number in range(4):
            batch, chosen = dataset[number], dataset.drawn(number)
            assert isinstance(batch, Batch)
            with Operators() as counted, Waits(batch):
                there = kept.sent(batch, chosen.index, chosen.place)
            found.add(counted.count)
            assert [part.device for part in there] == [part.device for part in batch.to(torch.device("meta"))]
    assert len(found) == 1


def test_small_tasks_stay_and_what_the_processor_reduces_is_left_to_the_loader(images: Images) -> None:
    kept, said = resident_images(images, SIZE, ALL, CPU)
    assert kept.tasks == ("High", "Large", "Same", "Wide")  # in the order of the pool
    sizes = dict(zip(images.names, images.sizes, strict=True))
    pixels = {"High": 40 * 32, "Wide": 30 * 50, "Same": 24 * 24, "Large": 24 * 24}
    expected = sum(sizes[name] * of_one for name, of_one in pixels.items())
    assert len(kept.pixels) == expected
    assert said == "resident: 30 images of 4 tasks in 0.00 GiB of at most 1 GiB of the device; 1 task by the loader"
    few, _ = resident_images(images, SIZE, 3 * sizes["High"] * 40 * 32, CPU)
    assert few.tasks == ("High",)


def test_a_task_with_an_unreadable_image_is_left_to_the_loader(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("Alpha", "Beta"), sizes={"train": 6, "val": 1}))
    broken = pool.tasks[0].shards[int(pool.tasks[0].rows["train"].shard[0])]
    data = bytearray(broken.read_bytes())
    at = int(pool.tasks[0].rows["train"].offset[3])
    data[at : at + 4] = b"XXXX"
    broken.write_bytes(data)
    images = Images([(task, task.rows["train"]) for task in pool.tasks])
    assert resident_images(images, SIZE, ALL, CPU)[0].tasks == ("Beta",)


def test_a_budget_beyond_the_free_memory_is_refused(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (GIB, 2 * GIB))
    with pytest.raises(UsageError, match=r"--resident: .* less free memory; expected 1\.5 GiB; found 1\.0 GiB; give"):
        resident_images(images, SIZE, 3 * GIB // 2, torch.device("cuda"))


def test_stream_does_not_go_with_it() -> None:
    with pytest.raises(UsageError, match="takes images as they come, but `resident` keeps those of some tasks"):
        FitConfig(resident=1, stream=True)


def test_weights_are_the_same_after_a_stop_and_with_another_budget(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"iterations": 6, "warmup": 2}
    plain, kept, said = Run(tmp_path / "toy"), Run(tmp_path / "kept" / "toy"), Notes()
    assert fit.fit(config(shards, **settings), plain, Notes()) == "finished"
    interrupted(monkeypatch, kept, config(shards, **settings, resident=70_000 / GIB), 3)
    assert fit.fit(config(shards, **settings, resident=1), kept, said) == "finished"
    assert kept.weights.read_bytes() == plain.weights.read_bytes()
    assert any("resident: 42 images of 2 tasks" in line for line in said.said)


def test_workers_decode_none_of_them(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = a_training(shards, batch=12)
    assert training.images is not None
    training.resident, _ = resident_images(training.images, 32, ALL, CPU)
    monkeypatch.setattr(Images, "put", refuse)
    assert len(list(training.iterations(range(3)))) == 3


def refuse(*_: object) -> Callable[..., None]:
    raise AssertionError("decoded")
