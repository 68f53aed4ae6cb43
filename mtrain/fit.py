"""Multi-task training: a configuration in, a run folder with the shared network's weights out.

The loop reads: draw, forward, loss, scale, step, log, validate, save. Every iteration is a function of the seed and its
number, so that a run that goes on from a checkpoint ends with the weights it would have ended with anyway.
"""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dpconvert.progress import Reporter
from mtrain import __version__, batchnorm, checkpoint, sampling
from mtrain.augment import flip
from mtrain.errors import RunError, UsageError
from mtrain.loader import Batch, Images, TrainingBatches, batches, ordered_batches
from mtrain.loss import scale_head_gradients, task_losses
from mtrain.network import MultiHead, shared_network
from mtrain.pool import Pool, Rows, Task, leave_out, open_pool
from mtrain.runs import FREE, FitConfig, Run

VALIDATED = 512  # samples of a task's validation set that a running training looks at


@dataclass
class Training:
    """A training under way: what changes from one iteration to the next."""

    config: FitConfig
    pool: Pool
    model: MultiHead
    device: torch.device
    iteration: int = 0

    def __post_init__(self) -> None:
        self.images = Images([(task, task.rows["train"]) for task in self.pool.tasks])
        self.tasks = [task.name for task in self.pool.tasks]
        self.optimizer = self._optimizer()

    @property
    def warming(self) -> bool:
        return self.iteration < self.config.warmup

    def begin(self, iteration: int) -> None:
        """Enter an iteration: the optimizer starts anew, without momentum, where the warm-up ends."""
        self.iteration = iteration
        if iteration == self.config.warmup:
            self.optimizer = self._optimizer()
        torch.manual_seed(sampling.model_seed(self.config.seed, iteration))

    def _optimizer(self) -> torch.optim.Optimizer:
        config, heads = self.config, list(self.model.heads.parameters())
        groups: list[dict[str, Any]] = [{"params": heads, "lr": config.warmup_lr if self.warming else config.lr * config.tau}]
        if not self.warming:
            groups.insert(0, {"params": list(self.model.shared.parameters()), "lr": config.lr})
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)

    def step(self, batch: Batch) -> dict[str, float]:
        """One iteration; the mean loss of each task in the batch."""
        self.model.shared.train(not self.warming)
        counts = batch.counts.tolist()
        images = self.prepare(batch)
        labels = batch.labels.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.set_grad_enabled(not self.warming):
                features = self.model.shared(images)
            logits = self.model.head_logits(features, counts)
        losses = task_losses(logits, labels, counts, self.tasks)
        loss = torch.stack(list(losses.values())).sum() / sum(counts)
        loss.backward()
        scale_head_gradients(self.model.heads, counts)
        self.optimizer.step()
        sizes = dict(zip(self.tasks, counts, strict=True))
        return {task: float(value) / sizes[task] for task, value in losses.items()} | {"": float(loss)}

    def prepare(self, batch: Batch) -> Tensor:
        """The batch on the device: flipped, normalized, in the layout the network likes."""
        images = batch.images.to(self.device, non_blocking=True)
        return self.model.shared.normalize(flip(images, batch.flips.to(self.device, non_blocking=True)))

    def drawn(self, numbers: range, stream: sampling.Stream) -> Iterator[Batch]:
        """The batches of these iterations."""
        config = self.config
        dataset = TrainingBatches(self.images, config.size, config.seed, range(config.batch), stream)
        return batches(dataset, numbers, workers=min(config.workers, len(numbers)), pin=self.device.type == "cuda")


def fit(config: FitConfig, run: Run, report: Reporter) -> Run:
    """Train, or go on with, the run; done when its state says finished.

    Raises:
        UsageError, ShardError: options or shards that cannot be used.
        RunError: the run belongs to other settings or shards, the loss is not finite, or the disk is full.
    """
    pool, left, notes = leave_out(open_pool(Path(config.shards)), config.leave_out)
    _check_pool(pool)
    for note in notes:
        report.note(note)
    training = _training(config, pool, run, [task.name for task in left], report)
    config = training.config
    with _stoppable() as stop, SummaryWriter(str(run.path / "tensorboard")) as board:
        _loop(training, run, report, stop, board)
    if training.iteration < config.iterations:
        run.write("state.json", {"state": "stopped", "iteration": training.iteration})
        raise KeyboardInterrupt
    about = {"backbone": config.backbone, "run": run.name, "pool": pool.digest}
    checkpoint.save(run.weights, training.model.shared.state_dict(), about)
    run.write("state.json", {"state": "finished", "iteration": training.iteration})
    return run


def _loop(training: Training, run: Run, report: Reporter, stop: list[int], board: SummaryWriter) -> None:
    config, first = training.config, training.iteration
    meter = Meter(config.batch)
    numbers = range(first, config.iterations)
    with report.bar(run.name, config.iterations, done=first, unit="iterations") as advance:
        for number, batch in meter.timed(zip(numbers, training.drawn(numbers, sampling.Stream.TRAIN), strict=True)):
            training.begin(number)
            meter.add(training.step(batch), number)
            training.iteration = number + 1
            advance()
            if training.iteration % config.log_every == 0 or training.iteration == config.iterations:
                event = {"event": "step", "iteration": training.iteration, "warmup": number < config.warmup}
                _tell(run, board, event | meter.take())
            if config.validate_every and training.iteration % config.validate_every == 0:
                _tell(run, board, _validate(training))
            if training.iteration % config.checkpoint_every == 0 or stop or training.iteration == config.iterations:
                _save(training, run)
            if stop:
                return


