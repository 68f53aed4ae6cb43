"""The labels of annotations on slides: which of them a manifest knows, and those that files of one slide stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.masks import has_shape, is_reduced
from dpconvert.errors import ManifestError, ReadError
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, Middle, Objects, Presence, Regional, Tiles, Whole

NO_LABEL = re.compile("|None|#[0-9a-f]{6}")  # what ASAP calls no group, and the colour of a layer of ImageScope


def check_skipped(manifest: Manifest, labels: Mapping[str, str], skip: Sequence[str]) -> None:
    """Refuse to leave out labels that the rule or [dense] names: its samples would lack them without a word."""
    rule, dense = manifest.rule, manifest.dense
    of_dense = set(dense.known()) - set(dense.seg.skip if dense and dense.seg else ()) if dense else set()
    of_rule = {*rule.positive, *rule.cut} if isinstance(rule, Regional) else set()
    of_rule |= {*manifest.classes} if isinstance(rule, Middle | Crop) else set()
    of_rule |= {*rule.positive} if isinstance(rule, Presence) else set()
    of_rule |= {rule.positive, *([rule.other] if rule.other else [])} if isinstance(rule, Objects) else set()
    for table, known in (("[rule]", of_rule), ("[dense]", of_dense)):
        if both := [label for label in skip if label in known - {*labels.values()}]:
            raise ManifestError(
                f"[layout]: `skip` leaves out {both[0]!r}, which {table} needs",
                where=manifest.path,
                remedy="omit it from one of them",
            )


def known_labels(manifest: Manifest, labels: Mapping[str, str], skip: Sequence[str]) -> list[str]:
    """Return the labels that annotations may have; none if any may."""
    if labels:
        return [*labels, *skip]
    kept = manifest.dense.known() if manifest.dense else []
    if isinstance(manifest.rule, Middle):
        return [*manifest.classes, *manifest.rule.ignore, *skip, *kept]
    if isinstance(manifest.rule, Regional):
        return [*manifest.rule.known(), *skip, *kept]
    return [*skip, *kept] if kept and isinstance(manifest.rule, Whole | Tiles) else []


def of_layer(found: Annotations, layer: str, known: Collection[str], name: str) -> Annotations:
    """Return the annotations of a file, those without a label with that of the file, by which `known` spells it."""
    bare = [NO_LABEL.fullmatch(item.label) is not None and item.label not in {*known} - {""} for item in found.items]
    if not any(bare):
        return found
    label = resolved([layer], known, name)
    items = zip(found.items, bare, strict=True)
    return replace(found, items=[replace(item, label=label) if is_bare else item for item, is_bare in items])


def mask_of_layer(layer: str, name: str) -> ReadError:
    """Return the error for a mask whose name states a label: its values, and nothing else, say what it shows."""
    return ReadError(
        "a mask whose name states a label, which only outlines take",
        where=name,
        found=layer or None,
        remedy="draw all labels of a slide into one mask, and leave `label` out of the pattern of [files.annotations]",
    )


def check_mask(mask: LabelMask, bounds: tuple[int, int, int, int], name: str) -> None:
    """Refuse a mask of the size of the slide's bounds (x, y, width, height), as QuPath exports it: it would be
    stretched over the whole slide.

    Raises:
        ReadError: the slide has bounds, and the mask is as large as they are, or a fraction of that; or it has the
            shape of both, and is a whole fraction of neither.
    """
    rows, columns = mask.values.shape[:2]
    both = has_shape((columns, rows), bounds[2:]) and not is_reduced((columns, rows), (mask.width, mask.height))
    if bounds != (0, 0, mask.width, mask.height) and (both or is_reduced((columns, rows), bounds[2:])):
        raise ReadError(
            f"a mask of {columns} x {rows}, which may cover the whole slide or only its bounds",
            where=name,
            found=f"a slide of {mask.width} x {mask.height} whose pixels start at {bounds[:2]}",
            remedy="if it covers the whole slide, say `bounds = false` in [layout]; else draw it so",
        )


def joined(files: Mapping[str, Annotations | LabelMask]) -> Annotations | LabelMask:
    """Return what several files hold of one slide; their ids are kept distinct.

    Raises:
        ReadError: one of several is a mask.
    """
    if len(files) == 1:
        return next(iter(files.values()))
    items, remarks = [], Counter[str]()
    for number, (name, found) in enumerate(files.items()):
        if isinstance(found, LabelMask):
            raise mask_of_layer("", name)
        items += [replace(item, id=f"{number}-{item.id}") for item in found.items]
        remarks += found.remarks
    return Annotations(items, remarks)
