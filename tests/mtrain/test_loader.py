import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from mtrain.data import sampling
from mtrain.data.batches import images as loaded_images
from mtrain.data.batches import loader, worker_start
from mtrain.data.batches.augment import square
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import OrderedBatches, TrainingBatches, ordered_batches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import Parts, Skipping, Waiting, batches
from mtrain.data.pool import Pool, open_pool
from mtrain.data.sampling import Stream
from mtrain.errors import ShardError
from tests.mtrain.pools import encode, write_pool, write_task

SIZE = 24
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"))
    write_task(folder / "Tiny", sizes={"train": 1, "val": 1}, image_format="jpg", shape=(30, 50))
    return open_pool(folder)


def train_images(pool: Pool) -> Images:
    return Images([(task, task.rows["train"]) for task in pool.tasks])


def training(pool: Pool, slots: range = range(16)) -> TrainingBatches:
    return TrainingBatches(train_images(pool), SIZE, 3, slots, Stream.TRAIN)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(pool: Pool, workers: int) -> None:
    alone = list(batches(training(pool), range(5), workers=0))
    assert equal(alone, list(batches(training(pool), range(5), workers=workers)))


@pytest.mark.parametrize(
    ("chosen", "system", "default", "expected"),
    [
        (None, "Linux", "forkserver", "fork"),  # as from Python 3.14
        (None, "Darwin", "spawn", "spawn"),
        ("spawn", "Linux", "spawn", "spawn"),
    ],
)
def test_workers_are_forked_on_linux_unless_the_program_has_chosen(
    chosen: str | None, system: str, default: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none=False: chosen if allow_none else default)
    assert worker_start.start_method() == expected