class Meter:
    """Losses since the last look, speed, and the share of time spent waiting for data."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.losses: dict[str, list[float]] = {}
        self.begun, self.waited, self.steps = time.monotonic(), 0.0, 0

    def timed(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items, with the time that getting them takes counted as waiting."""
        while True:
            asked = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield item

    def add(self, losses: dict[str, float], iteration: int) -> None:
        """The losses of one iteration.

        Raises:
            RunError: one is not finite.
        """
        wrong = [task for task, value in losses.items() if task and not np.isfinite(value)]
        if wrong:
            raise RunError(
                f"the loss of {', '.join(wrong)} is not finite in iteration {iteration}",
                remedy="lower --lr or --tau; the last checkpoint is from before",
            )
        self.steps += 1
        for task, value in losses.items():
            self.losses.setdefault(task, []).append(value)

    def take(self) -> dict[str, Any]:
        """What was gathered, and begin anew."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        means = {task: float(np.mean(values)) for task, values in sorted(self.losses.items())}
        result = {
            "loss": means.pop("", 0.0),
            "tasks": means,
            "images_per_s": self.steps * self.batch / seconds,
            "wait": self.waited / seconds,
        }
        self.losses, self.begun, self.waited, self.steps = {}, time.monotonic(), 0.0, 0
        return result


def _training(config: FitConfig, pool: Pool, run: Run, left: list[str], report: Reporter) -> Training:
    """A training at its start, or where the newest readable checkpoint of the run is."""
    about = _about(config, pool, left)
    resumed = (run.path / "config.json").is_file()
    if resumed:
        _same(run, about)
    run.write("config.json", about)
    run.write("state.json", {"state": "running", "iteration": run.state()[1]})
    device = _device(config.device)
    torch.manual_seed(config.seed)
    classes = {task.name: task.num_classes for task in pool.tasks}
    saved = _newest_readable(run, report)
    shared = shared_network(config.backbone, "random" if saved else config.weights)
    model = MultiHead(shared, classes).to(device, memory_format=torch.channels_last)
    training = Training(config, pool, model, device)
    if saved is not None:
        tensors, state = saved
        training.iteration = int(state["iteration"])
        training.optimizer = training._optimizer()
        checkpoint.restore(model, training.optimizer, tensors)
        report.note(f"{run.name}: goes on from iteration {training.iteration} of {config.iterations}")
    elif config.adapt_batches:
        drawn = training.drawn(range(config.adapt_batches), sampling.Stream.ADAPT)
        layers = batchnorm.adapt(shared, (training.prepare(batch) for batch in drawn))
        report.note(f"{run.name}: {layers} batch-normalization layers adapted to the pool")
    return training


def _newest_readable(run: Run, report: Reporter) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    for path in checkpoint.newest(run.checkpoints):
        try:
            return checkpoint.load(path)
        except RunError as error:
            report.note(f"{error}; the one before is used")
    return None


def _about(config: FitConfig, pool: Pool, left: list[str]) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "pool": {task.name: task.card.digest for task in pool.tasks},
        "left_out": left,
        "shards": str(Path(config.shards).absolute()),
        "versions": {
            "mtrain": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


def _same(run: Run, about: dict[str, Any]) -> None:
    """Refuse to go on with other settings or shards, by name of what differs."""
    there = run.about()
    settings = there.get("config", {})
    differ = [
        f"{name} ({settings.get(name)!r} there, {value!r} asked for)"
        for name, value in about["config"].items()
        if name not in FREE and settings.get(name) != value
    ]
    if there.get("pool") != about["pool"]:
        differ.append("the shards of the pool")
    if differ:
        raise RunError(
            f"this run has other settings: {'; '.join(differ)}", where=run.path,
            remedy="give the run's own settings to go on with it, or another --run name",
        )  # fmt: skip


def _save(training: Training, run: Run) -> None:
    path = checkpoint.path_of(run.checkpoints, training.iteration)
    state = checkpoint.training_state(training.model, training.optimizer)
    checkpoint.save(path, state, {"iteration": training.iteration})
    checkpoint.prune(run.checkpoints)
    run.write("state.json", {"state": "running", "iteration": training.iteration})


def _tell(run: Run, board: SummaryWriter, event: dict[str, Any]) -> None:
    run.log(event)
    for name, value in event.items():
        values = value if isinstance(value, dict) else {"": value}
        for task, number in values.items():
            if isinstance(number, float):
                board.add_scalar(f"{name}/{task}".rstrip("/"), number, event["iteration"])


@torch.no_grad()
def _validate(training: Training) -> dict[str, Any]:
    """Accuracy of each head on some of its task's validation set."""
    training.model.eval()
    scores = {task.name: _accuracy(training, task, rows) for task in training.pool.tasks if len(rows := _some(task))}
    return {"event": "validation", "iteration": training.iteration, "accuracy": scores}


def _some(task: Task) -> Rows:
    rows = task.rows["val"]
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, min(len(rows), VALIDATED)).astype(int))) if len(rows) else rows


def _accuracy(training: Training, task: Task, rows: Rows) -> float:
    config, right = training.config, 0
    for images, places in ordered_batches(task, rows, size=config.size, batch=config.batch, workers=config.workers):
        shared = training.model.shared
        logits = training.model.heads[task.name](shared(shared.normalize(images.to(training.device))))
        right += int((logits.argmax(1).cpu().numpy() == rows.label[places]).sum())
    return right / len(rows)


def _check_pool(pool: Pool) -> None:
    for task in pool.tasks:
        if not len(task.rows["train"]):
            raise UsageError("this task has no training set", where=task.folder, remedy="leave it out with --leave-out")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device {name!r}", remedy="use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", remedy="use --device auto or cpu")
    return device


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask for a stop after the iteration under way: they fill the list."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda received, _frame: asked.append(received))
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
