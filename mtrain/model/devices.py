"""Choose the device of a computation, and turn its failures into one-line errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtrain.errors import RunError, UsageError, UserError
from mtrain.used import mark

ON_THE_CPU = "or give --device cpu"
# part of the message of a CUDA, NCCL or torch error (they share no class) -> (what happened, what to do)
FAILURES = {
    "Duplicate GPU detected": (
        "two processes of this training use the same GPU",
        "start as many processes as there are GPUs: NCCL needs one for each",
    ),
    "no kernel image is available": (
        "this build of torch has no code for this GPU",
        f"install a build for it, {ON_THE_CPU}",
    ),
    "NVIDIA driver on your system is too old": (
        "the NVIDIA driver is too old for this build of torch",
        f"update the driver, install torch for an older CUDA, {ON_THE_CPU}",
    ),
    "devices are busy or unavailable": (
        "another process has this GPU for itself",
        f"wait for that process, choose another GPU, {ON_THE_CPU}",
    ),
    "DataLoader worker (pid": (
        "a loader process was killed, perhaps for lack of memory",
        "run the same command again, with fewer --workers",
    ),
    "unable to allocate shared memory": (
        "/dev/shm has too little room for the batches of the loader processes",
        "enlarge it (for Docker: --shm-size 8g), or give fewer --workers, or --workers 0",
    ),
}


def find_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        UsageError: the device does not exist, or the GPU's driver does not work with this torch.
    """
    mark("device")
    if name == "auto":
        return torch.device("cuda" if _has_cuda() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise UsageError(f"no device {name!r}", remedy="use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not _has_cuda() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"no device {name!r} here", found=_cuda_here(), remedy="use --device auto or cpu")
    return device


def _has_cuda() -> bool:
    """Whether CUDA works. If the driver is too old, torch only warns and then finds no device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    for warning in caught:
        if known := _known(str(warning.message)):
            raise UsageError(known[0], remedy=known[1])
        warnings.warn(warning.message, stacklevel=2)  # of a GPU that does not start, say: the CPU is used
    return available


def _cuda_here() -> str:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"
    if torch.version.cuda is None:
        return "a build of torch without CUDA"
    count = torch.cuda.device_count()
    return "no GPU" if not count else f"cuda:0 to cuda:{count - 1}"


@contextmanager
def device_failures_reported() -> Iterator[None]:
    """Turn device errors that are not bugs of ours into errors for the user."""
    try:
        yield
    except RuntimeError as error:
        known = device_failure(error)
        if known is None:
            raise
        raise known from None


def device_failure(error: RuntimeError) -> UserError | None:
    """Return the user's error for a known error of torch, CUDA or NCCL; None for any other."""
    if isinstance(error, torch.OutOfMemoryError):
        return RunError(
            "out of memory on the device",
            remedy="give a smaller --batch or --size; to train with it, start another run",
        )
    known = _known(str(error))
    return RunError(known[0], remedy=known[1]) if known else None


def _known(text: str) -> tuple[str, str] | None:
    return next((known for part, known in FAILURES.items() if part in text), None)
