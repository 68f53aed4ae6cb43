"""Masks that tell objects apart: several files for each image, one for each object, or values or colours that do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, naming
from dpconvert.readers.draft.masks import masked_images as masked
from dpconvert.readers.draft.masks import pairs, patterns
from dpconvert.readers.draft.masks.mask_files import in_mask_folders, masks_of, without_image
from dpconvert.readers.draft.masks.mask_values import LOOKED_AT
from dpconvert.readers.draft.masks.pairs import NamePlace
from dpconvert.readers.draft.masks.pixels import side_of
from dpconvert.readers.draft.masks.words import WORDS
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import quoted, some
from dpconvert.readers.draft.tree import Tree, endings

WORD = f"(?P<word>(?i:{WORDS}))"
NUMBERED = (rf"[._ -]{WORD}(?:[._ -]?\d+)?", rf"[._ -]\d+[._ -]{WORD}", r"(?:[._ -]\d+)?")
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
    place: where paths tell images of one name apart.
    """

    images: Mapping[str, str]
    pattern: str
    objects: str
    name: str = "(?P<name>{inner})"
    level: int | None = None
    place: NamePlace | None = None


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape masks with `objects`; None where no masks tell objects apart."""
    found = next(filter(None, _by_number(survey.images)), None)
    if found is None and (paired := masks_of(survey)):
        if not (by := _by_content(survey, sorted(paired))):
            return None
        objects = f"{quoted(by)}  # {BY[by]}"
        place = patterns.place_of(paired, [name for name in survey.images if name not in paired])
        pattern = patterns.of_masks(paired, place)
        found = ObjectMasks(paired, pattern, objects, patterns.image_name(paired), place=place)
    found = found or next(filter(None, _by_folder(survey.images)), None)
    return _draft(survey, found) if found else None


def _draft(survey: Survey, masks: ObjectMasks) -> Draft | None:
    in_masks = in_mask_folders(survey.images)
    every = [name for name in survey.images if name not in masks.images and name not in in_masks]
    images = masked.of(every, masks.images, each=masks.level is not None)
    tree, roles = images.tree, images.roles
    if masks.level is not None:
        roles[masks.level] = "name"
    file = rf"{patterns.filled(masks.name, images.inner)}\.(?i:{'|'.join(endings(tree.images))})$"
    of_images = tree.pattern(roles, file) if masks.place is None else masks.place.of_images(tree, roles, file)
    if any(re.search(of_images, mask) for mask in masks.images) or any(re.search(masks.pattern, i) for i in every):
        return None
    bare = len(images.bare)
    missing = f'missing = true  # {counted(bare, "image")} without a mask: left out; "none" if they show no object'
    rule = (
        'type = "area"              # a patch is positive where objects cover more than `share` of it',
        f"size = {side_of(survey, tree.images):<18} # pixels: fit it to your images",
        'positive = ["object"]',
        "share = 0.1",
    )
    return Draft(
        "masks",
        kind=images.kind,
        classes=images.classes or {"background": 0, "object": 0},
        group=images.grouped.what,
        why=images.grouped.why,
        files={
            "images": (of_images, folders.about(tree, roles)),
            "masks": (masks.pattern, f"{counted(len(masks.images), 'mask')}, like {min(masks.images)}"),
        },
        layout=(f"objects = {masks.objects}", 'label = "object"', *[missing] * bool(bare), *images.layout),
        rule=() if images.classes else rule,
        dense=DENSE,
        split=images.split,
        remarks=(
            f"Taken as masks of objects: {counted(len(masks.images), 'file')}, such as {min(masks.images)}.",
            *images.remarks,
        ),
        questions=(
            *images.questions,
            *without_image(survey, masks.images),
            *_in_folders(masks),
            *_overlapping(survey, masks),
        ),
    )


def _in_folders(masks: ObjectMasks) -> Iterator[str]:
    """Masks of one image in several folders, which are those of classes or of annotators."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for mask, image in masks.images.items():
        homes[image].add(mask.rpartition("/")[0])
    found = sorted(set().union(*(of for of in homes.values() if len(of) > 1)))
    if found:
        yield (
            f"Masks of one image lie in several folders ({some(found)}): if these are their classes, name them "
            "(?P<class>...) in the pattern of [files.masks], and list `classes`, also under [dense]; if they are of "
            "several annotators, let the pattern match one folder"
        )


