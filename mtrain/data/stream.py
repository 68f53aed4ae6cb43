"""Batches from shards that are read sequentially, for pools larger than the disk: one endless stream for each task.

Task, crop and flips of a slot are those of `sampling.draw`. The image is the next one of its task's stream, which reads
the shards in a new random order each time and shuffles within a buffer. Without random access, the image of a slot
depends on the number of workers and on where a run was resumed: a resumed run continues with another shuffle, and its
weights differ from those of an uninterrupted one. Every worker and every rank reads shards of every task.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import webdataset
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from dpconvert.image.decode import decode
from dpconvert.source.bounded import DAMAGED
from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.batches.augment import put_square
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.loader import Batches, BatchReady
from mtrain.data.storage import Storage
from mtrain.data.task import Task
from mtrain.errors import ShardError, UserError
from mtrain.used import mark

BUFFERED = 128 << 20  # bytes of images that a process buffers for shuffling, over all tasks
FEWEST, MOST = 16, 1000  # images buffered for each task
FORMATS = ("jpg", "png")


class Shard(NamedTuple):
    """A shard to read sequentially; `place` is a path or a URL."""

    place: str
    size: int
    sha256: str

    def open(self) -> BinaryIO:
        """Open the shard for reading, local or remote."""
        if "://" in self.place:
            return Storage(self.place).reader(self.place, self.size)
        return Path(self.place).open("rb")


class Sample(NamedTuple):
    """One encoded image and its label."""

    task: str
    shard: str
    key: str
    label: int
    image: bytes

    def put(self, place: int, size: int, room: npt.NDArray[np.uint8], how: Interpolation) -> int:
        """Write the square of the image at `place` to the start of `room`, as augment.put_square. Returns its side.

        Raises:
            ShardError: the image cannot be read.
        """
        try:
            return put_square(decode(self.image), size, place, room, how)
        except (ValueError, OSError) as error:
            raise ShardError(
                f"{self.task}: cannot read image {self.key}: {error}",
                where=self.shard,
                remedy="check the shards with `dpconvert verify`",
            ) from None


class StreamBatches(Batches):
    """Batch i has the tasks that iteration i draws. Each process that makes batches has its own streams."""

    def __init__(
        self,
        tasks: Sequence[Task],
        size: int,
        seed: int,
        slots: range,
        stream: sampling.Stream,
        *,
        skip: bool = False,
        mixture: sampling.Mixture = sampling.UNIFORM,
        looks: bool = False,
        how: Interpolation = "bilinear",
    ) -> None:
        super().__init__(size, len(slots), len(tasks))
        mark("check_images")
        self.how = how
        self.seed, self.slots, self.stream, self.skip, self.mixture = seed, slots, stream, skip, mixture
        self.looks = looks
        self.sources = [(task.name, task.num_classes, train_shards(task)) for task in tasks]
        self.sizes = [len(task.rows["train"]) for task in tasks]
        self._streams: list[Iterator[Sample]] | None = None

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write batch `number` to `into`. Errors are returned, not raised."""
        drawn = sampling.draw(self.sizes, self.seed, number, self.slots, self.stream, self.mixture)
        order = np.argsort(drawn.task, kind="stable")
        skipped: list[UserError] = []
        try:
            streams = self._opened(number)
            room, used = into.pixels.numpy(), 0
            for slot, task, place in zip(range(len(order)), drawn.task[order], drawn.place[order], strict=True):
                label, side = self._put(streams[task], int(place), room[used:], skipped)
                into.labels[slot], into.sides[slot] = label, side
                used += 3 * side * side
        except UserError as error:
            return error
        into.flips[: len(order)] = torch.from_numpy(drawn.flips[order])
        if self.looks:
            into.looks[: len(order)] = torch.from_numpy(sampling.looks(self.seed, number, order + self.slots.start))
        into.counts[:] = torch.from_numpy(np.bincount(drawn.task, minlength=len(into.counts)))
        return BatchReady(len(order), tuple(skipped))

    def _put(
        self, samples: Iterator[Sample], place: int, room: npt.NDArray[np.uint8], skipped: list[UserError]
    ) -> tuple[int, int]:
        """Write the next readable image to `room`. Returns its label and its side."""
        for sample in itertools.islice(samples, 2 * MOST):
            try:
                return sample.label, sample.put(place, self.size, room, self.how)
            except ShardError as error:
                if not self.skip:
                    raise
                skipped.append(error)
        raise skipped[-1]

    def _opened(self, number: int) -> list[Iterator[Sample]]:
        """The streams of this process, seeded with the first batch that it makes, which is unique to the process."""
        if self._streams is None:
            share = BUFFERED // len(self.sources)
            seed = f"{self.seed} {number} {self.slots.start} {self.stream}"
            self._streams = [
                samples(name, classes, shards, _buffer(shards, size, share), f"{seed} {name}")
                for (name, classes, shards), size in zip(self.sources, self.sizes, strict=True)
            ]
        return self._streams

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": None}


