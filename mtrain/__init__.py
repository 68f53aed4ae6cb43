"""Task-balanced multi-task pre-training on shards, and the whole transfer evaluation.

    import mtrain

    run = mtrain.fit("shards", leave_out=["Lung"], iterations=1000)
    print(mtrain.transfer(run, "Lung")["score"])
    network = mtrain.load_network(run)

`ShardDataset` reads shards in any PyTorch loop. All else is private.
"""

from __future__ import annotations

from dpconvert import __version__

TYPE_CHECKING = False  # importing `typing` would take most of the time in which Ctrl-C is not handled yet

if TYPE_CHECKING:
    from typing import Any

    from mtrain.api import fit, load_network, shared_network, transfer
    from mtrain.config import FitConfig
    from mtrain.data.dataset import ShardDataset
    from mtrain.data.pool import Pool
    from mtrain.transfers.pretrained import TransferOptions

__all__ = [
    "FitConfig",
    "Pool",
    "ShardDataset",
    "TransferOptions",
    "__version__",
    "fit",
    "load_network",
    "shared_network",
    "transfer",
]

_PLACES = {
    "FitConfig": "mtrain.config:FitConfig",
    "Pool": "mtrain.data.pool:Pool",
    "ShardDataset": "mtrain.data.dataset:ShardDataset",
    "TransferOptions": "mtrain.transfers.modes:TransferOptions",
    "fit": "mtrain.api:fit",
    "load_network": "mtrain.api:load_network",
    "shared_network": "mtrain.api:shared_network",
    "transfer": "mtrain.api:transfer",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the command line must answer before torch is imported."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """The public names, loaded or not, as a notebook completes them."""
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]
