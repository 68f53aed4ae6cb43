"""Where a source's files are looked for when nobody says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest

SOURCES_VARIABLE = "DPCONVERT_SOURCES"


def root_of(manifest: Manifest, given: Path | None) -> Path:
    """The folder that was given, else the manifest's own, else one of the source's name below that of all sources."""
    if given is not None:
        return given
    if manifest.root:
        return manifest.path.parent / manifest.root
    return sources_folder() / manifest.name


def sources_folder() -> Path:
    """The folder that holds a folder for each source: $DPCONVERT_SOURCES, else `sources`."""
    return Path(os.environ.get(SOURCES_VARIABLE) or "sources")
