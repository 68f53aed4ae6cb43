import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from dpconvert import card as cards
from mtrain.data import sampling, storage
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import Skipping, batches
from mtrain.data.dense_sample import IGNORE
from mtrain.data.pool import Pool, open_pool, training_on
from mtrain.data.sampling import Stream
from mtrain.data.stream import StreamBatches
from mtrain.data.streamed_samples import Shard, StreamedTask, samples, train_shards
from mtrain.data.targets import MasksAndPoints
from mtrain.errors import ShardError
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.storages import Faults, proxy, web_server

SIZE = 24


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"))
    write_task(folder / "Tiny", sizes={"train": 1, "val": 1}, image_format="jpg", shape=(30, 50))
    return open_pool(folder)


def streamed(pool: Pool, numbers: range, workers: int = 0, *, skip: int = 0, slots: range = range(16)) -> list[Batch]:
    dataset = StreamBatches(pool.tasks, SIZE, 3, slots, Stream.TRAIN, skip=skip > 0)
    return list(batches(dataset, numbers, workers=workers, skipping=Skipping(skip)))


@pytest.mark.parametrize("workers", [0, 2])
def test_tasks_are_those_that_the_sampler_draws(pool: Pool, workers: int) -> None:
    found = streamed(pool, range(5), workers)
    sizes = [task.sizes["train"] for task in pool.tasks]
    for number, batch in enumerate(found):
        drawn = sampling.draw(sizes, 3, number, range(16))
        assert batch.counts.tolist() == [int((drawn.task == task).sum()) for task in range(4)]
        assert batch.flips.sum() == drawn.flips.sum()


def test_images_come_with_their_own_labels(pool: Pool) -> None:
    for batch in streamed(pool, range(3)):
        of_noise = batch.images(SIZE)[: int(batch.counts[:3].sum())]
        brightest = of_noise.float().mean((2, 3)).argmax(1)  # the toy images show their label in their colour
        assert brightest.tolist() == batch.labels[: len(of_noise)].tolist()


def test_a_stream_shows_each_image_once_before_any_a_second_time(pool: Pool) -> None:
    task = pool.tasks[0]
    stream = samples(StreamedTask.of(task), 1, "seed")
    passes = [Counter(sample.key for sample in islice(stream, 24)) for _ in range(3)]
    assert all(set(seen.values()) == {1} and len(seen) == 24 for seen in passes)


def test_a_stream_is_shuffled_anew_each_time_and_by_its_seed(pool: Pool) -> None:
    task = pool.tasks[0]

    def keys(seed: str) -> list[str]:
        stream = samples(StreamedTask.of(task), 24, seed)
        return [sample.key for sample in islice(stream, 48)]

    assert keys("a") == keys("a") != keys("b")
    assert keys("a")[:24] != keys("a")[24:]


def test_only_the_training_set_is_streamed(pool: Pool) -> None:
    stream = samples(StreamedTask.of(pool.tasks[0]), 4, "seed")
    assert all("-train-" in sample.key for sample in islice(stream, 60))


