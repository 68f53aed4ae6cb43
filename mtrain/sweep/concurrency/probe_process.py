"""A process of a measurement: it trains as a cell does, until it is stopped, and keeps nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from dpconvert.runtime.processes import end_with_parent
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.errors import UserError

if TYPE_CHECKING:
    from mtrain.data.batches.batch import Batch
    from mtrain.train.trainer import Training

SYNCHRONIZED = 16  # iterations after which the device is waited for
FIRST = 10  # iterations before the time is taken: libraries start, and a CUDA graph is recorded
MIB = 2**20
OUTSIDE = 2**30  # bytes that a process takes on a GPU besides torch's own memory: context, libraries


@dataclass(frozen=True)
class Measurement:
    """What a process measured at a level: images per second, its memory and that of the device in bytes."""

    images_per_s: float
    host: float
    device: float = 0.0
    free: float = 0.0
    total: float = 0.0


def probe(config: FitConfig, folder: Path, connection: Connection) -> None:
    """Prepare a training in a child process, and run iterations for as long as each request states.

    Ends when the connection is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes
    end_with_parent(partial(os._exit, 1))
    try:
        for message in _trained(config, folder, connection):
            connection.send(message)
    except UserError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _trained(config: FitConfig, folder: Path, connection: Connection) -> Iterator[Measurement | None]:
    """Yield None when the training is ready, and then what each request measures.

    Raises:
        UserError: the training cannot be prepared or run, for example for lack of memory on the device.
    """
    from mtrain.data.choice import chosen
    from mtrain.data.pool import leave_out, open_pool, training_on
    from mtrain.model.devices import device_failures_reported
    from mtrain.runs.run_folder import Run
    from mtrain.train.distributed import SINGLE_PROCESS
    from mtrain.train.start import begin, network_of

    whole, run = open_pool(config.shards), Run(folder)
    pool, _, _ = leave_out(whole, config.leave_out)
    pool, _, _ = chosen(whole, pool, config, None)
    pool = training_on(pool, config.train_on.split("+"), but=config.joint)
    with device_failures_reported():
        training = begin(config, network_of(config, run), pool, run, Reporter(quiet=True), SINGLE_PROCESS)
        batches = training.iterations(range(config.iterations))
        yield None
        while True:
            warm, seconds = connection.recv()
            _rate(training, batches, warm, FIRST)
            yield _measurement(training, _rate(training, batches, seconds))


def _rate(training: Training, batches: Iterator[tuple[Batch, ...]], seconds: float, least: int = 1) -> float:
    """Run iterations for so many seconds, and at least so many of them; return the images per second."""
    begun, done = time.monotonic(), 0
    while True:
        losses = training.step(*next(batches))
        done += 1
        late = done >= least and time.monotonic() - begun >= seconds
        if late or done % SYNCHRONIZED == 0:
            losses.sum().item()  # waits for the device
        if late:
            return done * float(training.config.batch) / (time.monotonic() - begun)


def _measurement(training: Training, rate: float) -> Measurement:
    import torch

    from mtrain.train.reporting.memory import memory

    used = memory(training.device)
    host = used["host"] * MIB
    if training.device.type != "cuda":
        return Measurement(rate, host)
    free, total = torch.cuda.mem_get_info(training.device)
    own = float(torch.cuda.max_memory_reserved(training.device))
    return Measurement(rate, host, own + OUTSIDE, float(free), float(total))
