"""Features from shards, as svm, kNN and probes take them, beside a bare inference loop with the same network.

    python benchmarks/features/compare.py                    a small network on the CPU
    python benchmarks/features/compare.py --device cuda      ResNet50 and DenseNet121 at 224 px, in bfloat16
    python benchmarks/features/compare.py --workers 8 --images 8192 --rounds 2

Ours reads, verifies and decodes images in worker processes, crops, resizes and normalizes them, runs the network and
brings the features back; its time includes the start of the workers. The bare loop normalizes one batch of uint8
images that lies on the device and runs the network on it, in the same precision and with as many images at once;
nothing comes back. Both run in turns, in one process; the fastest turn of each counts. "Without the start" counts from
the first batch that the network is given: workers have then started, and memory is page-locked. "Second half" counts
from the middle of the batches: on CUDA, the network is then replayed as a CUDA graph, and with at least 256 images for
each loader process, no batch was made before the first one was given to the network. Of decoding alone, both count from
the moment at which a batch is complete, without that batch. "Waiting" is the share of the second half for which the
main process waited for the loader.

On the CPU it is processor time of that process on one core; the loader is taken to have a core of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import OrderedBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.pool import open_pool
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.model.inference import LOADED, Inference, outputs
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.model.recorded_network import repeated

sys.path.insert(0, str(Path(__file__).parents[1]))
from generated import make_shards

Clock = Callable[[], float]
Sample = list[tuple[Task, Rows]]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass
class Pace:
    """The best of some turns, in images per second."""

    whole: float = 0.0
    steady: float = 0.0  # without the start
    half: float = 0.0  # the second half
    waiting: float = 0.0  # share of it

    def add(self, images: int, begun: float, started: float, ended: float) -> None:
        """Count a turn."""
        self.whole = max(self.whole, images / (ended - begun))
        self.steady = max(self.steady, images / (ended - started))

    def add_half(self, images: int, begun: float, ended: float, waited: float) -> None:
        """Count the second half of a turn."""
        if images / (ended - begun) > self.half:
            self.half, self.waiting = images / (ended - begun), waited / (ended - begun)


class Ours:
    """What `mtrain.model.frozen.computed` does, without its progress bar."""

    def __init__(self, network: SharedNetwork, sample: Sample, size: int, workers: int) -> None:
        self.network, self.sample, self.size, self.workers = network, sample, size, workers
        self.last = 0  # images of the last batch

    def __call__(self, inference: Inference, clock: Clock, pace: Pace) -> None:
        starts: list[tuple[float, int, float]] = []  # of each batch: when, images before it, seconds of waiting
        network = repeated(lambda images: self.network(self.network.normalize(images)), inference)

        def features(images: torch.Tensor) -> torch.Tensor:
            before = starts[-1][1] + self.last if starts else 0
            self.last = len(images)
            starts.append((clock(), before, sum(waits)))
            return network(images)

        begun, done, how = clock(), 0, self.network.interpolation
        dataset = OrderedBatches(Images(self.sample, how=how), self.size, LOADED)
        found = np.empty((len(dataset.images), self.network.num_features), np.float32)
        with loader_waits(clock) as waits:
            for some in outputs(features, dataset, inference, workers=self.workers, how=how):
                found[done : done + len(some)] = some
                done += len(some)
        ended, (middle, before, waited) = clock(), starts[len(starts) // 2]
        pace.add(done, begun, starts[0][0], ended)
        pace.add_half(done - before, middle, ended, sum(waits) - waited)


@contextmanager
def loader_waits(clock: Clock) -> Iterator[list[float]]:
    """A list that receives the seconds for which the main process waits for each batch of the loader."""
    waits: list[float] = []

    def timed(*given: object, **named: object) -> Iterator[Batch]:
        ready = batches(*given, **named)
        while True:
            begun = clock()
            batch = next(ready, None)
            waits.append(clock() - begun)
            if batch is None:
                return
            yield batch

    with patch("mtrain.data.batches.loader.batches", timed):
        yield waits


class Bare:
    """The network on one batch that lies on the device, again and again."""

    def __init__(self, network: SharedNetwork, size: int, batch: int, inference: Inference) -> None:
        self.network = network
        images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=inference.device)
        self.images = images.to(memory_format=torch.channels_last)

    def __call__(self, inference: Inference, clock: Clock, pace: Pace, images: int) -> None:
        count, begun = max(images // len(self.images), 2), clock()
        with inference.running():
            for _ in range(count):
                features = self.network(self.network.normalize(self.images))
            features.float().sum().item()  # the device has finished
        pace.add(count * len(self.images), begun, begun, clock())


def decoded(sample: Sample, size: int, workers: int) -> Pace:
    """The pace of the loader alone: of batches as they leave the workers."""
    dataset, pace, begun = OrderedBatches(Images(sample), size, LOADED), Pace(), time.perf_counter()
    loaded = batches(dataset, range(len(dataset)), workers=workers, lasting=1)
    sizes, ends = zip(*((len(batch.labels), time.perf_counter()) for batch in loaded), strict=True)
    middle, last = len(ends) // 2, ends[-1]
    pace.whole = sum(sizes) / (last - begun)
    if len(ends) > 1:  # a batch is made before the moment at which it is complete
        pace.steady = sum(sizes[1:]) / (last - ends[0])
    if middle + 1 < len(ends):
        pace.half = sum(sizes[middle + 1 :]) / (last - ends[middle])
    return pace


def compare(name: str, sample: Sample, inference: Inference, given: argparse.Namespace) -> None:
    """Print a row for the bare loop and one for ours."""
    clock = time.perf_counter if inference.device.type == "cuda" else time.process_time
    network = shared_network(name, "random").eval().to(inference.device).to(memory_format=torch.channels_last)
    batch = min(LOADED * inference.joined(LOADED), given.images)
    ours, bare = Ours(network, sample, given.size, given.workers), Bare(network, given.size, batch, inference)
    bare(inference, clock, Pace(), 4 * batch)  # libraries choose and load their kernels
    bound, pace = Pace(), Pace()
    for _ in range(given.rounds):
        bare(inference, clock, bound, given.images)
        ours(inference, clock, pace)
    rates = [f"{rate:.0f} | {rate / bound.whole:.2f}" for rate in (pace.whole, pace.steady, pace.half)]
    say(f"| {name}, bare loop | {batch} | {bound.whole:.0f} | 1 | | | | | |")
    say(f"| {name}, features | {batch} | {' | '.join(rates)} | {pace.waiting:.1%} |")


def sample_of(shards: Path, images: int) -> Sample:
    """This many images of all sets of all tasks; each is repeated until they are enough."""
    found = []
    tasks = open_pool(shards).tasks
    for number, task in enumerate(tasks):
        rows = Rows.joined([rows for rows in task.rows.values() if len(rows)])
        start, end = (images * one // len(tasks) for one in (number, number + 1))
        found.append((task, rows.take(np.resize(np.arange(len(rows)), end - start))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--backbone", nargs="+")
    parser.add_argument("--size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    cuda = given.device == "cuda"
    given.size, given.workers = given.size or (224 if cuda else 128), given.workers or (14 if cuda else 1)
    given.images = given.images or (16384 if cuda else 256)
    if not cuda:
        torch.set_num_threads(1)  # a core for the network, another for the loader
    inference = Inference.on(torch.device(given.device))
    where = torch.cuda.get_device_name() if cuda else "CPU, one core"
    precision = str(inference.dtype).removeprefix("torch.")
    say(
        f"{where}; {precision}, {given.size} px, {given.images} images, {given.workers} loader processes, "
        f"torch {torch.__version__}\n"
    )
    say("| | batch | images/s | share | without the start | share | second half | share | waiting |")
    say("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_of(given.shards or make_shards(Path(folder), 1, 512), given.images)
        for name in given.backbone or (["resnet50", "densenet121"] if cuda else ["resnet18"]):
            compare(name, sample, inference, given)
        pace = decoded(sample, given.size, given.workers)
        steady, half = (f"{rate:.0f}" if rate else "" for rate in (pace.steady, pace.half))  # of a single batch: none
        say(f"| decoding alone | {LOADED} | {pace.whole:.0f} | | {steady} | | {half} | | |")


if __name__ == "__main__":
    main()
