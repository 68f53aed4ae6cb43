"""Iterations of `mtrain fit` beside a bare loop: the same network with one head, on one batch that lies on the device.

    python benchmarks/step/compare.py                    a small network on the CPU
    python benchmarks/step/compare.py --device cuda      ResNet50 and DenseNet121, batches of 64 and 256
    python benchmarks/step/compare.py --shards DIR       on shards of one's own
    python benchmarks/step/compare.py --dense 5          5 of the 22 tasks have masks, and all batches are mixed

On CUDA, where `mtrain fit` replays its iterations as one CUDA graph, there are more rows: the bare loop as one CUDA
graph, which is the bound; `mtrain fit` on one batch that lies on the device, which shows what the loader costs; and
without a graph. `--compile` adds a row of `mtrain fit --compile`. `pieces.py` beside this shows where the time of an
iteration goes.

Ours reads and decodes images, augments and normalizes them, runs one head per task, scales gradients, gathers losses;
the bare loop does forwards, backwards and SGD, and nothing else. Both run in turns, in one process; the fastest turn
of each counts. The time of one paper run is that of 50 000 iterations at this pace.

With `--dense`, the bare loop is the same network, head and decoder: the maps of as many images of the batch as the
tasks with masks have of the tasks go through the decoder and a convolution, with one loss of classes and one of masks.

On the CPU it is processor time of that process on one core, which other work on the machine hardly changes; the loader
is taken to have a core of its own.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.model.dense.dense_network import CHANNELS, Decoder, enlarged
from mtrain.model.dense.maps import features_and_maps, levels_of
from mtrain.model.network import MultiHead, shared_network
from mtrain.model.recording import CudaGraph
from mtrain.train.reporting.meter import Meter
from mtrain.train.trainer import Training

sys.path.insert(0, str(Path(__file__).parents[1]))
from generated import make_masked_shards, make_shards

TASKS, IMAGES, PAPER = 22, 24, 50_000


class Ours:
    """The loop of `mtrain fit` after the warm-up, without validation and checkpoints."""

    def __init__(self, config: FitConfig, device: torch.device) -> None:
        pool = open_pool(config.shards)
        network = shared_network(config.backbone, "random")
        dense = {task.name: task.dense for task in pool.tasks if task.dense} if config.dense else {}
        model = MultiHead(network, {task.name: task.num_classes for task in pool.tasks}, dense, config.size)
        self.training = Training(config, pool, model.to(device).to(memory_format=torch.channels_last), device)
        if config.graph is not False and device.type == "cuda":
            self.training.recording, self.training.note = CudaGraph, say
        self.meter = Meter(self.training.tasks)
        if config.compile:
            begun = time.perf_counter()
            self.training.compile(say)
            say(f"compiled in {time.perf_counter() - begun:.0f} s")
        numbers = range(config.iterations)
        self.batches = self.meter.timed(self.training.iterations(numbers), self.training.waited)
        self.measured = self.batches

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.meter.add(self.training.step(*next(self.measured)), self.training.counts)
        self.wait = self.meter.take(self.training.iteration)["wait"]

    def close(self) -> None:
        """End the loader's processes."""
        self.batches.close()


class OursResident(Ours):
    """The same on one batch, over and over."""

    def __init__(self, config: FitConfig, device: torch.device) -> None:
        super().__init__(config, device)
        one = tuple(part._replace(counts=part.counts.clone()) for part in next(self.batches))
        self.measured = itertools.repeat(one)


