"""Samples of a task from shards that are read sequentially, endlessly, each time in a new random order."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import webdataset
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from dpconvert.image.decode import decode
from dpconvert.source.bounded import DAMAGED
from mtrain.backbones.card import Interpolation
from mtrain.data.batches.augment import put_square
from mtrain.data.batches.batch import Batch
from mtrain.data.dense_sample import WRONG, DenseSample, mask_of, no_points, points_of, reason
from mtrain.data.labels import Scaling, scaling_of
from mtrain.data.rows import NO_CLASS, DenseTargets, Target
from mtrain.data.storage import Storage
from mtrain.data.task import Task
from mtrain.errors import ShardError

FEWEST, MOST = 16, 1000  # images buffered for each task
FORMATS = ("jpg", "png")
VERIFY = "check the shards with `dpconvert verify`"


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


class StreamedTask(NamedTuple):
    """What a process must know of a task to read its samples.

    images: in its shards. target, scaling: of labels that are not one class, see mtrain.data.labels. dense: the masks
    and points to read.
    """

    name: str
    classes: int
    shards: Sequence[Shard]
    images: int
    target: Target = "class"
    scaling: Scaling = Scaling()
    dense: DenseTargets | None = None

    @staticmethod
    def of(task: Task, *, dense: bool = False) -> StreamedTask:
        """The training set of a task, with its masks and points if `dense`."""
        shards, images = train_shards(task), len(task.rows["train"])
        scaling = scaling_of(task)
        found = task.dense if dense else None
        return StreamedTask(task.name, task.num_classes, shards, images, task.target, scaling, found)

    def buffer(self, most: int) -> int:
        """Number of images to buffer, so that images of average size take at most `most` bytes."""
        each = sum(shard.size for shard in self.shards) / max(self.images, 1)
        return int(min(max(most / max(each, 1), FEWEST), MOST))


class Sample(NamedTuple):
    """One encoded image, its label, and what else is trained on.

    label: its class, NO_CLASS if the task has no classes for images; `targets` then holds a value for each output of
    the task. seg: its encoded mask, empty if none is read. content: its JSON, empty if nothing of it is read.
    """

    task: StreamedTask
    shard: str
    key: str
    label: int
    image: bytes
    targets: npt.NDArray[np.float32] | None = None
    seg: bytes = b""
    content: dict[str, Any] = {}

    def put(
        self, place: int, size: int, room: npt.NDArray[np.uint8], how: Interpolation, into: Batch, entry: int
    ) -> int:
        """Write the square of the image at `place` to the start of `room`, as augment.put_square, and its mask and
        points, if the task has some, to an entry of the batch. Returns the side of the square.

        Raises:
            ShardError: the image, its mask or its points cannot be read.
        """
        try:
            pixels = decode(self.image)
            side = put_square(pixels, size, place, room, how)
        except (ValueError, OSError) as error:
            raise self._unreadable("image", str(error)) from None
        try:
            self._put_dense((pixels.shape[0], pixels.shape[1]), place, into, entry)
        except WRONG as error:
            raise self._unreadable("the mask or points of", reason(error)) from None
        return side

    def _put_dense(self, shape: tuple[int, int], place: int, into: Batch, entry: int) -> None:
        of = self.task.dense
        if of is None:
            return
        mask = mask_of(self.seg, of, shape) if of.seg else None
        points = points_of(self.content, of) if of.points else no_points()
        DenseSample(mask, *points).put(shape, place, into, entry)

    def _unreadable(self, what: str, why: str) -> ShardError:
        return ShardError(f"{self.task.name}: cannot read {what} {self.key}: {why}", where=self.shard, remedy=VERIFY)


def train_shards(task: Task) -> list[Shard]:
    """The shards of a task that are trained on."""
    folder = task.url or str(task.folder)
    return [Shard(f"{folder}/{s.name}", s.size, s.sha256) for s in task.card.shards if s.split in task.trains]


def samples(task: StreamedTask, buffer: int, seed: str) -> Iterator[Sample]:
    """An endless iterator over the samples of a task, in an order determined by `seed`.

    buffer: number of images that are shuffled.

    Raises:
        ShardError: a shard is not a tar file, or not the one that its card describes; the shards hold no samples; a
            sample lacks an image, a label, or the mask or points of its task.
        RunError: a shard cannot be read.
    """
    order = random.Random(seed)
    used: set[str] = set()
    stages = (tar_file_expander, group_by_keys, lambda fields: _labelled(task, fields, used))
    in_turn = _open_in_turn(task.shards, order, used)
    pipeline = webdataset.DataPipeline(lambda: in_turn, *stages, shuffle(buffer, rng=order))
    try:
        yield from pipeline
    except DAMAGED as error:
        raise ShardError(
            f"{task.name}: a shard cannot be read: {error.args[0]}",
            where=task.shards[0].place.rpartition("/")[0],
            remedy=VERIFY,
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
                remedy=VERIFY,
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


def _labelled(task: StreamedTask, samples: Iterable[dict[str, Any]], used: set[str]) -> Iterator[Sample]:
    for fields in samples:
        used.add(fields["__url__"])
        yield _sample(task, fields)


def _sample(task: StreamedTask, fields: dict[str, Any]) -> Sample:
    image = next((fields[name] for name in FORMATS if name in fields), None)
    of = task.dense
    reads_json = task.target != "class" or (of is not None and bool(of.points))
    content = _content(fields.get("json", b"")) if reads_json else {}
    label, targets = _label(task, fields, content)
    if image is None or (label is None and targets is None):
        raise ShardError(
            f"{task.name}: sample {fields['__key__']} is not an image with a label",
            where=fields["__url__"],
            expected=f"jpg or png, and {_expected(task)}",
        )
    seg = fields.get("seg.png", b"") if of is not None and of.seg else b""
    return Sample(
        task, fields["__url__"], fields["__key__"], NO_CLASS if label is None else label, image, targets, seg, content
    )


def _label(
    task: StreamedTask, fields: dict[str, Any], content: dict[str, Any]
) -> tuple[int | None, npt.NDArray[np.float32] | None]:
    """The class of a sample, or its targets (mtrain.data.labels.targets_of); None for both if it has neither."""
    if task.target == "class":
        label = fields.get("cls", b"").decode("ascii", "replace").strip()
        return (int(label) if label.isdecimal() and int(label) < task.classes else None), None
    if task.target == "value":
        value = content.get("value")
        if not isinstance(value, int | float) or not np.isfinite(value):
            return None, None
        return None, task.scaling.standardized(np.array([value], np.float64)).astype(np.float32)
    labels = content.get("labels")
    if not isinstance(labels, list) or any(label not in range(task.classes) for label in labels):
        return None, None
    targets = np.zeros(task.classes, np.float32)
    targets[labels] = 1
    return None, targets


def _expected(task: StreamedTask) -> str:
    """What the label of a sample of this task is."""
    if task.target == "value":
        return "value in its JSON, a finite number"
    return f"{'cls' if task.target == 'class' else 'labels in its JSON,'} in 0..{task.classes - 1}"


def _content(data: bytes) -> dict[str, Any]:
    """The JSON of a sample; empty if there is none."""
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
