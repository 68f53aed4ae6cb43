"""Training in several processes, as torchrun starts them: this process's rank, and what the ranks send each other.

Small messages always go through gloo, whatever the devices are, because all ranks then notice at once that one has
ended. Tensors on CUDA devices go through NCCL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, rendezvous  # type: ignore[attr-defined]  # as documented

from dpconvert.plural import counted
from mtrain.errors import RunError, SaidElsewhereError, UsageError, UserError
from mtrain.model.devices import device_failure, find_device
from mtrain.model.weight_files.weights import StateDict

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(minutes=30)  # until a lost machine is noticed; a process that ends is noticed at once
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "ProcessGroup")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among the `size` processes of a training. The first one writes files and messages for all."""

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process. Several processes on a machine each take the CUDA device of their local rank.

        Raises:
            UsageError: there is no such device, or there are fewer devices than processes.
        """
        device = find_device(name)
        if self.alone or device.type == "cpu":
            return device
        if ":" in name:
            raise UsageError(
                f"{self.size} processes cannot share {name}", remedy="give --device cuda: each process takes its own"
            )
        available = torch.cuda.device_count()
        if self.local_size > available:
            raise UsageError(
                f"{self.local_size} processes on a machine with {counted(available, 'CUDA device')}",
                remedy=f"use torchrun --nproc-per-node {available}, or --device cpu",
            )
        device = torch.device("cuda", self.local)
        torch.cuda.set_device(device)
        return device

    def command(self, program: str) -> list[str]:
        """The command line that starts the program in as many processes again."""
        if self.alone:
            return [program]
        machines = [] if self.size == self.local_size else ["--nnodes", str(self.size // self.local_size), "..."]
        return ["torchrun", *machines, "--nproc-per-node", str(self.local_size), "-m", "--", program]

    def share(self, count: int, part: int = 0, parts: int = 1) -> range:
        """The range of 0..count-1 that this rank processes: part number `part` of the `parts` of its share."""
        number, total = self.rank * parts + part, self.size * parts
        return range(count * number // total, count * (number + 1) // total)

    def broadcast(self, find: Callable[[], T]) -> T:
        """Broadcast the result of `find`, which is called only on the first rank: a plain Python object."""
        if self.alone:
            return find()
        answer = [find() if self.first else None]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        return answer[0]  # type: ignore[return-value]  # what the first rank found

    def broadcast_state(self, state: StateDict) -> StateDict:
        """Broadcast the first rank's tensors, to the CPU. The state of the other ranks is ignored."""
        layout = self.broadcast(lambda: [(name, tensor.shape, tensor.dtype) for name, tensor in state.items()])
        received = {}
        for name, shape, dtype in layout:
            received[name] = state[name].detach().cpu().contiguous() if self.first else torch.empty(shape, dtype=dtype)
            dist.broadcast(received[name], src=0)
        return received

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their sums over the ranks, with a single all-reduce."""
        if self.alone or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def all_reduced(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Start an all-reduce of these values. Call the result to wait for the sums."""
        if self.alone:
            return lambda: list(values)
        flat = torch.tensor(values, dtype=torch.int64)
        work = dist.all_reduce(flat, async_op=True)

        def wait() -> list[int]:
            assert work is not None
            work.wait()
            return [int(value) for value in flat.tolist()]

        return wait


SINGLE_PROCESS = Ranks()


class Vote:
    """Whether any rank is to stop, with the same answer on all ranks in the same iteration.

    No rank waits for it: a wish of one iteration is known to all ranks in the next.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.pending: Callable[[], list[int]] = lambda: [0]

    def __call__(self, wish: bool) -> bool:
        if self.ranks.alone:
            return wish
        stop = self.count()
        if not stop:
            self.pending = self.ranks.all_reduced([wish])
        return stop

    def count(self) -> bool:
        """Complete the pending vote, and return its result."""
        (wishes,), self.pending = self.pending(), lambda: [0]
        return wishes > 0


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started together with this one; a single rank where torchrun did not start it.

    Raises:
        RunError: another rank has ended without a message.
        SaidElsewhereError: all ranks stop, and another one has reported the reason.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not all(name in os.environ for name in VARIABLES):
        yield SINGLE_PROCESS
        return
    ranks, store = _join()
    try:
        yield ranks
    except UserError as error:
        raise _reported_once(error, store) from None
    except RuntimeError as error:
        failure = device_failure(error)
        if failure is None and not any(word in str(error) for word in LOST):  # gloo and NCCL share no class for it
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it now: report the reason first
        dist.group.WORLD.abort()  # type: ignore[union-attr]  # else operations on the devices never end
        ended = RunError(
            "another process of this training has ended, so this one stops too",
            remedy="run the same command again: it resumes from the newest checkpoint",
        )
        raise _reported_once(failure or ended, store) from None
    dist.destroy_process_group()


def _join() -> tuple[Ranks, Store]:
    rank, size, local, local_size = (int(os.environ[name]) for name in VARIABLES[:4])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"the processes of this training cannot connect to each other: {reason}", remedy="start them with torchrun"
        ) from None
    return Ranks(rank, size, local, local_size), store


def _reported_once(error: UserError, store: Store) -> UserError:
    """The error itself on the rank that fails first; a silent one on the ranks that end because of it."""
    try:
        return error if store.add("mtrain/said", 1) == 1 else SaidElsewhereError(error.what)
    except RuntimeError:  # torchrun is gone
        return error
