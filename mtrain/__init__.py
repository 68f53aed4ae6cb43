"""Task-balanced multi-task pre-training on shards, and the whole transfer evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpconvert import __version__

if TYPE_CHECKING:
    from mtrain.dataset import ShardDataset

__all__ = ["ShardDataset", "__version__"]


def __getattr__(name: str) -> Any:
    """`ShardDataset`, when it is asked for: the command line must answer before torch is loaded."""
    if name == "ShardDataset":
        from mtrain.dataset import ShardDataset

        return ShardDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