def test_torch_does_not_remark_on_more_workers_than_processors(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns when a loader is made and when it starts; here, warnings are errors."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0})
    assert len(list(batches(training(pool), range(2), workers=2))) == 2


def test_batches_do_not_depend_on_where_the_iterations_begin(pool: Pool) -> None:
    whole = list(batches(training(pool), range(6), workers=0))
    assert equal(whole[4:], list(batches(training(pool), range(4, 6), workers=1)))


def test_what_a_started_interpreter_receives_makes_the_same_batches(pool: Pool) -> None:
    """Its dataset travels as bytes. Such interpreters make batches in the test below."""
    dataset = training(pool)
    there: Batch = pickle.loads(pickle.dumps(dataset))[2]
    assert equal([dataset[2]], [there])


UNFINISHED = """
import hashlib, multiprocessing, pathlib, sys
multiprocessing.set_start_method(sys.argv[2])
from mtrain import ShardDataset
from mtrain.data.pool import open_pool
from tests.mtrain.test_loader import batches, training
sys.kept = kept = ShardDataset(sys.argv[3])
kept[0]
left = batches(training(open_pool(pathlib.Path(sys.argv[1]))), range(1000), workers=1)
print(*(hashlib.sha256(next(left).pixels.numpy()).hexdigest() for _ in range(2)))
"""


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.stress)])
def test_a_process_ends_though_its_batches_did_not_and_they_are_the_same_however_workers_start(
    pool: Pool, start: str
) -> None:
    """Workers let no signal end them: it is the end of the process that has to tell them.

    A dataset that is still open then says nothing either. The program is read from standard input: no worker can import
    it again.
    """
    command = [sys.executable, "-", str(pool.tasks[0].folder.parent), start, str(pool.tasks[0].folder)]
    environment = os.environ | {"PYTHONHASHSEED": str(len(start))}  # names are hashed otherwise
    done = subprocess.run(
        command, input=UNFINISHED, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    here = list(batches(training(pool), range(2), workers=0))
    assert done.stdout.split() == [hashlib.sha256(batch.pixels.numpy()).hexdigest() for batch in here]
    assert done.stderr == ""


def test_two_halves_of_the_slots_hold_what_the_whole_holds(pool: Pool) -> None:
    whole, left, right = (training(pool, slots)[0] for slots in (range(16), range(7), range(7, 16)))
    assert isinstance(whole, Batch)
    assert isinstance(left, Batch)
    assert isinstance(right, Batch)
    assert torch.equal(left.counts + right.counts, whole.counts)
    sums = [sorted(batch.images(SIZE).flatten(1).sum(1).tolist()) for batch in (whole, left, right)]
    assert sorted(sums[1] + sums[2]) == sums[0]


def test_images_stand_in_the_order_of_their_tasks_with_their_labels(pool: Pool) -> None:
    images = train_images(pool)
    drawn = sampling.draw(images.sizes, 3, 0, range(16))
    batch = training(pool)[0]
    assert isinstance(batch, Batch)
    assert batch.counts.tolist() == np.bincount(drawn.task, minlength=4).tolist()
    expected = [pool.tasks[t].rows["train"].label[r] for t, r in sorted(zip(drawn.task, drawn.row, strict=True))]
    assert batch.labels.tolist() == expected
    brightest = batch.images(SIZE).float().mean((2, 3)).argmax(1)  # the toy images show their label in their colour
    assert brightest.tolist() == expected


def test_batches_are_uint8_and_channels_last(pool: Pool) -> None:
    (batch,) = batches(training(pool), range(1), workers=1)
    images = batch.images(SIZE)
    assert images.shape == (16, 3, SIZE, SIZE)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_loading_leaves_the_random_state_of_torch_alone(pool: Pool) -> None:
    state = torch.get_rng_state()
    list(batches(training(pool), range(2), workers=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_ordered_pass_shows_each_image_once_in_order(pool: Pool, workers: int) -> None:
    task = pool.tasks[0]
    rows = task.rows["train"].take([5, 3, 20, 1, 0])
    passes = list(ordered_batches(task, rows, size=SIZE, batch=2, workers=workers))
    assert [places.tolist() for _, places in passes] == [[0, 1], [2, 3], [4]]
    colours = torch.cat([images for images, _ in passes]).float().mean((2, 3)).argmax(1)
    assert colours.tolist() == rows.label.tolist()


def test_an_ordered_pass_over_nothing_is_empty(pool: Pool) -> None:
    task = pool.tasks[0]
    assert list(ordered_batches(task, task.rows["train"].take([]), size=SIZE, batch=2, workers=1)) == []


def test_an_ordered_pass_over_several_tasks_counts_each(pool: Pool) -> None:
    dataset = OrderedBatches(Images([(task, task.rows["val"]) for task in pool.tasks]), SIZE, 20)
    counts = [batch.counts.tolist() for batch in batches(dataset, range(len(dataset)), workers=0)]
    assert counts == [[8, 8, 4, 0], [0, 0, 4, 1]]


def test_ordered_images_are_cropped_at_the_centre_and_not_flipped(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 1}, shape=(8, 12))
    (task,) = open_pool(tmp_path).tasks
    ((images, _),) = ordered_batches(task, task.rows["train"], size=8, batch=1, workers=0)
    whole = Images([(task, task.rows["train"])]).decode(0)
    assert np.array_equal(images[0].permute(1, 2, 0), whole[:, 2:10])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 12})
    (task,) = open_pool(tmp_path).tasks
    shard, offset = task.shards[1], int(task.rows["train"].offset[11])
    data = bytearray(shard.read_bytes())
    data[offset : offset + 4] = b"XXXX"
    shard.write_bytes(data)
    expected = rf"{shard}: Alpha: cannot read image alpha-train-00011: changed since it was written"
    with pytest.raises(ShardError, match=expected) as caught:
        list(ordered_batches(task, task.rows["train"], size=8, batch=4, workers=workers))
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()  # though the traceback is still there: a program would never end


def test_an_open_map_does_not_travel_with_the_images(pool: Pool) -> None:
    images = train_images(pool)
    before = images.read(0)
    assert pickle.loads(pickle.dumps(images)).read(0) == before


