"""Images a second that leave the loader's processes, with their masks and without, from the same shards.

    python benchmarks/loader/masks.py                      batches of 64 at 224 px, 1 and 2 processes
    python benchmarks/loader/masks.py --workers 4 8

Four tasks of 300 JPEGs of 256 px with masks, drawn task by task with equal chance. With masks, every image of a batch
brings one: it is read, decoded, cropped as its image and resized. Both run in turns; the fastest turn of each counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.pool import open_pool
from mtrain.data.sampling import Stream
from mtrain.data.targets import MasksAndPoints

sys.path.insert(0, str(Path(__file__).parents[1]))
from generated import make_masked_shards

SIZE, BATCH, WARM = 224, 64, 4
TASKS, IMAGES = 4, 300


def rate(shards: Path, workers: int, counted: int, *, masks: bool) -> float:
    """Images a second of one turn."""
    parts = [(task, task.rows["train"]) for task in open_pool(str(shards)).tasks]
    targets = MasksAndPoints(parts) if masks else None
    dataset = TrainingBatches(Images(parts), SIZE, 0, range(BATCH), Stream.TRAIN, targets=targets)
    made = batches(dataset, range(WARM + counted), workers=workers, lasting=1)
    for _ in range(WARM):
        next(made)
    begun = time.perf_counter()
    images = sum(len(next(made).labels) for _ in range(counted))
    taken = time.perf_counter() - begun
    made.close()
    return images / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sys.stdout.write("| processes | without masks, images/s | with masks, images/s | share |\n|---:|---:|---:|---:|\n")
    with tempfile.TemporaryDirectory() as folder:
        shards = make_masked_shards(Path(folder), TASKS, IMAGES)
        for workers in given.workers:
            best = {False: 0.0, True: 0.0}
            for _ in range(given.rounds):
                for masks, found in best.items():
                    best[masks] = max(found, rate(shards, workers, given.batches, masks=masks))
            without, having = best[False], best[True]
            sys.stdout.write(f"| {workers} | {without:.0f} | {having:.0f} | {having / without:.2f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
