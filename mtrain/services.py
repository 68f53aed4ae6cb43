"""The services that a training can send its log to, without importing them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from mtrain.errors import UsageError


def check_installed(names: Iterable[str]) -> None:
    """Raises:
    UsageError: the package of a service is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed", found=f"--log {name}", remedy=f"pip install 'dpconvert[{name}]'"
            )
