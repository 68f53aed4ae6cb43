"""One training by several processes, as torchrun starts them: who this one is, and what they tell each other.

Small things travel between the processors (gloo), whatever the devices are: a rank that has ended is noticed there at
once, by all. Tensors on CUDA devices travel by NCCL.
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

from mtrain.errors import RunError, SaidElsewhereError, UsageError, UserError
from mtrain.model.network import find_device
from mtrain.model.weights import State

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(minutes=30)  # for a machine that vanishes; a process that ends is noticed at once
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "ProcessGroup")


@dataclass(frozen=True)
class Ranks:
    """This process among the `size` of a training; the first of them writes and speaks for all."""

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
        """The device of this process: with several on a machine, each takes the CUDA device of its local number.

        Raises:
            UsageError: no such device, or fewer than processes.
        """
        device = find_device(name)
        if self.alone or device.type == "cpu":
            return device
        if ":" in name:
            raise UsageError(
                f"{self.size} processes cannot share {name}", remedy="use --device cuda: each takes its own"
            )
        there = torch.cuda.device_count()
        if self.local_size > there:
            raise UsageError(f"{self.local_size} processes on a machine with {there} CUDA devices",
                             remedy=f"use torchrun --nproc-per-node {there}, or --device cpu")  # fmt: skip
        device = torch.device("cuda", self.local)
        torch.cuda.set_device(device)
        return device

    def command(self, program: str) -> list[str]:
        """How the program is started again in as many processes."""
        if self.alone:
            return [program]
        machines = [] if self.size == self.local_size else ["--nnodes", str(self.size // self.local_size), "..."]
        return ["torchrun", *machines, "--nproc-per-node", str(self.local_size), "-m", "--", program]

    def share(self, count: int, part: int = 0, parts: int = 1) -> range:
        """The part of 0..count-1 that falls to this rank; `parts` of it, one after the other, make up its share."""
        number, of = self.rank * parts + part, self.size * parts
        return range(count * number // of, count * (number + 1) // of)

    def told(self, find: Callable[[], T]) -> T:
        """What `find` answers on the first rank, where alone it is called; of plain Python objects."""
        if self.alone:
            return find()
        answer = [find() if self.first else None]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        return answer[0]  # type: ignore[return-value]  # what the first rank found

    def told_state(self, state: State) -> State:
        """The first rank's tensors, on the CPU; what the other ranks pass does not count."""
        layout = self.told(lambda: [(name, tensor.shape, tensor.dtype) for name, tensor in state.items()])
        told = {}
        for name, shape, dtype in layout:
            told[name] = state[name].detach().cpu().contiguous() if self.first else torch.empty(shape, dtype=dtype)
            dist.broadcast(told[name], src=0)
        return told

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their sums over the ranks, in one message."""
        if self.alone or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def summed(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Begin to sum over the ranks; the answer, when called, waits for the sums."""
        if self.alone:
            return lambda: list(values)
        flat = torch.tensor(values, dtype=torch.int64)
        work = dist.all_reduce(flat, async_op=True)

        def wait() -> list[int]:
            assert work is not None
            work.wait()
            return [int(value) for value in flat.tolist()]

        return wait


ALONE = Ranks()


class Vote:
    """Whether any rank wants to stop, the same answer on all of them in the same iteration.

    Nobody waits for it: what a rank wants in one iteration is known to all in the next.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.pending: Callable[[], list[int]] = lambda: [0]

    def __call__(self, wish: bool) -> bool:
        if self.ranks.alone:
            return wish
        stop = self.count()
        if not stop:
            self.pending = self.ranks.summed([wish])
        return stop

    def count(self) -> bool:
        """The answer to what was asked last; after this nothing is under way."""
        (wishes,), self.pending = self.pending(), lambda: [0]
        return wishes > 0


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started with this one; this process alone where torchrun did not start it.

    Raises:
        RunError: another rank has ended without a word.
        SaidElsewhereError: all stop, and another rank has said why.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not all(name in os.environ for name in VARIABLES):
        yield ALONE
        return
    ranks, store = _join()
    try:
        yield ranks
    except UserError as error:
        raise _to_be_said(error, store) from None
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):  # torch has no class for it that gloo and NCCL share
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it now: first what there is to say
        dist.group.WORLD.abort()  # type: ignore[union-attr]  # else work for the devices never ends
        ended = RunError(
            "another process of this training has ended, so this one stops too",
            remedy="run the same command again: it goes on from the newest checkpoint",
        )
        raise _to_be_said(ended, store) from None
    dist.destroy_process_group()


def _join() -> tuple[Ranks, Store]:
    rank, size, local, local_size = (int(os.environ[name]) for name in VARIABLES[:4])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"the processes of this training cannot reach each other: {reason}",
                       remedy="start them with torchrun") from None  # fmt: skip
    return Ranks(rank, size, local, local_size), store


def _to_be_said(error: UserError, store: Store) -> UserError:
    """The error on the rank that has one first; the ranks that end because of that one stay silent."""
    try:
        return error if store.add("mtrain/said", 1) == 1 else SaidElsewhereError(error.what)
    except RuntimeError:  # torchrun is gone
        return error
