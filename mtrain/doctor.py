"""What training needs of this machine: the checks of dpconvert.doctor, torch, a GPU, two processes that talk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, spawn

from dpconvert import doctor
from dpconvert.doctor import attempt
from dpconvert.runtime.checks import Check
from mtrain.versions import versions

RANKS = 2
WAIT = timedelta(seconds=60)


def checks(folder: Path) -> Iterator[Check]:
    """All of it; `folder` is where runs are to go."""
    yield from doctor.checks(folder)
    yield Check("packages", ok=True, found=", ".join(f"{name} {version}" for name, version in versions().items()))
    yield attempt("torch", _torch, "install torch anew: https://pytorch.org/get-started")
    yield attempt("GPU", _gpu, "check the driver with nvidia-smi, or train with --device cpu")
    yield attempt("ranks", _ranks, "train in one process; a firewall or a container may keep processes apart")


def _torch() -> str:
    """One step of a convolution, forwards and backwards."""
    layer = torch.nn.Conv2d(3, 4, 3)
    layer(torch.ones(1, 3, 8, 8)).sum().backward()
    if layer.weight.grad is None or not torch.isfinite(layer.weight.grad).all():
        raise RuntimeError("a gradient is not finite")
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> str:
    """Having none is not a fault; one that torch sees must compute."""
    if not torch.cuda.is_available():
        return "none: training runs on the CPU" if torch.version.cuda is None else "none that torch can use"
    found = []
    for number in range(torch.cuda.device_count()):
        ones = torch.ones(256, 256, device=f"cuda:{number}")
        if float((ones @ ones)[0, 0]) != 256:
            raise RuntimeError(f"cuda:{number} computes wrongly")
        free, total = torch.cuda.mem_get_info(number)
        found.append(f"{torch.cuda.get_device_name(number)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")
    return "; ".join(found)


def _ranks() -> str:
    """Two processes sum a number over gloo, as the ranks of a training do."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_ping, (str(Path(folder) / "meet"),), nprocs=RANKS)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            raise RuntimeError(str(error).strip().rpartition("\n")[2]) from None
    return f"{RANKS} processes over gloo"


def _ping(rank: int, meet: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=RANKS, timeout=WAIT)
    try:
        number = torch.tensor(rank + 1)
        dist.all_reduce(number)
        if int(number) != 3:
            raise RuntimeError(f"1 + 2 gave {int(number)}")
    finally:
        dist.destroy_process_group()