class Bare:
    """What nobody can be faster than with this network, batch and optimizer."""

    def __init__(self, config: FitConfig, device: torch.device, classes: int) -> None:
        network = shared_network(config.backbone, "random")
        self.model = nn.Sequential(network, nn.Linear(network.num_features, classes))
        self.model = self.model.to(device).to(memory_format=torch.channels_last).train()
        self.device = device
        shape = (config.batch, 3, config.size, config.size)
        self.images = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
        self.labels = torch.randint(classes, (config.batch,), device=device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, fused=device.type == "cuda")

    def step(self) -> torch.Tensor:
        """One iteration. Returns its loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            loss = self.step()
        loss.item()  # the device has finished


class BareDense(Bare):
    """The same with the decoder on the maps of the first images: cross-entropy of two classes of pixels and Dice."""

    def __init__(self, config: FitConfig, device: torch.device, classes: int, masked: int) -> None:
        super().__init__(config, device, classes)
        self.network, self.head = self.model[0], self.model[1]
        self.levels = levels_of(self.network.body, config.size, self.network.name)
        self.decoder = Decoder(self.levels).to(device)
        self.convolution = nn.Conv2d(CHANNELS, 2, 3, padding=1).to(device)
        self.masks = torch.randint(2, (masked, config.size, config.size), device=device)
        self.truth = F.one_hot(self.masks, 2).permute(0, 3, 1, 2).float()
        own = [*self.model.parameters(), *self.decoder.parameters(), *self.convolution.parameters()]
        self.optimizer = torch.optim.SGD(own, lr=1e-4, momentum=0.9, fused=True)

    def step(self) -> torch.Tensor:
        """One iteration. Returns its loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features, maps = features_and_maps(self.network, self.network.body, self.levels, self.images)
            logits = self.head(features)
            pixels = self.convolution(self.decoder([level[: len(self.masks)] for level in maps]))
        pixels = enlarged(pixels.float(), self.masks.shape[-1])
        shares = pixels.softmax(1)
        overlap, whole = (shares * self.truth).sum((2, 3)), (shares + self.truth).sum((2, 3))
        loss = F.cross_entropy(logits.float(), self.labels)
        loss = loss + F.cross_entropy(pixels, self.masks) + (1 - 2 * overlap / whole).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class BareGraph:
    """A bare loop, recorded once and replayed."""

    def __init__(self, bare: Bare) -> None:
        side = torch.cuda.Stream(bare.device)
        side.wait_stream(torch.cuda.current_stream(bare.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                bare.step()
        torch.cuda.current_stream(bare.device).wait_stream(side)
        self.bare, self.graph = bare, torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = bare.step()

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.graph.replay()
        self.loss.item()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def seconds(run: Callable[[int], None], steps: int, clock: Callable[[], float]) -> float:
    """Of one step."""
    begun = clock()
    run(steps)
    return (clock() - begun) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--backbone", nargs="+")
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dense", type=int, default=0, metavar="TASKS", help="tasks with masks, of 22")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    size, workers = given.size or (224 if cuda else 128), given.workers or (8 if cuda else 1)
    steps, clock = given.steps or (50 if cuda else 4), time.perf_counter if cuda else time.process_time
    if not cuda:
        torch.set_num_threads(1)  # a core for the network, another for the loader
    torch.backends.cudnn.deterministic = True  # as a training has it
    device = torch.device(given.device)
    where = torch.cuda.get_device_name() if cuda else "CPU, one core"
    say(f"{where}; {size} px, {workers} loader processes, torch {torch.__version__}\n")
    say("| | batch | images/s | of the bare loop | waiting for data | 50 000 iterations, h |")
    say("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        shards = given.shards or make_shards(Path(folder), TASKS - given.dense, IMAGES)
        if given.dense and not given.shards:
            make_masked_shards(Path(folder), given.dense, IMAGES)
        for backbone in given.backbone or (["resnet50", "densenet121"] if cuda else ["resnet18"]):
            for batch in given.batch or ([64, 256] if cuda else [32]):
                config = FitConfig(
                    shards=str(shards),
                    backbone=backbone,
                    batch=batch,
                    size=size,
                    workers=workers,
                    warmup=0,
                    device=given.device,
                    dense=given.dense > 0,
                )
                compare(backbone, config, device, steps, given.rounds, clock, compiling=given.compile)


def compare(
    backbone: str,
    config: FitConfig,
    device: torch.device,
    steps: int,
    rounds: int,
    clock: Callable[[], float],
    *,
    compiling: bool = False,
) -> None:
    """Print a row for each loop. They run in turns; the fastest turn of each counts."""
    loops: dict[str, Ours | Bare | BareGraph] = {
        "bare loop": Bare(config, device, 81),
        "mtrain fit": Ours(config, device),
    }
    if config.dense:
        tasks = open_pool(config.shards).tasks
        masked = round(config.batch * sum(task.dense is not None for task in tasks) / len(tasks))
        classes = Ours(config.model_copy(update={"dense": False}), device)
        bare = BareDense(config, device, 81, masked)
        loops = {"bare loop": bare, "mtrain fit --dense": loops["mtrain fit"], "mtrain fit": classes}
        if device.type == "cuda":
            loops["bare loop, one CUDA graph"] = BareGraph(BareDense(config, device, 81, masked))
            loops["mtrain fit --dense --no-graph"] = Ours(config.model_copy(update={"graph": False}), device)
    elif device.type == "cuda":
        loops["bare loop, one CUDA graph"] = BareGraph(Bare(config, device, 81))
        loops["mtrain fit, one batch on the device"] = OursResident(config, device)
        loops["mtrain fit --no-graph"] = Ours(config.model_copy(update={"graph": False}), device)
    if compiling:
        name = "mtrain fit --dense --compile" if config.dense else "mtrain fit --compile"
        loops[name] = Ours(config.model_copy(update={"compile": True}), device)
    for loop in loops.values():
        loop(max(steps // 2, 5))
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(rounds):
        for name, loop in loops.items():
            best[name] = min(best[name], seconds(loop, steps, clock))
    for name, loop in loops.items():
        wait = f"{loop.wait:.1%}" if isinstance(loop, Ours) else ""
        share, hours = best["bare loop"] / best[name], best[name] * PAPER / 3600
        rate = f"{config.batch / best[name]:.0f}"
        say(f"| {backbone}, {name} | {config.batch} | {rate} | {share:.2f} | {wait} | {hours:.1f} |")
        if isinstance(loop, Ours):
            loop.close()


if __name__ == "__main__":
    main()
