"""Lay a grid of patches over an image, at the scale that a rule asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image import Image, scales
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, PatchGrid
from dpconvert.plan.grid import Boxes, Scales, grid, patch_sides
from dpconvert.plan.scene import Scene
from dpconvert.source.record import hashed

OVERRIDE = "say what is right with --mpp-override, or as `mpp_override` in the manifest"
ENLARGED = 1.1  # most that pixels are enlarged where a slide is coarser than the rule requires


def scale_of(rule: PatchGrid | Crop, manifest: Manifest, scene: Scene) -> Scales:
    """Return the number of level-0 pixels per pixel of the rule, along x and y.

    Raises:
        ReadError: the resolution of the slide is not known, or is too coarse for the rule.
    """
    where = scene.source_image.files[0]
    scale = scales(scene.image, rule.mpp, manifest.mpp, where)
    if rule.mpp is not None and min(scale) * ENLARGED < 1:
        stated = scene.image.spacing.axes is not None
        unused = f" (and {manifest.mpp:g}, which was given, is for files that state none)" if manifest.mpp else ""
        raise ReadError(
            "coarser than the rule requires",
            where=where,
            expected=f"at most {rule.mpp} um per pixel",
            found=f"{rule.mpp / min(scale):.4g}" + (f", as the file states{unused}" if stated else ""),
            remedy="state a coarser `mpp`, or leave the slide out with --skip-failed"
            + (f"; if the file is wrong, {OVERRIDE}" if stated else ""),
        )
    return scale


def stored_size(rule: PatchGrid, scale: Scales) -> tuple[int, int] | None:
    """Return the (width, height) at which patches are stored, or None if it is that of level 0."""
    side = rule.stored or (rule.size if rule.mpp or scale[0] != scale[1] else None)
    return (side, side) if side else None


def capped(cap: int | None, classes: NDArray[Any], boxes: Boxes, name: str) -> NDArray[np.intp]:
    """Return the indices of at most `cap` patches per class: those with the smallest hashes, in grid order."""
    if cap is None:
        return np.arange(len(boxes))
    kept: list[int] = []
    for label in np.unique(classes):
        candidates = np.flatnonzero(classes == label).tolist()
        if len(candidates) > cap:
            candidates = sorted(candidates, key=lambda i: hashed(name, "cap", int(boxes[i, 0]), int(boxes[i, 1])))[:cap]
        kept += candidates
    return np.array(sorted(kept), dtype=np.intp)


def placed(rule: PatchGrid, manifest: Manifest, scene: Scene) -> tuple[Boxes, tuple[int, int] | None]:
    """Return the patches of the rule, and their stored size if it differs."""
    scale = scale_of(rule, manifest, scene)
    if not rule.own_tiles:
        return whole_grid(rule, scale, scene.image), stored_size(rule, scale)
    wanted = scale[0] * rule.size / (rule.stored or rule.size)
    found = scene.image.own_grid(wanted)
    where = scene.source_image.files[0]
    if found is None or scale[0] != scale[1]:
        raise ReadError(
            "has no JPEG tiles of square pixels to pass on as they are",
            where=where,
            remedy="convert without --lossless-tiles",
        )
    boxes, tile = found
    if len(boxes):
        _check_tiles(rule, boxes[0, 2] / tile[0], wanted, where)
    side = rule.stored or rule.size
    note = f"tiles of {tile[0]} x {tile[1]} pixels are passed on, and the rule requests patches of {side}"
    note += f" that overlap by {rule.overlap}" if rule.overlap else ""
    if (tile != (side, side) or rule.overlap) and note not in scene.image.notes:
        scene.image.notes = (*scene.image.notes, note)
    return found


def _check_tiles(rule: PatchGrid, factor: float, wanted: float, where: str) -> None:
    """Refuse tiles of another resolution than the rule requests.

    factor: level-0 pixels per pixel of the tiles. wanted: the same, of the rule.

    Raises:
        ReadError: they differ too much.
    """
    if max(factor, wanted) <= ENLARGED * min(factor, wanted):
        return
    mpp = None if rule.mpp is None else rule.mpp * rule.size / (rule.stored or rule.size)
    raise ReadError(
        "no level of its tiles has the resolution that the rule requests",
        where=where,
        expected=f"{wanted:.4g} pixels of the file in one" if mpp is None else f"{mpp:.4g} um per pixel",
        found=f"{factor:.4g}" if mpp is None else f"{mpp * factor / wanted:.4g} in the nearest level",
        remedy="convert without --lossless-tiles, or request the resolution of a level",
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """The number of patches that fit into an image, and their size in level-0 pixels."""

    count: int
    width: int
    height: int


def fitting(rule: PatchGrid, manifest: Manifest, scene: Scene) -> Fit:
    """Return how many patches fit into an image, whatever is on it.

    Raises:
        ReadError: the resolution is not known, or is too coarse for the rule.
    """
    sides = patch_sides(rule.size, scale_of(rule, manifest, scene))
    return Fit(len(placed(rule, manifest, scene)[0]), *sides)


def whole_grid(rule: PatchGrid, scale: Scales, image: Image) -> Boxes:
    """Return all patches (N, 4) that fit into what a slide's scanner imaged, in level-0 pixels."""
    left, top, width, height = image.bounds
    boxes = grid(width, height, rule.size, rule.overlap, scale)
    boxes[:, :2] += left, top
    return boxes
