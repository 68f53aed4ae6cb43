"""Cells an hour of `mtrain sweep` on this machine, with some numbers of jobs, and with as many as the program picks.

    python benchmarks/sweep/compare.py                   tiny cells on the CPU, about a minute on two cores
    python benchmarks/sweep/compare.py --device cuda     cells of 1 500 iterations, some ten minutes
    python benchmarks/sweep/compare.py --device cuda --jobs 1 --cells 4 --iterations 60    about a minute on a GPU

Each row runs the same cells from an empty folder of sweeps, in a new program: EfficientNet-Lite0 with random weights
on four generated tasks, and a transfer by svm to a fifth. First, the program measures how many cells to run at
once, as it does at the start of a sweep with enough work; the row itself reuses that record.

The columns: the share of the time before the first cell begins; the seconds of a cell that are not iterations (making
networks and loaders, adaptation of batch normalization, checkpoints, svm); and the mean utilization that nvidia-smi
reports, where it is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dpconvert.runtime.processes import processors
from dpconvert.runtime.progress import Reporter
from mtrain.sweep import at_once
from mtrain.sweep.command import SweepRequest, open_sweep
from mtrain.sweep.concurrency.capacity import JobLimits
from mtrain.sweep.engines.local_engine import cards_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from generated import make_shards

QUIET = Reporter(quiet=True)
TASKS, IMAGES, SIDES = 5, 64, (96, 160)  # the last task is left out
SPLIT = "share = [0.7, 0.2, 0.1]"
SWEEP = """
shards = "{shards}"
leave_out = ["Task{last:02}"]
seeds = [0]

[grid]
backbone = ["efficientnet_lite0"]
lr = {rates}
tau = [1]
warmup = [false]

[fit]
weights = "random"
iterations = {iterations}
batch = {batch}
size = {size}
workers = {workers}
device = "{device}"
"""


@dataclass(frozen=True)
class Row:
    """What one run of the sweep took. begun: seconds until its first cell began; beyond: mean over the cells."""

    jobs: str
    cells: int
    seconds: float
    begun: float
    beyond: float
    used: float | None

    def __str__(self) -> str:
        used = "" if self.used is None else f"{self.used:.0f}%"
        hourly = 3600 * self.cells / self.seconds
        start = f"{self.begun / self.seconds:.0%}"
        return (
            f"| {self.jobs} | {self.cells} | {self.seconds:.1f} | {hourly:.0f} | {start} | {self.beyond:.2f} | {used} |"
        )


def run(file: Path, folder: Path, jobs: int | None, label: str, batch: int) -> Row:
    """Run the sweep in a new program, in this folder of sweeps."""
    command = [sys.executable, "-m", "mtrain", "sweep", str(file), "--sweeps", str(folder), "--json"]
    command += [] if jobs is None else ["--jobs", str(jobs)]
    begun, clock = time.time(), time.monotonic()
    with utilization() as used:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - clock
    results = {path: json.loads(path.read_text()) for path in folder.glob("*/cells/*.json")}
    starts = [path.stat().st_mtime - result["seconds"] for path, result in results.items()]
    beyond = [result["seconds"] - iterating(path.parents[1] / result["run"], batch) for path, result in results.items()]
    mean = sum(used) / len(used) if used else None
    return Row(label, len(results), seconds, min(starts) - begun, sum(beyond) / len(beyond), mean)


def measure(file: Path, sweeps: Path) -> str:
    """Measure how many cells run at once on a GPU, however little work there is, and record it for this sweep."""
    begun = time.monotonic()
    opened = open_sweep(SweepRequest(str(file), sweeps), QUIET)
    cards = cards_of(opened.cells)
    if not cards.cards:
        return "1, as always on the CPU"
    cells = len(opened.cells)
    limits = JobLimits(cells, 1e12, processors() // len(cards.cards), opened.cells[0].config.workers)
    found = at_once.measured(opened.store, opened.cells[0], cards, limits, QUIET)
    return f"{found} (measured in {time.monotonic() - begun:.1f} s: {found and found.at_once} at once)"


def iterating(run: Path, batch: int) -> float:
    """Seconds that the iterations of a run took, by its log."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [event for event in events if event.get("event") == "step"]
    before = [0, *(event["iteration"] for event in steps)]
    return sum(
        (event["iteration"] - last) * batch / event["images_per_s"] for event, last in zip(steps, before, strict=False)
    )


@contextmanager
def utilization() -> Iterator[list[float]]:
    """A list that receives the utilization of the GPUs in percent at the end of the block, second by second."""
    found: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield found
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            yield found
        finally:
            watching.terminate()
            text = watching.communicate()[0]
            found += [float(line) for line in text.split() if line.replace(".", "").isdigit()]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, nargs="*")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--shards", type=Path, help="folder of shards that an earlier call made")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    defaults = {
        "jobs": [1, 2, 4, 8] if cuda else [1, 2],
        "cells": 16 if cuda else 2,
        "iterations": 1500 if cuda else 4,
        "batch": 64 if cuda else 8,
        "size": 96 if cuda else 32,
        "workers": 2 if cuda else 0,
    }
    return argparse.Namespace(**defaults | {name: value for name, value in vars(given).items() if value is not None})


def main() -> None:
    given = options()
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    say(
        f"{where}; efficientnet_lite0, {given.size} px, batch {given.batch}, {given.iterations} iterations a cell, "
        f"{given.workers} loader processes, torch {torch.__version__}\n"
    )
    rates = [1e-4 * (number + 1) for number in range(given.cells)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = getattr(given, "shards", None) or make_shards(folder, TASKS, IMAGES, SIDES, SPLIT)
        file = folder / "cells.toml"
        settings = {**vars(given), "shards": shards, "last": TASKS - 1, "rates": rates}
        file.write_text(SWEEP.format(**settings))
        say(f"picked: {measure(file, folder / 'picked')}\n")
        say("| jobs | cells | seconds | cells/hour | start-up | a cell beyond its iterations, s | GPU used |")
        say("|---|---:|---:|---:|---:|---:|---:|")
        for jobs in given.jobs:
            say(str(run(file, folder / f"jobs-{jobs}", jobs, str(jobs), given.batch)))
        say(str(run(file, folder / "picked", None, "as picked", given.batch)))


if __name__ == "__main__":
    main()
