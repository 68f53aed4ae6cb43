"""The shards of one split as a map-style PyTorch dataset, for torchvision, Lightning or your own training loop.

    from mtrain import ShardDataset
    train = ShardDataset("shards/Lung", "train", transform=v2.ToImage())
    image, label = train[0]

The dataset can be pickled. It works in loader processes with any start method: each opens the shards itself.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dpconvert.plural import counted
from mtrain.data.batches.images import Images
from mtrain.data.rows import Rows
from mtrain.data.task import OPEN, Permit, Task, open_task, with_test
from mtrain.errors import UsageError

Transform = Callable[[Any], Any]


class ShardDataset(Dataset[tuple[Any, Any]]):
    """Pairs (image, label) by number, in the order of the shards.

    An image is a PIL image, converted to RGB as `decode` does, or the result of `transform`. A label is an int; if
    images have any number of classes, an array of 0 and 1 for each class, float32; if they have a number, a float in
    the unit of the source.

    split: train or val; test only with `open_test=True`, because a test set is read once, after every choice is made.

    check_images: whether each process verifies the sha256 of each image when it first reads it. None: yes, unless
    $MTRAIN_CHECK_IMAGES is 0.

    classes: class names in label order. class_to_idx: their inverse. targets: the label of each image.
    groups: the group of each image, which splits never divide, as `<namespace>:<patient, slide or image>`.
    keys: the name of each image.

    Raises:
        UsageError: there is no such split, or the test set is requested without `open_test`.
        ShardError: the task is unfinished, files do not match its card, or an image cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str = "train",
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        *,
        open_test: bool = False,
        check_images: bool | None = None,
    ) -> None:
        if split not in (*OPEN, "test"):
            raise UsageError(f"no split {split!r}", remedy="use train, val or test")
        if split == "test" and not open_test:
            raise UsageError(
                "a test set is read once, at the end, after every choice is made",
                where=folder,
                remedy="to read it, give open_test=True",
            )
        if not Path(folder).is_dir():
            raise UsageError(
                "no such task folder", where=folder, remedy="give the folder of one task, such as shards/Lung"
            )
        task = open_task(Path(folder))
        task = with_test(task, Permit.LIBRARY) if split == "test" else task
        rows = task.rows[split]
        self.split, self.transform, self.target_transform = split, transform, target_transform
        self.classes = list(task.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets: list[Any] = _targets(task, rows)
        self.groups: list[str] = rows.group.tolist()
        self.keys: list[str] = rows.key.tolist()
        self._images = Images([(task, rows)], check=check_images)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        number = operator.index(index)
        number += len(self) if number < 0 else 0  # counted from the end
        if not 0 <= number < len(self):
            raise IndexError(f"no image {index}: this dataset has {counted(len(self), 'image')}")
        image: Any = Image.fromarray(self._images.decode(number))
        label: Any = self.targets[number]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def __repr__(self) -> str:
        (name,) = self._images.names
        images, classes = counted(len(self), "image"), counted(len(self.classes), "class")
        return f"ShardDataset({name}, {self.split}: {images} of {classes})"


def _targets(task: Task, rows: Rows) -> list[Any]:
    if rows.target is None:
        return list(rows.label.tolist())
    return list(rows.target[:, 0].tolist()) if task.target == "value" else list(rows.target.astype(np.float32))