def _overlapping(survey: Survey, masks: ObjectMasks) -> Iterator[str]:
    """Masks of one image that mark the same pixels: those of several annotators, or of nested classes."""
    of_image: defaultdict[str, list[str]] = defaultdict(list)
    for mask, image in masks.images.items():
        of_image[image].append(mask)
    several = [found for found in of_image.values() if len(found) > 1]
    for found in several[:: max(1, len(several) // LOOKED_AT)]:
        seen: NDArray[np.bool_] | None = None
        for mask in found[:MOST]:
            try:
                cells = _cells(survey.source.read(mask), mask)[0] != 0
            except ReadError:
                return  # which the check reports
            if seen is not None and seen.shape == cells.shape and (seen & cells).sum() * 2 > cells.sum() > 0:
                yield (
                    f"{mask} marks pixels that another mask of its image marks, too: if masks of one image are by "
                    "several annotators, or of several classes, leave all but one out of the pattern of [files.masks], "
                    "or name (?P<class>...) in it; if objects overlap, nothing need change"
                )
                return
            seen = cells if seen is None or seen.shape != cells.shape else seen | cells


def _by_folder(images: Sequence[str]) -> Iterator[ObjectMasks | None]:
    """Masks in a folder for each image, which is called as the image or as the folder that the image is in."""
    in_masks = in_mask_folders(images)
    masks = [name for name in images if name in in_masks]
    depth = min((name.count("/") for name in masks), default=0)
    others = [name for name in images if name not in in_masks]
    for at in range(depth):
        by_folder: list[tuple[Callable[[str], str], int | None, str]] = [
            (lambda name: naming.stem(name), None, "(?P<name>{inner})"),
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
    in_masks = in_mask_folders(images)
    for suffix in NUMBERED:
        named = {name: parts["name"] for name in images if (parts := _called(name, suffix)) is not None}
        if suffix == NUMBERED[-1]:
            named = {name: called for name, called in named.items() if name in in_masks}
        called = {name: naming.stem(name) for name in images if name not in named and name not in in_masks}
        if suffix == NUMBERED[-1] and any(re.search(r"[._ -]\d+$", stem) for stem in called.values()):
            suffix = r"[._ -]\d+"  # which images have, too
            named = {name: parts["name"] for name in named if (parts := _called(name, suffix)) is not None}
        found = _several(pairs.paired(named, called))
        if found:
            place = NamePlace.of(found, {mask: named[mask] for mask in found}, called)
            tree, beyond = Tree.of(found), suffix.replace(WORD, _words(found, suffix))
            file = rf"(?P<name>[^/]+?){beyond}\.(?i:{'|'.join(endings(found))})$"
            pattern = tree.pattern({}, file) if place is None else place.of_masks(tree, file)
            beside = any(mask not in in_masks for mask in found)
            name = rf"(?P<name>(?![^/]*{beyond}\.[^/.]+$){{inner}})" if beside else "(?P<name>{inner})"
            yield ObjectMasks(found, pattern, EACH, name, place=place)


def _several(found: dict[str, str]) -> dict[str, str]:
    """The pairs, if an image has several masks."""
    return found if max(Counter(found.values()).values(), default=0) > 1 else {}


def _words(masks: Iterable[str], suffix: str) -> str:
    """The words for a mask in these names, as an expression."""
    called = (_called(name, suffix) for name in masks)
    words = sorted({found["word"].lower() for found in called if found and "word" in found.re.groupindex})
    return f"(?i:{'|'.join(map(naming.escaped, words))})"


def _called(name: str, suffix: str) -> re.Match[str] | None:
    return re.fullmatch(rf"(?P<name>.+?){suffix}", naming.stem(name))


def _folder(name: str, at: int) -> str:
    parts = name.split("/")[:-1]
    return parts[at] if at < len(parts) else ""


def _paired(masks: Mapping[str, str], images: Sequence[str], key_of: Callable[[str], str]) -> dict[str, str]:
    """Mask -> image, where half of the masks and more have one, and an image has several; nothing elsewhere."""
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for name in images:
        by_key[key_of(name).casefold()].append(name)
    found = {mask: by_key[key.casefold()][0] for mask, key in masks.items() if len(by_key.get(key.casefold(), ())) == 1}
    return _several(found) if len(found) * 2 >= len(masks) else {}


def _by_content(survey: Survey, masks: Sequence[str]) -> str:
    """Whether "values" or "colours" of masks tell objects apart; '' if neither.

    Each is one area, and how many there are differs; values count from 1 on, and colours are others in each mask.
    """
    from scipy import ndimage

    most, areas, values, every = set[int](), 0, 0, set[int]()
    ways = set[str]()
    for name in masks[:: max(1, len(masks) // LOOKED_AT)]:
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
