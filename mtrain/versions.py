"""The versions that a run depends on."""

from __future__ import annotations

import platform
from importlib import metadata

from mtrain import __version__

PACKAGES = ("imagecodecs", "numpy", "pillow", "timm", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Name -> version of mtrain, Python and the packages that can change a result; absent ones are left out."""
    found = {"mtrain": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # an extra
            continue
    return found
