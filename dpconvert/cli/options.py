"""Options that several commands of `dpconvert` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpconvert.manifest.roots import SOURCES_VARIABLE
from dpconvert.runtime.finite import FiniteRange, WholeRange
from dpconvert.runtime.terminal import FolderPath

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest

PATH = click.Path(path_type=Path)
FOLDER = FolderPath(path_type=Path)
SOURCE = click.option(
    "--source",
    "folder",
    type=FOLDER,
    help=f"Folder of the source's files.  [default: the manifest's root, ${SOURCES_VARIABLE}/NAME or sources/NAME]",
)
MPP = click.option(
    "--mpp",
    type=FiniteRange(0.05, 10),
    metavar="UM",
    help="Micrometres per pixel, for slides whose files do not state it.",
)
MPP_OVERRIDE = click.option(
    "--mpp-override",
    type=FiniteRange(0.05, 10),
    metavar="UM",
    help="Micrometres per pixel, for all slides, whatever their files state.",
)
ALLOW_OUTSIDE = click.option(
    "--allow-outside",
    is_flag=True,
    help="Accept images whose annotations all lie outside them.",
)
DENSE = click.option(
    "--dense",
    is_flag=True,
    help="Keep the masks, points or boxes that the manifest's table [dense] states.",
)
SPLIT = click.option(
    "--split",
    type=click.Choice(["strict", "paper", "eva"]),
    default="strict",
    show_default=True,
    help="strict: no patient in two sets, nor across related tasks; paper: the published sets; "
    "eva: the sets of kaiko-eva.",
)
SHARDS = click.argument("shards", type=PATH)
WORKERS = click.option("--workers", type=WholeRange(1), help="Worker processes.  [default: one per processor]")


def with_shape(manifest: Manifest) -> Manifest:
    """The manifest, with its shape's default file patterns where it gives none."""
    from dpconvert.readers import with_defaults

    return with_defaults(manifest)
