"""Where the time of an iteration of `mtrain fit` goes on a CUDA device: milliseconds of each piece, alone.

    python benchmarks/step/pieces.py                               ResNet50, a batch of 64
    python benchmarks/step/pieces.py --backbone densenet121 --batch 256

The device is synchronized at the ends of each piece, so the pieces take more together than the iteration, in which they
overlap. The median of the repetitions counts. Kernel launches are counted by torch's profiler: the launches of an
iteration are its calls of the CUDA runtime that start kernels or graphs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from compare import IMAGES, TASKS, Bare, BareGraph, Ours, make_shards, say

from mtrain.config import FitConfig
from mtrain.model.loss import head_scales, task_losses
from mtrain.train.trainer import Training

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
REPETITIONS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--shards", type=Path)
    given = parser.parse_args()
    torch.backends.cudnn.deterministic = True  # as a training has it
    device = torch.device("cuda")
    say(f"{torch.cuda.get_device_name()}; {given.backbone}, batch {given.batch}, torch {torch.__version__}\n")
    say("| piece | ms | kernel launches |")
    say("|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        shards = given.shards or make_shards(Path(folder), TASKS, IMAGES)
        config = FitConfig(
            shards=str(shards),
            backbone=given.backbone,
            batch=given.batch,
            size=given.size,
            workers=given.workers,
            warmup=0,
            device="cuda",
        )
        for graph in (False, True):
            ours = Ours(config.model_copy(update={"graph": graph}), device)
            ours(8)
            (recorded if graph else pieces)(ours)
            ours.close()
        bare(config, device)


def pieces(ours: Ours) -> None:
    """Rows of an iteration that is not recorded."""
    training = ours.training
    (batch,) = next(ours.measured)
    row("mtrain fit --no-graph: next batch", lambda: next(ours.measured))
    row("mtrain fit --no-graph: `Training.step` on a batch that is there", lambda: training.step(batch))
    row("of which resizing, flips, normalization", lambda: training.prepare(batch))
    images = training.prepare(batch)
    row("of which the network, forwards and backwards", lambda: network(training, images))
    row("of which heads and losses, forwards and backwards", heads(training, images, batch.labels, batch.counts))
    scales = head_scales(batch.counts.tolist()).to(training.device)
    network(training, images)
    row("of which the optimizer and the scaling of gradients", lambda: training.optimizer.step(scales))


def recorded(ours: Ours) -> None:
    """Rows of a recorded iteration."""
    training = ours.training
    (batch,) = next(ours.measured)
    found = training.recorded
    if found is None or not found.losses:
        say("| mtrain fit: not recorded | | |")
        return
    row("mtrain fit: next batch", lambda: next(ours.measured))
    row("mtrain fit: `Training.step` on a batch that is there", lambda: training.step(batch))
    scales = head_scales(batch.counts.tolist())
    row("of which copies into the inputs", lambda: found.inputs.fill(batch, scales))
    row("of which the replay", lambda: found.recording.replay(found.inputs.form))


def bare(config: FitConfig, device: torch.device) -> None:
    """Rows of the bare loop, with deterministic kernels as `mtrain fit` has them, and without."""
    for deterministic in (True, False):
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
        which = "" if deterministic else ", any kernels (cudnn.benchmark)"
        row(f"bare loop{which}", Bare(config, device, 81).step)
        row(f"bare loop, one CUDA graph{which}", BareGraph(Bare(config, device, 81)).graph.replay)


def network(training: Training, images: torch.Tensor) -> None:
    """The shared network, forwards and backwards."""
    training.model.shared.train()
    with torch.autocast("cuda", torch.bfloat16):
        features = training.model.shared(images)
    features.float().sum().backward()


def heads(training: Training, images: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor) -> Callable[[], None]:
    """Heads and losses on features that are there, forwards and backwards."""
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        features = training.model.shared(images)
    tasks = torch.repeat_interleave(counts).to(training.device)
    features.requires_grad_()

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = training.model.heads(features)
        losses = task_losses(logits, labels, tasks, training.model.heads, training.config.label_smoothing)
        (losses.sum() / training.config.batch).backward()

    return run


def row(name: str, run: Callable[[], object]) -> None:
    """Print the median duration of `run`, and its launches."""
    for _ in range(3):
        run()
    took = []
    for _ in range(REPETITIONS):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - begun)
    say(f"| {name} | {1000 * statistics.median(took):.2f} | {launches(run)} |")


def launches(run: Callable[[], object]) -> int:
    """Calls of the CUDA runtime that start kernels or graphs."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if event.key in LAUNCHES)


if __name__ == "__main__":
    main()
