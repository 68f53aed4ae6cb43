"""The folder of a source's files: where it is by default, and whether it exists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dpconvert.errors import SourceError

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest

SOURCES_VARIABLE = "DPCONVERT_SOURCES"
UNDESCRIBED = "a folder of images or slides, with their labels"  # what a manifest can be drafted for


def root_of(manifest: Manifest, given: Path | None) -> Path:
    """Return the given folder, else the manifest's, else the folder of the source's name below `sources_folder`."""
    if given is not None:
        return given
    if manifest.root:
        return manifest.path.parent / manifest.root
    return sources_folder() / manifest.name


def existing_root(manifest: Manifest, given: Path | None) -> Path:
    """Return the folder as `root_of` does.

    Raises:
        SourceError: it does not exist.
    """
    root = root_of(manifest, given)
    check_root(root, manifest)
    return root


def check_root(root: Path, manifest: Manifest) -> None:
    """Refuse what is not a folder of the files that a manifest describes.

    Raises:
        SourceError: it is not.
    """
    from dpconvert.manifest.catalog import typed

    remedy = f"`dpconvert show {typed(manifest)}` says where to get them; name their folder with --source"
    check_folder(root, f"the files of {manifest.task}", remedy)


def check_folder(root: Path, expected: str, remedy: str | None = None) -> None:
    """Refuse what is not a folder. expected: what should be in it.

    Raises:
        SourceError: it is not.
    """
    if not root.is_dir():
        what = "no such folder" if not root.exists() else "not a folder"
        raise SourceError(what, where=root, expected=expected, remedy=remedy)


def sources_folder() -> Path:
    """Return the folder that holds one folder per source: $DPCONVERT_SOURCES, else `sources`."""
    return Path(os.environ.get(SOURCES_VARIABLE) or "sources")
