"""Doubles of a CUDA graph on the processor: they repeat operators on the same addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Recorded(TorchDispatchMode):
    """Operators with the tensors that they were called with. As on a device, nothing may be read from them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, "an operator that waits for the device"
        before = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}))  # shapes may change in place
        found = func(*args, **(kwargs or {}))
        view = func.is_view or torch.Tag.inplace_view in func.tags
        if not view or _addresses(found).isdisjoint(_addresses((args, kwargs))):  # some views copy: `to`, `reshape`
            self.calls.append((func, *before, tree_map_only(torch.Tensor, torch.Tensor.detach, found)))
        return found


class Double:
    """Records and replays operators, as `CudaGraph` does kernels, but runs them while it records."""

    def __init__(self) -> None:
        self.recorded: dict[int, Recorded] = {}
        self.inside = False

    @contextmanager
    def running(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    @contextmanager
    def record(self, form: int) -> Iterator[None]:
        assert self.inside, "a stream that the iterations before did not run on"
        self.recorded[form] = Recorded()
        with self.recorded[form]:
            yield

    @torch.no_grad()
    def replay(self, form: int) -> None:
        for func, args, kwargs, kept in self.recorded[form].calls:
            found = func(*args, **kwargs)
            for old, new in zip(_tensors(kept), _tensors(found), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def release(self, form: int) -> None:
        del self.recorded[form]

    def trim(self) -> None:
        """There is no memory of its own."""


class Wrong(Double):
    """Replays something else."""

    def replay(self, form: int) -> None:
        super().replay(form)
        super().replay(form)


class FirstFails(Double):
    """Fails at the first recording, as a device does that must load something then."""

    failed = False

    @contextmanager
    def record(self, form: int) -> Iterator[None]:
        with super().record(form):
            yield
        if not self.failed:
            self.failed = True
            raise RuntimeError("operation failed due to a previous error during capture")


class Unsupported(Double):
    @contextmanager
    def record(self, form: int) -> Iterator[None]:
        self.recorded[form] = Recorded()
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def _addresses(of: Any) -> set[int]:
    """Where the memory of tensors begins."""
    return {one.untyped_storage().data_ptr() for one in tree_leaves(of) if isinstance(one, torch.Tensor)}


def _tensors(found: Any) -> list[torch.Tensor]:
    return [one for one in (found if isinstance(found, tuple | list) else [found]) if isinstance(one, torch.Tensor)]


class OfTheProcessor(TorchDispatchMode):
    """Counts operators that read or write memory of the processor, which a recorded iteration may not."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor)]
        self.calls += [str(func)] if any(one.device.type == "cpu" for one in tensors) else []
        return found
