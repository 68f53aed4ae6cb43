"""The address of `mtrain.shared_network` in model cards written before the packages: it keeps working."""

from mtrain.api import shared_network

__all__ = ["shared_network"]
