"""What it costs to compare each image with the sha256 of the index when it is first read: `python check.py SHARDS`.

Images are read in a random order, decoded and cropped as for a training, in one process, with the check and without;
the better of several passes counts. `--synthetic` draws a pool first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mtrain.data.batches.augment import CENTRE
from mtrain.data.batches.images import Images
from mtrain.data.pool import Pool, open_pool

PASSES = 3


def seconds(pool: Pool, number: int, *, check: bool) -> float:
    """For the first `number` images of a random order."""
    images = Images([(task, task.rows["train"]) for task in pool.tasks], check=check)
    order = np.random.default_rng(0).permutation(len(images))[:number].tolist()
    room = np.empty(3 * 1024 * 1024, np.uint8)
    begun = time.perf_counter()
    for index in order:
        images.put(index, CENTRE, 224, room)
    return (time.perf_counter() - begun) / len(order)


def synthetic(folder: Path) -> Path:
    """JPEGs and PNGs of 256 pixels, as the sources' patches are."""
    from tests.mtrain.pools import write_task

    for name, kind in (("Jpeg", "jpg"), ("Png", "png")):
        write_task(folder / name, sizes={"train": 400}, shape=(256, 256), image_format=kind, shard_samples=200)
    return folder


def main() -> None:
    """A line a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--synthetic", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        whole = open_pool(synthetic(Path(place)) if args.synthetic else args.shards)
        for task in whole.tasks:
            pool = Pool((task,), "")
            seconds(pool, args.images, check=False)  # the files are in memory from now on
            plain, checked = (
                min(seconds(pool, args.images, check=check) for _ in range(PASSES)) for check in (False, True)
            )
            size = int(task.rows["train"].length.mean())
            sys.stdout.write(
                f"{task.name}: {size} bytes an image, {1e3 * plain:.3f} ms without the check, {1e3 * checked:.3f} ms "
                f"with it ({(checked - plain) / plain:+.1%})\n"
            )


if __name__ == "__main__":
    main()
