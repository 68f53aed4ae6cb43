"""The shards of one split as a map-style PyTorch dataset: for torchvision, Lightning and any loop of one's own.

    from mtrain import ShardDataset
    train = ShardDataset("shards/Lung", "train", transform=v2.ToImage())
    image, label = train[0]

It pickles, and works in loader processes however they are started: each opens the shards anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from dpconvert.plural import counted
from mtrain.data.images import Images
from mtrain.data.pool import OPEN, Permit, open_task, with_test
from mtrain.errors import UsageError

Transform = Callable[[Any], Any]


class ShardDataset(Dataset[tuple[Any, Any]]):
    """(picture, label) by number, in the order of the shards.

    A picture is a PIL image, RGB by the rules of `decode`, or what `transform` makes of it; a label is an int.

    split: train or val; test only with `open_test=True`: a test set is looked at once, after every choice is made.

    check_images: whether each process compares an image with the sha256 of the index when it reads it first; None:
    unless $MTRAIN_CHECK_IMAGES is 0.

    classes: names in label order. class_to_idx: their inverse. targets: the label of each picture.
    groups: of each picture what may not be divided, as `<namespace>:<patient, slide or image>`. keys: its name.

    Raises:
        UsageError: no such split, or the test set without `open_test`.
        ShardError: an unfinished task, files that do not match their card, a picture that cannot be read.
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
                "the test set is for the end, after every choice has been made", where=folder,
                remedy="give open_test=True to read it",
            )  # fmt: skip
        task = open_task(Path(folder))
        task = with_test(task, Permit.LIBRARY) if split == "test" else task
        rows = task.rows[split]
        self.split, self.transform, self.target_transform = split, transform, target_transform
        self.classes = list(task.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets: list[int] = rows.label.tolist()
        self.groups: list[str] = rows.group.tolist()
        self.keys: list[str] = rows.key.tolist()
        self._images = Images([(task, rows)], check=check_images)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        number = range(len(self))[index]  # negative numbers count from the end, others raise IndexError
        image: Any = Image.fromarray(self._images.decode(number))
        label: Any = self.targets[number]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def __repr__(self) -> str:
        (name,) = self._images.names
        pictures, classes = counted(len(self), "picture"), counted(len(self.classes), "class")
        return f"ShardDataset({name}, {self.split}: {pictures} of {classes})"
