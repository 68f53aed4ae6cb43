"""Masks that tell objects apart: several files for each image, one for each object, or values or colours that do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, names, pixels
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import quoted
from dpconvert.readers.draft.tree import Tree, endings

WORD = f"(?P<word>(?i:{pixels.WORDS}))"
NUMBERED = (rf"[._ -]{WORD}[._ -]?\d+", rf"[._ -]\d+[._ -]{WORD}", r"[._ -]\d+")
"""What the name of a mask has beyond that of its image; the last one only in folders that are called as masks are."""
EACH = "true  # every mask file is one object"
DENSE = (
    "[dense.seg]  # the shards keep the masks, to train on with `mtrain fit --dense`",
    'classes = ["background", "object"]',
    'unannotated = "background"',
    'labels = {object = "object"}',
    "",
    "[dense.instances]  # and the pixels of each object",
    'classes = ["object"]',
)


@dataclass(frozen=True)
class ObjectMasks:
    """Masks of objects: mask -> image, and the pattern of their names. objects: the value of the key.

    name: the stem of an image in the pattern of images. level: the level of folders that names the image instead.
    """

    images: Mapping[str, str]
    pattern: str
    objects: str
    name: str = "(?P<name>{inner})"
    level: int | None = None


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape masks with `objects`; None where no masks tell objects apart."""
    if paired := pixels.masks_of(survey):
        if not (by := _by_content(survey, sorted(paired))):
            return None
        objects = f"{quoted(by)}  # {BY[by]}"
        pattern = pixels.mask_pattern(sorted(paired), paired)
        return _draft(survey, ObjectMasks(paired, pattern, objects, pixels.image_name(paired)))
    found = next(filter(None, (*_by_folder(survey.images), *_by_number(survey.images))), None)
    return _draft(survey, found) if found else None


def _draft(survey: Survey, masks: ObjectMasks) -> Draft | None:
    images = [name for name in survey.images if name not in masks.images]
    tree = Tree.of(images)
    roles, inner, grouped = folders.grouping(tree, [], {})
    if masks.level is not None or len(set(grouped.values)) == len(images):  # a folder for each image
        roles, inner, grouped = {}, "[^/]+", folders.Grouping("image", ())
    split, layout, unclear = folders.sets(tree, roles, grouped)
    if masks.level is not None:
        roles[masks.level] = "name"
    file = rf"{pixels.filled(masks.name, inner)}\.(?i:{'|'.join(endings(images))})$"
    of_images = tree.pattern(roles, file)
    if any(re.search(of_images, mask) for mask in masks.images) or any(re.search(masks.pattern, i) for i in images):
        return None
    bare = len(set(images) - set(masks.images.values()))
    missing = f'missing = true  # {counted(bare, "image")} without a mask: left out; "none" if they show no object'
    return Draft(
        "masks",
        kind="segmentation",
        classes={"background": 0, "object": 0},
        group=grouped.what,
        why=grouped.why,
        files={
            "images": (of_images, folders.about(tree, roles)),
            "masks": (masks.pattern, f"{counted(len(masks.images), 'mask')}, like {min(masks.images)}"),
        },
        layout=(f"objects = {masks.objects}", 'label = "object"', *[missing] * bool(bare), *layout),
        rule=(
            'type = "area"              # a patch is positive where objects cover more than `share` of it',
            f"size = {pixels.side_of(survey, images):<18} # pixels: fit it to your images",
            'positive = ["object"]',
            "share = 0.1",
        ),
        dense=DENSE,
        split=split,
        remarks=(f"Taken as masks of objects: {counted(len(masks.images), 'file')}, such as {min(masks.images)}.",),
        questions=unclear,
    )


def _by_folder(images: Sequence[str]) -> Iterator[ObjectMasks | None]:
    """Masks in a folder for each image, which is called as the image or as the folder that the image is in."""
    masks = [name for name in images if _in_masks(name)]
    depth = min((name.count("/") for name in masks), default=0)
    others = [name for name in images if not _in_masks(name)]
    for at in range(depth):
        by_folder: list[tuple[Callable[[str], str], int | None, str]] = [
            (lambda name: names.stem(name), None, "(?P<name>{inner})"),
            (lambda name, at=at: _folder(name, at), at, "[^/]+"),  # type: ignore[misc]
        ]
        for key_of, level, name in by_folder:
            found = _paired({mask: _folder(mask, at) for mask in masks}, others, key_of)
            if found:
                tree = Tree.of(found)
                pattern = tree.pattern({at: "name"}, rf"[^/]+\.(?i:{'|'.join(endings(found))})$")
                yield ObjectMasks(found, pattern, EACH, name, level)


