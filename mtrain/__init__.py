"""Task-balanced multi-task pre-training on shards, and the whole transfer evaluation."""

from dpconvert import __version__

__all__ = ["__version__"]