def test_task_boundaries_are_found(pool: Pool) -> None:
    images = train_images(pool)
    assert images.sizes == [24, 24, 24, 1]
    assert images.task_of([0, 23, 24, 71, 72]).tolist() == [0, 0, 1, 2, 3]


def test_images_smaller_than_the_input_are_enlarged(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 2}, shape=(5, 5))
    (task,) = open_pool(tmp_path).tasks
    ((images, _),) = ordered_batches(task, task.rows["train"], size=32, batch=2, workers=0)
    assert images.shape == (2, 3, 32, 32)
    assert encode(Image.fromarray(images[0].permute(1, 2, 0).numpy()), "png").startswith(b"\x89PNG")


def corrupt(folder: Path, keys: dict[int, bytes]) -> Pool:
    """A task of 12 training images, of which these begin with other bytes."""
    write_task(folder / "Alpha", sizes={"train": 12})
    (task,) = open_pool(folder).tasks
    rows = task.rows["train"]
    for row, start in keys.items():
        shard = task.shards[rows.shard[row]]
        data = bytearray(shard.read_bytes())
        data[rows.offset[row] : rows.offset[row] + len(start)] = start
        shard.write_bytes(data)
    return open_pool(folder)


def skipping(pool: Pool, limit: int, workers: int = 0) -> tuple[list[Batch], Skipping, list[str]]:
    said: list[str] = []
    allowed = Skipping(limit, said.append)
    dataset = TrainingBatches(train_images(pool), SIZE, 3, range(16), Stream.TRAIN, skip=limit > 0)
    return list(batches(dataset, range(4), workers=workers, skipping=allowed)), allowed, said


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_of_the_task_stands_for_a_corrupt_one(tmp_path: Path, workers: int) -> None:
    pool = corrupt(tmp_path, {4: b"XXXX", 11: b"XXXX"})
    found, allowed, said = skipping(pool, 2, workers)
    images = train_images(pool)
    for number, batch in enumerate(found):
        drawn = sampling.draw([12], 3, number, range(16))
        rows = [{4: 5, 11: 0}.get(row, row) for row in sorted(drawn.row.tolist())]
        assert batch.labels.tolist() == images.label[rows].tolist()
        assert batch.images(SIZE).float().mean((2, 3)).argmax(1).tolist() == batch.labels.tolist()
    assert len(allowed.found) == 2  # different samples, however often they were drawn
    assert [line.partition(":")[0] for line in said] == [f"skipped, {n} of at most 2" for n in (1, 2)]
    assert all("alpha-train-00004" in line or "alpha-train-00011" in line for line in said)


def test_one_corrupt_sample_more_than_allowed_is_an_error(tmp_path: Path) -> None:
    pool = corrupt(tmp_path, {4: b"XXXX", 11: b"XXXX"})
    with pytest.raises(ShardError, match="cannot read image alpha-train-000"):
        skipping(pool, 1)