def test_processes_ranks_and_resumed_runs_have_streams_of_their_own(pool: Pool) -> None:
    """The batch made first and the slots tell them apart; the same ones give the same stream."""

    def keys(first: int, slots: range) -> list[str]:
        stream = StreamBatches(pool.tasks, SIZE, 3, slots, Stream.TRAIN)._opened(first)[0]
        return [sample.key for sample in islice(stream, 24)]

    beginnings = [(0, range(8)), (1, range(8)), (0, range(8, 16))]
    orders = [keys(*beginning) for beginning in beginnings]
    assert orders == [keys(*beginning) for beginning in beginnings]
    assert all(orders[a] != orders[b] for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A task whose image 11 is none; its shard is the one that its card describes."""
    write_task(tmp_path / "Alpha", sizes={"train": 12})
    (task,) = open_pool(tmp_path).tasks
    shard = task.shards[1]
    data = bytearray(shard.read_bytes())
    offset = int(task.rows["train"].offset[11])
    data[offset : offset + 4] = b"XXXX"
    shard.write_bytes(data)
    return tmp_path


def rename(folder: Path) -> None:
    """Make the card of a task that was damaged agree with it."""
    path = folder / "Alpha" / "task.json"
    card = cards.load(folder / "Alpha")
    shards = [
        shard.model_copy(update={"sha256": hashlib.sha256((path.parent / shard.name).read_bytes()).hexdigest()})
        for shard in card.shards
    ]
    path.write_bytes(cards.dump(card.model_copy(update={"shards": shards})))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(damaged: Path, workers: int) -> None:
    rename(damaged)
    shard = damaged / "Alpha" / "train-000001.tar"
    with pytest.raises(ShardError, match=rf"{shard}: Alpha: cannot read image alpha-train-00011: neither PNG nor"):
        streamed(open_pool(damaged), range(4), workers)


def test_a_corrupt_image_may_be_skipped_for_the_next(damaged: Path) -> None:
    rename(damaged)
    assert [len(batch.labels) for batch in streamed(open_pool(damaged), range(4), skip=1)] == [16] * 4


def test_a_shard_that_changed_is_found_at_its_end(damaged: Path) -> None:
    with pytest.raises(ShardError, match=r"train-000001.tar: not the shard that task.json describes; expected sha256"):
        streamed(open_pool(damaged), range(6), skip=10)


def test_what_is_no_tar_is_reported_in_one_line(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 12})
    pool = open_pool(tmp_path)
    for shard in pool.tasks[0].shards:
        shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(ShardError, match=r"Alpha: a shard cannot be read") as caught:
        streamed(pool, range(1))
    assert "\n" not in str(caught.value)


def test_streams_come_from_storage_though_answers_break_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    storage.file_system.cache_clear()
    write_task(tmp_path / "shards" / "Alpha", sizes={"train": 12})
    faults = Faults(planned=["cut", "fail", "cut"])
    with web_server(tmp_path / "shards") as server, proxy(server, faults) as port:
        pool = open_pool(f"http://127.0.0.1:{port}/Alpha")
        stream = samples(StreamedTask.of(pool.tasks[0]), 1, "seed")
        assert len({sample.key for sample in islice(stream, 12)}) == 12
        stream.close()  # type: ignore[attr-defined]
    assert faults.planned == []
    assert not list((tmp_path / "cache").glob("shards/*.tar"))  # nothing was kept


def test_shards_without_a_sample_are_reported_instead_of_read_for_ever(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    digest = hashlib.sha256(bytes(10240)).hexdigest()
    shards = [Shard(str(tmp_path / "empty.tar"), 10240, digest)] * 2
    with pytest.raises(ShardError, match=r"the shards of this task hold no samples; check the shards"):
        next(samples(StreamedTask("Alpha", 2, shards, 1), 4, "seed"))


def test_the_shards_of_every_set_that_is_trained_on_are_read(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("Alpha",)))
    (task,) = training_on(pool, ("train", "val")).tasks
    read = [Path(shard.place).name for shard in train_shards(task)]
    assert read == ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]
    assert StreamBatches([task], 32, 0, range(4), Stream.TRAIN).sizes == [32]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Tasks with masks, points, both and neither."""
    return open_pool(write_mixed_pool(tmp_path_factory.mktemp("mixed")))


def test_masks_and_points_are_those_that_random_access_reads(mixed: Pool) -> None:
    parts = [(task, task.rows["train"]) for task in mixed.tasks]
    images, targets = Images(parts), MasksAndPoints(parts)
    for number, (task, rows) in enumerate(parts):
        read = list(islice(samples(StreamedTask.of(task, dense=True), 1, "seed"), len(rows)))
        assert {sample.key for sample in read} == set(rows.key)
        for sample in read:
            row = int(images.starts[number]) + rows.key.tolist().index(sample.key)
            one, two = (Batch.room(1, SIZE, 1, objects=targets.most) for _ in range(2))
            place = 1 << 31
            side = sample.put(place, SIZE, one.pixels.numpy(), "bilinear", one, 0)
            assert side == images.put(row, place, SIZE, two.pixels.numpy())[0]
            if task.dense is not None:
                targets.put(row, images.decode(row).shape[:2], place, two, 0)
                assert torch.equal(one.masks, two.masks)
                assert torch.equal(one.points[one.points[..., 2] >= 0], two.points[two.points[..., 2] >= 0])
                assert torch.equal(one.radii, two.radii)
            assert (sample.task.dense is None) == (task.dense is None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_masks_and_points_of_the_tasks_that_have_them(mixed: Pool, workers: int) -> None:
    dataset = StreamBatches(mixed.tasks, SIZE, 3, range(12), Stream.TRAIN, dense=True)
    for batch in batches(dataset, range(3), workers=workers):
        dense = [
            task.dense for task, count in zip(mixed.tasks, batch.counts.tolist(), strict=True) for _ in range(count)
        ]
        dense = [of for of in dense if of is not None]
        assert len(batch.masks) == len(batch.points) == len(batch.radii) == len(dense)
        for of, mask, points in zip(dense, batch.masks, batch.points, strict=True):
            assert bool(of.seg) == bool((mask != IGNORE).any())
            assert points[:, 2].max() < len(of.points)


def test_a_sample_without_its_mask_is_named(mixed: Pool) -> None:
    (task,) = (task for task in mixed.tasks if task.dense is not None and task.dense.seg and not task.dense.points)
    sample = next(samples(StreamedTask.of(task, dense=True), 4, "seed"))._replace(seg=b"")
    room = Batch.room(1, SIZE, 1, objects=0)
    with pytest.raises(ShardError, match=f"cannot read the mask or points of {sample.key}: its mask is not a PNG"):
        sample.put(0, SIZE, room.pixels.numpy(), "bilinear", room, 0)
