"""What an image costs between a shard and a float batch, step by step, in one process: microseconds.

    python benchmarks/loader/parts.py

Images as in compare.py, in the batches that a training draws. Each step runs on what the one before left in memory,
image by image, as the loader and a training on the CPU do; the memory of four batches is used in turn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from compare import prepare
from loaders import BATCH, MEAN, SIZE, STD

from dpconvert.image.decode import decode
from mtrain.data.batches.augment import normalize, put_square, resized, room_for_squares
from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.pool import open_pool
from mtrain.data.sampling import Stream

STEPS = ("read", "decode", "square into the batch", "resize and flip", "normalize")
BATCHES, PLACES = 100, 4


def measure(shards: Path) -> list[float]:
    """Seconds that each step took for all batches."""
    images = Images([(task, task.rows["train"]) for task in open_pool(shards).tasks])
    drawn = TrainingBatches(images, SIZE, 0, range(BATCH), Stream.TRAIN)
    rooms = [torch.zeros(room_for_squares(BATCH, SIZE), dtype=torch.uint8) for _ in range(PLACES)]
    floats = torch.zeros((BATCH, 3, SIZE, SIZE)).to(memory_format=torch.channels_last)
    spent = [0.0] * len(STEPS)
    for number in range(BATCHES):
        batch, room, used = drawn.drawn(number), rooms[number % PLACES], 0
        sides = torch.zeros(BATCH, dtype=torch.int64)
        for slot, (index, place) in enumerate(zip(batch.index.tolist(), batch.place.tolist(), strict=True)):
            times = [time.perf_counter()]
            data = images.read(index)
            times.append(time.perf_counter())
            pixels = decode(data)
            times.append(time.perf_counter())
            sides[slot] = side = put_square(pixels, SIZE, place, room.numpy()[used:])
            times.append(time.perf_counter())
            used += 3 * side * side
            spent[:3] = [total + end - start for total, start, end in zip(spent, times, times[1:], strict=False)]
        times = [time.perf_counter()]
        uint8 = resized(room[:used], sides, SIZE, torch.from_numpy(batch.flips))
        times.append(time.perf_counter())
        normalize(uint8, MEAN, STD, out=floats)
        times.append(time.perf_counter())
        spent[3:] = [total + end - start for total, start, end in zip(spent[3:], times, times[1:], strict=False)]
    return spent


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), None, None)
        spent = measure(Path(folder) / "shards")
    for step, seconds in zip((*STEPS, "together"), (*spent, sum(spent)), strict=True):
        sys.stdout.write(f"{step:24}{seconds / BATCHES / BATCH * 1e6:8.0f}\n")


if __name__ == "__main__":
    main()
