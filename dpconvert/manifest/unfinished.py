"""Drafts of manifests that somebody must finish: a comment says so, and nothing is converted while it stands."""

from __future__ import annotations

from dpconvert.errors import ManifestError
from dpconvert.manifest.model import Manifest

NOT_READY = "# NOT READY."


def unfinished(manifest: Manifest) -> ManifestError | None:
    """Return the fault of a manifest in which `dpconvert init` left a line that says that something is unclear."""
    try:
        lines = manifest.path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):  # made in memory, or gone by now
        return None
    number = next((number for number, line in enumerate(lines, start=1) if line.startswith(NOT_READY)), 0)
    if not number:
        return None
    return ManifestError(
        f"line {number} says NOT READY",
        where=manifest.path,
        remedy="settle what the comments below that line ask, then delete it",
    )
