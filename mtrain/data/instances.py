"""The instances of samples, read from their JSON and resized with their images, for scoring."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dpconvert.pixel_runs import numbered
from mtrain.data.batches.augment import CENTRE, put_mask
from mtrain.data.batches.images import ShardFiles
from mtrain.data.metadata import json_headers, read_json
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.errors import ShardError

Instances = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]


def instances_of(task: Task, rows: Rows, size: int) -> Iterator[Instances]:
    """The instances in the central square of each image, in the order of `rows`: their numbers (size, size) with 0 for
    none, each the number of the stored pixel that holds the centre; and the class of each number, from 1 on.

    Raises:
        ShardError: the JSON of a sample does not state them as the format specifies.
    """
    assert task.dense is not None
    files, headers, classes = ShardFiles(task.files()), json_headers(rows), len(task.dense.instances)
    for row, (shard, header) in enumerate(zip(rows.shard.tolist(), headers.tolist(), strict=True)):
        try:
            content = read_json(files, shard, header)
            numbers, of = numbered(content), np.array([one[-1] for one in content["instances"]], np.int64)
            if ((of < 0) | (of >= classes)).any():
                raise ValueError(f"its instances are not of a class in 0..{classes - 1}")
        except (ValueError, OSError, KeyError, TypeError, IndexError) as error:
            reason = f"its JSON has no {error}" if isinstance(error, KeyError) else error
            raise ShardError(
                f"{task.name}: cannot read the instances of {rows.key[row]}: {reason}",
                where=files.name(shard),
                remedy=files.remedy(shard),
            ) from None
        put_mask(numbers, CENTRE, room := np.empty((size, size), np.int32))
        yield room, of