def _by_number(images: Sequence[str]) -> Iterator[ObjectMasks | None]:
    """Masks that are called as their image, with a number."""
    for suffix in NUMBERED:
        named = {name: parts["name"] for name in images if (parts := _called(name, suffix)) is not None}
        if suffix == NUMBERED[-1]:
            named = {name: called for name, called in named.items() if _in_masks(name)}
        found = _paired(named, [name for name in images if name not in named and not _in_masks(name)], names.stem)
        if found:
            ending = rf"\.(?i:{'|'.join(endings(found))})$"
            beyond = suffix.replace(WORD, _words(found, suffix))
            pattern = Tree.of(found).pattern({}, rf"(?P<name>[^/]+?){beyond}{ending}")
            beside = any(not _in_masks(mask) for mask in found)
            name = rf"(?P<name>(?![^/]*{beyond}\.[^/.]+$){{inner}})" if beside else "(?P<name>{inner})"
            yield ObjectMasks(found, pattern, EACH, name)


def _words(masks: Iterable[str], suffix: str) -> str:
    """The words for a mask in these names, as an expression."""
    called = (_called(name, suffix) for name in masks)
    words = sorted({found["word"].lower() for found in called if found and "word" in found.re.groupindex})
    return f"(?i:{'|'.join(map(names.escaped, words))})"


def _called(name: str, suffix: str) -> re.Match[str] | None:
    return re.fullmatch(rf"(?P<name>.+?){suffix}", names.stem(name))


def _in_masks(name: str) -> bool:
    return any(map(pixels.FOLDER.fullmatch, PurePosixPath(name).parts[:-1]))


def _folder(name: str, at: int) -> str:
    parts = name.split("/")[:-1]
    return parts[at] if at < len(parts) else ""


def _paired(masks: Mapping[str, str], images: Sequence[str], key_of: Callable[[str], str]) -> dict[str, str]:
    """Mask -> image, where half of the masks and more have one, and an image has several; nothing elsewhere."""
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for name in images:
        by_key[key_of(name).casefold()].append(name)
    found = {mask: by_key[key.casefold()][0] for mask, key in masks.items() if len(by_key.get(key.casefold(), ())) == 1}
    several = max(Counter(found.values()).values(), default=0) > 1
    return found if several and len(found) * 2 >= len(masks) else {}


def _by_content(survey: Survey, masks: Sequence[str]) -> str:
    """Whether "values" or "colours" of masks tell objects apart; '' if neither.

    Each is one area, and how many there are differs; values count from 1 on, and colours are others in each mask.
    """
    from scipy import ndimage

    most, areas, values, every = set[int](), 0, 0, set[int]()
    ways = set[str]()
    for name in masks[:: max(1, len(masks) // pixels.LOOKED_AT)]:
        try:
            cells, by = _cells(survey.source.read(name), name)
        except ReadError:
            return ""
        numbers = [number for number in np.unique(cells).tolist() if number]
        if not numbers:
            continue
        if by == "values" and (numbers[0] < 0 or numbers[-1] > 2 * len(numbers)):  # classes, such as 64, 128 and 255
            return ""
        if len(numbers) > MOST:
            return ""
        ways.add(by)
        most.add(numbers[-1] if by == "values" else len(numbers))
        every.update(numbers)
        values += len(numbers)
        areas += sum(ndimage.label(cells == number, np.ones((3, 3)))[1] for number in numbers)
    one_each = len(ways) == 1 and max(most, default=0) > MANY and areas <= ONE_AREA * values
    if not one_each or (ways == {"colours"} and len(every) <= 2 * max(most)):  # colours of classes recur
        return ""
    return ways.pop() if len(most) > 1 or ways == {"colours"} else ""


def _cells(data: bytes, name: str) -> tuple[NDArray[np.integer], str]:
    """The values of a mask, or its colours; and which of both."""
    try:
        return mask_pixels.read(data, name, colours=False), "values"
    except mask_pixels.ColourError:
        return mask_pixels.read(data, name, colours=True), "colours"


BY = {
    "values": "the values of a mask above 0 number its objects",
    "colours": "each colour of a mask but black is an object",
}
MOST = 5000  # objects of a mask: more values are none
MANY = 4  # objects in one of the masks, at least
ONE_AREA = 1.1  # areas of a number on average: others cover some objects, and cut them in two
