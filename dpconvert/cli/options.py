"""Options that commands of `dpconvert` share, and where a source's files are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest

SOURCES_VARIABLE = "DPCONVERT_SOURCES"
PATH = click.Path(path_type=Path)
SOURCE = click.option("--source", "folder", type=PATH, metavar="DIR",
    help=f"The source's files.  [default: ${SOURCES_VARIABLE}/NAME, else sources/NAME, else the manifest's root]",
)  # fmt: skip
MPP = click.option("--mpp", type=click.FloatRange(0.05, 10), metavar="UM",
    help="Micrometres per pixel of slides that state none.",
)  # fmt: skip
MPP_OVERRIDE = click.option("--mpp-override", type=click.FloatRange(0.05, 10), metavar="UM",
    help="Micrometres per pixel of all slides, whatever their files state.",
)  # fmt: skip
SHARDS = click.argument("shards", type=PATH)
WORKERS = click.option("--workers", type=click.IntRange(1), help="Processes.  [default: all processors]")


def with_shape(manifest: Manifest) -> Manifest:
    """The manifest with its shape's own file patterns where it gives none."""
    from dpconvert.readers import with_defaults

    return with_defaults(manifest)


def root_of(manifest: Manifest, given: Path | None) -> Path:
    """The folder that was given, else the manifest's own, else one of the source's name below that of all sources."""
    if given is not None:
        return given
    if manifest.root:
        return manifest.path.parent / manifest.root
    return sources_folder() / manifest.name


def sources_folder() -> Path:
    """The folder that holds a folder for each source."""
    return Path(os.environ.get(SOURCES_VARIABLE) or "sources")
