"""Estimate the work of a sweep, the share saved by sharing, and the time it takes here, from a few timed steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.pool import Pool
from mtrain.model.devices import find_device
from mtrain.model.network import MultiHead, shared_network
from mtrain.sweep.cells import Cell
from mtrain.sweep.left_out import LeftOut
from mtrain.sweep.spec import Transfer
from mtrain.sweep.store import Store
from mtrain.train.trainer import Training

WORK = {  # to score a cell, by transfer mode
    "svm": "features {} (the SVM itself is not counted)",
    "dense": "scoring {} (the decoder itself is not counted)",
}
Kind = tuple[str, bool, str]  # what the pace of a cell depends on
STEPS, SECONDS = 50, 8.0  # a pace is timed over this many steps, or for this many seconds if that is shorter


@dataclass(frozen=True)
class Pace:
    """Seconds per iteration with and without gradients of the shared network, seconds per image of features; sizes."""

    step: float
    warm: float
    image: float
    weights_bytes: int
    features: int


@dataclass(frozen=True)
class Estimate:
    """Counts of cells and warm-ups, and the hours left, with shared warm-ups and with one warm-up per cell."""

    cells: int
    finished: int
    begun: int
    warmups: int
    warmups_finished: int
    warmups_alone: int
    hours: float
    hours_warmups: float
    hours_features: float
    hours_alone: float
    disk_gb: float
    mode: str = "svm"

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self, sweep: str) -> list[str]:
        """Return the estimate as lines of text."""
        if self.cells == self.finished:
            return [f"{sweep}: {counted(self.cells, 'cell')}, all finished"]
        begun = f" ({self.begun} of them started)" if self.begun else ""
        cells, work = counted(self.cells, "cell"), WORK[self.mode].format(span(self.hours_features))
        head = f"{sweep}: {cells}, {self.finished} finished, {self.cells - self.finished} to run{begun}"
        disk = f"disk: {self.disk_gb:.1f} GB more of weights and features"
        if not self.warmups:
            return [head, f"estimate: {span(self.hours)} on one device like this, of which {work}", disk]
        saved = self.hours_alone - self.hours
        share = saved / self.hours_alone if self.hours_alone else 0.0
        return [
            head,
            f"shared: {counted(self.warmups, 'warm-up')} for {counted(self.warmups_alone, 'cell')}, "
            f"{self.warmups_finished} finished",
            f"estimate: {span(self.hours)} on one device like this, of which warm-ups {span(self.hours_warmups)} and "
            f"{work}",
            f"every cell with its own warm-up: {span(self.hours_alone)}; sharing saves {span(saved)} ({share:.1%})",
            disk,
        ]


def plan(store: Store, cells: Sequence[Cell], sets: Sequence[LeftOut], paces: Mapping[Kind, Pace]) -> Estimate:
    """Estimate what is missing and how long it takes at these paces (by kind of cell)."""
    missing = [cell for cell in cells if not store.has(cell)]
    images = {
        left.names: sum(len(task.rows[split]) for task in left.tasks for split in ("train", "val")) for left in sets
    }
    passes = {left.names: images_of(left, cells[0].transfer) for left in sets} if cells else {}
    begun = {cell.training: store.run(cell.training).state()[1] for cell in missing}
    warmups = {cell.warmup: cell for cell in cells if cell.warmup}
    finished = {digest for digest in warmups if digest and store.run(digest).state()[0] == "finished"}
    needed = {cell.warmup: cell for cell in missing if cell.warmup and not begun[cell.training]}

    def pace(cell: Cell) -> Pace:
        return paces[kind_of(cell)]

    warm = sum(cell.config.warmup * pace(cell).warm for digest, cell in needed.items() if digest not in finished)
    features = sum(passes[cell.tasks] * pace(cell).image for cell in missing)
    trained = sum(_left(cell, begun[cell.training]) * pace(cell).step for cell in missing)
    own = sum(cell.config.warmup * pace(cell).warm for cell in missing if not begun[cell.training])
    held = {names: 4 * number if cells[0].transfer.mode == "svm" else 0 for names, number in images.items()}
    kept = sum(pace(cell).weights_bytes + held[cell.tasks] * pace(cell).features for cell in missing)
    return Estimate(
        cells=len(cells),
        finished=len(cells) - len(missing),
        begun=sum(done > 0 for done in begun.values()),
        warmups=len(warmups),
        warmups_finished=len(finished),
        warmups_alone=sum(cell.warmup is not None for cell in cells),
        hours=(warm + features + trained) / 3600,
        hours_warmups=warm / 3600,
        hours_features=features / 3600,
        hours_alone=(own + features + trained) / 3600,
        disk_gb=kept / 1e9,
        mode=cells[0].transfer.mode if cells else "svm",
    )


def images_of(left: LeftOut, transfer: Transfer) -> int:
    """Return the number of images that the network processes to score a cell."""
    rows = [task.rows for task in left.tasks]
    trained = (len(one["train"]) if transfer.mode == "svm" else transfer.steps * transfer.batch for one in rows)
    return sum(trained) + sum(len(one["val"]) for one in rows)


def kind_of(cell: Cell) -> Kind:
    """Return the network of a cell, whether it trains on masks and points, and how it combines gradients."""
    return cell.config.backbone, cell.config.dense, cell.config.gradients


def measured(cells: Iterable[Cell], sets: Sequence[LeftOut], report: Reporter) -> dict[Kind, Pace]:
    """Time a few iterations of each kind of cells."""
    pools = {left.names: left.pool for left in sets}
    first = {kind_of(cell): cell for cell in reversed(list(cells))}
    return {kind: measure(cell.config, pools[cell.tasks], report) for kind, cell in sorted(first.items())}


def span(hours: float) -> str:
    """Format hours: 0.02 -> '72 s', 1.5 -> '90 min', 30 -> '30.0 h', 19876 -> '19 876 h'."""
    if hours < 1 / 30:
        return f"{3600 * hours:.0f} s"
    if hours < 2:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 1000 else f"{hours:,.0f} h".replace(",", " ")


def _left(cell: Cell, done: int) -> int:
    return cell.config.iterations - max(done, cell.config.warmup)


def measure(config: FitConfig, pool: Pool, report: Reporter) -> Pace:
    """Time a few iterations of each kind, including the reading of images."""
    report.note(f"{config.backbone}: timing a few iterations")
    if config.features == "cached":
        report.note("features = cached takes less time than this estimate, which is that of features = online")
    device = find_device(config.device)
    network = shared_network(catalog.described(config.backbone, config.backbone_options) or config.backbone, "random")
    dense = {task.name: task.dense for task in pool.tasks if task.dense} if config.dense else {}
    targets = {task.name: task.target for task in pool.tasks}
    model = MultiHead(network, {task.name: task.outputs for task in pool.tasks}, dense, config.size, targets)
    model = model.to(device).to(memory_format=torch.channels_last)
    settings = config.model_copy(update={"warmup": STEPS, "iterations": 2 * STEPS})
    warm = _timed(Training(settings, pool, model, device), range(STEPS))
    step = _timed(Training(settings, pool, model, device, done=STEPS), range(STEPS, 2 * STEPS))
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.body.state_dict().values())
    return Pace(step, warm, warm / config.batch, size, network.num_features)


def _timed(training: Training, numbers: range) -> float:
    """Return the seconds per iteration; the first one does not count unless it is the only one."""
    parts = training.iterations(numbers)
    begun = time.monotonic()
    training.step(*next(parts)).sum().item()  # item() waits for the device
    first = time.monotonic() - begun
    begun, steps = time.monotonic(), 0
    for batches in itertools.takewhile(lambda _: first + time.monotonic() - begun < SECONDS, parts):
        training.step(*batches).sum().item()
        steps += 1
    return (time.monotonic() - begun) / steps if steps else first