def test_nothing_is_skipped_unasked(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot read image alpha-train-00004"):
        skipping(corrupt(tmp_path, {4: b"XXXX"}), 0)


def test_a_task_of_corrupt_images_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot read image alpha-train-"):
        skipping(corrupt(tmp_path, dict.fromkeys(range(12), b"XXXX")), 100)


def test_batches_that_are_kept_are_not_written_over(pool: Pool) -> None:
    """Workers use the same memory again."""
    kept = list(batches(training(pool), range(12), workers=1))
    assert equal(kept, list(batches(training(pool), range(12), workers=0)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_last_batches_that_were_handed_out_last(pool: Pool, workers: int) -> None:
    known = list(batches(training(pool), range(24), workers=0))
    held: deque[Batch] = deque(maxlen=3)
    for number, batch in enumerate(batches(training(pool), range(24), workers=workers, lasting=3)):
        held.append(batch)
        time.sleep(0.01)  # workers go on meanwhile
        assert equal(list(held), known[max(number - 2, 0) : number + 1])


def test_a_batch_holds_the_squares_of_its_images_as_they_are_stored(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 2}, shape=(20, 30))
    (task,) = open_pool(tmp_path).tasks
    images = Images([(task, task.rows["train"])])
    for size, side in ((8, 8), (10, 20), (50, 20)):  # more than twice the size: resized before it travels
        (batch,) = batches(OrderedBatches(images, size, 2), range(1), workers=0)
        assert batch.sides.tolist() == [side, side]
        raw_images = [torch.from_numpy(images.decode(row)).permute(2, 0, 1) for row in range(2)]
        stored = torch.cat([square(image, side).permute(1, 2, 0).flatten() for image in raw_images])
        assert torch.equal(batch.pixels, stored)
        assert torch.equal(batch.images(size)[1], square(raw_images[1], size))


def test_few_shards_are_open_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_images, "OPEN_FILES", 2)
    images = train_images(pool)
    before = len(list(Path("/proc/self/fd").iterdir()))
    read = [images.read(index) for index in range(len(images))]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    assert read == [train_images(pool).read(index) for index in range(len(images))]


def test_parts_are_the_batches_of_their_slots(pool: Pool) -> None:
    parts = Parts([training(pool, slots) for slots in (range(7), range(7, 16))])
    found = list(batches(parts, range(4), workers=1))
    expected = [training(pool, slots)[number] for number in range(2) for slots in (range(7), range(7, 16))]
    assert equal(found, [batch for batch in expected if isinstance(batch, Batch)])


MEMORY = """
import dataclasses, pathlib, sys
import numpy as np
from mtrain.data.batches.images import Images
from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.loader import Batches, batches
from mtrain.data.pool import open_pool
from mtrain.data.sampling import Stream
(task,) = open_pool(pathlib.Path(sys.argv[1])).tasks
rows = task.rows["train"].take(np.arange(10**6) % 24)
keys = [f"alpha-patient-{i:09}-at-{i % 997}-{i % 991}" for i in range(10**6)]
rows = dataclasses.replace(rows, key=np.array(keys, dtype=object))
dataset = TrainingBatches(Images([(task, rows)]), 224, 0, range(64), Stream.TRAIN)
class Telling(Batches):
    def make(self, number, into):
        made = dataset.make(number, into)
        lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
        into.labels[0] = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        return made
found = [int(batch.labels[0]) for batch in batches(Telling(224, 64, 1), range(6), workers=2)]
print(max(found))
"""


def test_waiting_counts_the_time_until_batches_are_made_and_nothing_else(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 s for each of 3 batches; what is done with a batch, and sending it, takes longer."""
    clock, dataset, waiting = Mock(now=0.0), training(pool), Waiting()
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(loader, "time", clock)
    make = dataset.make

    def slow(number: int, into: Batch) -> object:
        clock.now += 1
        return make(number, into)

    def send(batch: Batch, _position: int) -> Batch:
        clock.now += 10
        return batch

    monkeypatch.setattr(dataset, "make", slow)
    for _ in loader.batches_on(torch.device("cpu"), dataset, range(3), workers=0, send=send, waiting=waiting):
        clock.now += 5
    assert (waiting.seconds, clock.now) == (3, 48)


def test_all_batches_for_a_device_are_taken_in_the_one_way_that_waits_for_their_copies() -> None:
    """A worker writes over the memory of a page-locked batch as soon as others are requested: nobody else may take such
    batches (fine-tuning did, and the device could copy images of a later batch).
    """
    sources = [path for path in (ROOT / "mtrain").rglob("*.py") if "pin=" in path.read_text().replace(" ", "")]
    assert [path.name for path in sources] == ["loader.py"]


@pytest.mark.stress
def test_a_worker_takes_little_memory_however_many_images(pool: Pool) -> None:
    """Of its own, in KiB, with an index of a million images."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the memory of a process")
    folder = str(pool.tasks[0].folder.parent / "alone")
    write_task(Path(folder) / "Alpha")
    told = subprocess.run([sys.executable, "-c", MEMORY, folder], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 512 * 1024