def train_shards(task: Task) -> list[Shard]:
    """The shards of a task that are trained on."""
    folder = task.url or str(task.folder)
    return [Shard(f"{folder}/{s.name}", s.size, s.sha256) for s in task.card.shards if s.split in task.trains]


def samples(task: str, classes: int, shards: Sequence[Shard], buffer: int, seed: str) -> Iterator[Sample]:
    """An endless iterator over the images of these shards, in an order determined by `seed`.

    Raises:
        ShardError: a shard is not a tar file, or not the one that its card describes; the shards hold no samples; a
            sample has no image or label.
        RunError: a shard cannot be read.
    """
    order = random.Random(seed)
    used: set[str] = set()
    stages = (tar_file_expander, group_by_keys, lambda fields: _labelled(task, classes, fields, used))
    in_turn = _open_in_turn(shards, order, used)
    pipeline = webdataset.DataPipeline(lambda: in_turn, *stages, shuffle(buffer, rng=order))
    try:
        yield from pipeline
    except DAMAGED as error:
        raise ShardError(
            f"{task}: a shard cannot be read: {error.args[0]}",
            where=shards[0].place.rpartition("/")[0],
            remedy="check the shards with `dpconvert verify`",
        ) from None
    finally:
        in_turn.close()  # and with it the shard that is open: after an error, the pipeline would keep it


def _open_in_turn(
    shards: Sequence[Shard], order: random.Random, used: set[str]
) -> Generator[dict[str, Any], None, None]:
    """Each shard once in a random order, endlessly. At its end, its sha256 must be that of its card.

    used: the shards that samples were read from so far. After each pass over all shards it must not be empty.
    """
    while True:
        for shard in order.sample(shards, len(shards)):
            with closing(shard.open()) as file:
                reader = _Hashing(file)
                yield {"url": shard.place, "stream": reader}
                if reader.finished() != shard.sha256:
                    raise ShardError(
                        "not the shard that task.json describes",
                        where=shard.place,
                        expected=f"sha256 {shard.sha256}",
                        found=reader.finished(),
                    )
        if not used:
            raise ShardError(
                "the shards of this task hold no samples",
                where=shards[0].place.rpartition("/")[0],
                remedy="check the shards with `dpconvert verify`",
            )


class _Hashing:
    """A file that is read once, and the sha256 of the bytes read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def finished(self) -> str:
        """Read the rest of the file, and return the digest of the whole."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def _labelled(task: str, classes: int, samples: Iterable[dict[str, Any]], used: set[str]) -> Iterator[Sample]:
    for fields in samples:
        used.add(fields["__url__"])
        yield _sample(task, classes, fields)


def _sample(task: str, classes: int, fields: dict[str, Any]) -> Sample:
    image = next((fields[name] for name in FORMATS if name in fields), None)
    label = fields.get("cls", b"").decode("ascii", "replace").strip()
    if image is None or not label.isdecimal() or int(label) >= classes:
        raise ShardError(
            f"{task}: sample {fields['__key__']} is not an image with a label",
            where=fields["__url__"],
            expected=f"jpg or png, and cls in 0..{classes - 1}",
        )
    return Sample(task, fields["__url__"], fields["__key__"], int(label), image)


def _buffer(shards: Sequence[Shard], images: int, most: int) -> int:
    """Number of images of a task to buffer, so that images of average size take at most `most` bytes."""
    each = sum(shard.size for shard in shards) / max(images, 1)
    return int(min(max(most / max(each, 1), FEWEST), MOST))
