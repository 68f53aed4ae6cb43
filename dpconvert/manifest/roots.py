"""The default folder of a source's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest

SOURCES_VARIABLE = "DPCONVERT_SOURCES"


def root_of(manifest: Manifest, given: Path | None) -> Path:
    """Return the given folder, else the manifest's, else the folder of the source's name below `sources_folder`."""
    if given is not None:
        return given
    if manifest.root:
        return manifest.path.parent / manifest.root
    return sources_folder() / manifest.name


def sources_folder() -> Path:
    """Return the folder that holds one folder per source: $DPCONVERT_SOURCES, else `sources`."""
    return Path(os.environ.get(SOURCES_VARIABLE) or "sources")
