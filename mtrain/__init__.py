"""Task-balanced multi-task pre-training on shards, and the whole transfer evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpconvert import __version__

if TYPE_CHECKING:
    from mtrain.data.dataset import ShardDataset
    from mtrain.model.network import shared_network

__all__ = ["ShardDataset", "__version__", "shared_network"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the command line must answer before torch is imported."""
    if name == "ShardDataset":
        from mtrain.data.dataset import ShardDataset

        return ShardDataset
    if name == "shared_network":
        from mtrain.model.network import shared_network

        return shared_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
