"""Iterations of `mtrain fit` beside a bare loop: the same network with one head, on one batch that lies on the device.

    python benchmarks/step/compare.py                    a small network on the CPU
    python benchmarks/step/compare.py --device cuda      ResNet50 and DenseNet121, batches of 64 and 256
    python benchmarks/step/compare.py --shards DIR       on shards of one's own

Ours reads and decodes images, augments and normalizes them, runs a head a task, scales gradients and gathers losses;
the bare loop does forwards, backwards and SGD, and nothing else. Both run in turns, in one process; the fastest turn
of each counts. The time of one paper run is that of 50 000 iterations at this pace.

On the CPU it is processor time of that process on one core, which other work on the machine hardly changes; the loader
is taken to have a core of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dpconvert.cli import group as dpconvert
from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.model.network import MultiHead, shared_network
from mtrain.train.meter import Meter
from mtrain.train.trainer import Training

TASKS, IMAGES, PAPER = 22, 24, 50_000
MANIFEST = """
task = "{task}"
shape = "folders"
classes = ["a", "b"]
[files.images]
pattern = '(?P<class>[ab])/(?P<name>[0-9]+)\\.jpg$'
[split.strict]
"""


def make_shards(folder: Path) -> Path:
    """As many tasks as the paper has, few images each, of 224 to 320 px."""
    random = np.random.default_rng(0)
    for task in (f"Task{number:02}" for number in range(TASKS)):
        for number in range(IMAGES):
            side = int(random.integers(224, 321))
            coarse = random.normal(size=(side // 16, side // 16, 3)) * [25, 45, 20] + [205, 150, 190]
            path = folder / "pictures" / task / "ab"[number % 2] / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        manifest = folder / f"{task}.toml"
        manifest.write_text(MANIFEST.format(task=task))
        words = [
            str(manifest),
            "--source",
            str(folder / "pictures" / task),
            "--out",
            str(folder / "shards"),
            "-q",
            "--workers",
            "1",
        ]
        with contextlib.redirect_stdout(sys.stderr):
            dpconvert.main(words, standalone_mode=False)
    return folder / "shards"


class Ours:
    """The loop of `mtrain fit` after the warm-up, without validation and checkpoints."""

    def __init__(self, config: FitConfig, device: torch.device) -> None:
        pool = open_pool(config.shards)
        network = shared_network(config.backbone, "random")
        model = MultiHead(network, {task.name: task.num_classes for task in pool.tasks})
        self.training = Training(config, pool, model.to(device).to(memory_format=torch.channels_last), device)
        self.meter = Meter(self.training.tasks)
        self.batches = self.meter.timed(self.training.iterations(range(config.iterations)))

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.meter.add(self.training.step(*next(self.batches)), self.training.counts)
        self.wait = self.meter.take(self.training.iteration)["wait"]


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

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = self.model(self.images)
            loss = F.cross_entropy(logits.float(), self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()  # the device has finished


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
    say("| | batch | ours, images/s | bare, images/s | share | waiting for data | 50 000 iterations, h |")
    say("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        shards = given.shards or make_shards(Path(folder))
        for backbone in given.backbone or (["resnet50", "densenet121"] if cuda else ["resnet18"]):
            for batch in given.batch or ([64, 256] if cuda else [32]):
                config = FitConfig(
                    shards=str(shards), backbone=backbone, batch=batch, size=size, workers=workers, warmup=0,
                    device=given.device,
                )  # fmt: skip
                ours, bare = Ours(config, device), Bare(config, device, classes=81)
                for run in (ours, bare):
                    run(max(steps // 2, 2))
                turns = [
                    (seconds(ours, steps, clock), seconds(bare, steps, clock), ours.wait) for _ in range(given.rounds)
                ]
                mine, bound = min(turn[0] for turn in turns), min(turn[1] for turn in turns)
                wait = min(turn[2] for turn in turns)
                say(
                    f"| {backbone} | {batch} | {batch / mine:.0f} | {batch / bound:.0f} | {bound / mine:.2f} "
                    f"| {wait:.1%} | {mine * PAPER / 3600:.1f} |"
                )
                ours.batches.close()  # ends the loader's processes
                del ours, bare, run


if __name__ == "__main__":
    main()
