"""Shape "masks": images with masks whose values or colours are classes, or that tell objects apart.

[files.images] and [files.masks] are paired by their named group `name`, and by `folder` where names repeat in several
folders. [files.images] may also name `group`, `split`, and `class`, the class of the whole image, for the rules `whole`
and `tiles`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Self

from pydantic import model_validator

from dpconvert import names
from dpconvert.annotations import Annotation, Annotations, LabelMask, mask_pixels, masks, object_masks
from dpconvert.annotations.mask_pixels import Value
from dpconvert.errors import ManifestError, SourceError
from dpconvert.image import Image
from dpconvert.manifest.catalog import is_packaged
from dpconvert.manifest.files import FileKind
from dpconvert.manifest.rules import Tiles, Whole
from dpconvert.plural import counted
from dpconvert.readers.layout_keys import Idle, Missing, SetLists, layout_of
from dpconvert.readers.pairing import IMAGE, no_partner, no_white_zero, paired
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "images": FileKind(pattern=rf"(?i)(^|/)images/(?P<name>[^/]+)\.{IMAGE}$", what="images", example="images/0001.png"),
    "masks": FileKind(
        pattern=rf"(?i)(^|/)masks/(?P<name>[^/]+?)(_mask)?\.{IMAGE}$", what="masks", example="masks/0001.png"
    ),
}

MORE_FILES = ("sets",)
GROUPS = {
    "images": {"name", "folder", "class", "group", "split"},
    "masks": {"name", "folder", "class"},
    "sets": {"split"},
}


class Layout(SetLists):
    """`[layout]` of a manifest of this shape."""

    values: dict[Value, str] = {}
    """Value or colour -> class name, such as `{0 = "background", 255 = "tumour"}` or `{"#ff0000" = "tumour"}`."""
    threshold: int | None = None
    """Values above it become 1 and others 0 before `values` is looked up; with `objects = true`, a mask may
    have one value above 0 if not given. A mask of 0 and 1 with a higher threshold than 0 is refused.
    """
    white_is_zero: masks.WhiteIsZero = ""
    """Which values count of TIFFs whose zero is white: `"shown"`, as viewers show them, or `"stored"`; masks that allow
    both are refused if not given.
    """
    missing: Missing = "error"
    """Images without a mask: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and counts
    them; with `objects`, `"none"` says that they show none.
    """
    objects: bool | Literal["values", "colours"] = False
    """Whether masks tell objects apart: with `true`, every mask file is one object; with `"values"`, the values above 0
    of a mask number its objects; with `"colours"`, each colour but black is an object. An image may have several mask
    files then. The class of the objects is what the pattern of the masks names `class`, else `label`.
    """
    label: str = ""
    """Class of the objects."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.values and not self.objects:
            raise ValueError("`values` is needed: value or colour -> class name")
        if self.missing == "none" and not self.objects:
            raise ValueError('`missing = "none"` is not for masks: draw an empty mask, or say true to leave images out')
        return self


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    source.need("images")
    source.notes += _unused_class(source)
    if layout.objects:
        yield from (
            _source_image(source, image, files, layout) for image, files in _with_objects(source, layout.missing)
        )
        source.notes += layout.unmet()
        return
    if (twice := _twice(source.match("masks"))) is not None:
        remedy = "if each mask file is one object, say `objects = true` in the manifest's [layout]"
        raise SourceError(
            "two masks of one image", where=twice.name, remedy=None if is_packaged(source.manifest) else remedy
        )
    found = paired(source, "images", "masks", missing=layout.missing, key=_key_of)
    pairs = [(image, mask) for image, mask in found if mask]
    if layout.threshold is None and not is_packaged(source.manifest):
        _check_palettes(source, [mask.name for _, mask in pairs], [v for v in layout.values if isinstance(v, int)])
    for image, mask in pairs:
        yield _source_image(source, image, [mask], layout)
    source.notes += layout.unmet()


def idle(source: Source) -> Iterator[Idle]:
    layout = layout_of(source.manifest, Layout)
    yield from no_white_zero(source, (mask.name for mask in source.match("masks")), layout.white_is_zero)
    if layout.objects:
        yield ("values",), "with `objects`, masks tell objects apart, not classes"
        if layout.objects is not True:
            yield ("threshold",), f"the {layout.objects} of the masks tell objects apart"
    else:
        yield ("label",), "without `objects`, classes come from `values`"


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask:
    layout, size = layout_of(source.manifest, Layout), (image.width, image.height)
    if layout.objects:
        return _objects(source, source_image, layout, size)
    name = source_image.annotations[0]
    return masks.read(
        source.read(name), name, layout.values, size, threshold=layout.threshold, white_is_zero=layout.white_is_zero
    )


def _labels_images(source: Source) -> bool:
    """Whether samples have the class of their image, not one by masks."""
    return isinstance(source.manifest.rule, Whole | Tiles)


def _unused_class(source: Source) -> Iterator[str]:
    if "class" in re.compile(source.manifest.files["images"].pattern).groupindex and not _labels_images(source):
        rule = source.manifest.rule.type
        yield f"not used: (?P<class>...) in the pattern of [files.images], since the rule {rule!r} labels by masks"


def _source_image(source: Source, image: MatchedFile, of_it: list[MatchedFile], layout: Layout) -> SourceImage:
    name, split = _key_of(image), layout.set_of(image.get("split"), image.name)
    labels = {f"class of {mask.name}": mask.get("class") for mask in of_it if mask.get("class")}
    return SourceImage(
        name,
        (image.name,),
        image.get("group") or name,
        label=(image.get("class") or None) if _labels_images(source) else None,
        split=split,
        annotations=tuple(mask.name for mask in of_it),
        extra=labels,
    )


def _key_of(found: MatchedFile) -> str:
    """What an image and its masks are called alike."""
    folder = found.get("folder")
    return f"{folder}/{found['name']}" if folder else found["name"]


def _check_palettes(source: Source, names_of: list[str], indexes: list[int]) -> None:
    """Refuse masks whose palettes give one colour to different values that the manifest names: programs that make a
    palette for each file order its colours as they like.

    Raises:
        SourceError: there are two such masks.
    """
    seen: dict[int, tuple[int, str]] = {}  # colour -> the first index with it, and its file
    for name in names_of if len(indexes) > 1 else ():
        colours = mask_pixels.palette(source.read(name))
        of_index = {index: colours[index] for index in indexes if index in colours}
        if len(set(of_index.values())) < len(of_index):
            continue  # a palette that does not tell these values apart says nothing of them
        for index, colour in of_index.items():
            first, where = seen.setdefault(colour, (index, name))
            if first != index:
                raise SourceError(
                    f"masks whose palettes contradict each other: {mask_pixels.shown(colour, colours=True)} is value "
                    f"{index} here, and value {first} in {where}",
                    where=name,
                    remedy="name the colours in the manifest's `values` instead of numbers, or, if the numbers are "
                    "right, save the masks in grey",
                )


def _twice(found: list[MatchedFile]) -> MatchedFile | None:
    """Return a mask whose image has another mask too, or None."""
    often = Counter(map(_key_of, found))
    of_one = [mask for mask in found if often[_key_of(mask)] > 1]
    return of_one[1] if of_one else None


def _with_objects(source: Source, missing: Missing) -> Iterator[tuple[MatchedFile, list[MatchedFile]]]:
    """Each image with all masks of its name; what has none as `missing` says."""
    of_name: dict[str, list[MatchedFile]] = defaultdict(list)
    for mask in source.need("masks"):
        of_name[names.folded(_key_of(mask))].append(mask)
    images = source.need("images")
    first_of: dict[str, str] = {}
    for image in images:
        if (first := first_of.setdefault(names.folded(_key_of(image)), image.name)) != image.name:
            remedy = "name the folders that tell them apart, as (?P<folder>...), in the patterns of images and masks"
            raise SourceError("two images of one name", where=image.name, found=first, remedy=remedy)
    alone = [image for image in images if names.folded(_key_of(image)) not in of_name]
    if alone and missing == "error":
        raise no_partner(source, "masks", alone[0])
    if alone and missing == "skip":
        source.notes.append(f"left out: {counted(len(alone), 'image')} without masks, the first {alone[0].name}")
    if len(alone) == len(images):
        raise SourceError(
            "no mask belongs to an image here",
            where=next(iter(of_name.values()))[0].name,
            expected=f"the name of an image, as {_key_of(images[0])!r}",
            remedy="change the patterns of [files.images] and [files.masks]: their group `name` must be equal",
        )
    unused = of_name.keys() - first_of.keys()
    if unused:
        first = min(of_name[name][0].name for name in unused)
        source.notes.append(f"not used: masks of {counted(len(unused), 'name')} of no image here, the first {first}")
    for image in images:
        if image not in alone or missing == "none":
            yield image, of_name.get(names.folded(_key_of(image)), [])


def _objects(source: Source, image: SourceImage, layout: Layout, size: tuple[int, int]) -> Annotations:
    items: list[Annotation] = []
    remarks: Counter[str] = Counter()
    for number, name in enumerate(image.annotations):
        label = image.extra.get(f"class of {name}", layout.label)
        if not label:
            remedy = "give `label` in [layout], or a group (?P<class>...) in the pattern of [files.masks]"
            raise ManifestError("no class for the objects of masks", where=source.manifest.path, remedy=remedy)
        mask = _object_mask(source, name, label, layout, size)
        found = mask.objects([label]).items
        items += [replace(item, id=_key(number, item, layout)) for item in found]
        remarks["mask without an object"] += not found
        remarks.update(mask.remarks)
    return Annotations(items, +remarks)


def _object_mask(source: Source, name: str, label: str, layout: Layout, size: tuple[int, int]) -> LabelMask:
    data = source.read(name)
    if layout.objects == "colours":
        return object_masks.read_coloured(data, name, label, size)
    if layout.objects == "values":
        return object_masks.read_numbered(data, name, label, size, white_is_zero=layout.white_is_zero)
    return object_masks.read_single(
        data, name, label, size, threshold=layout.threshold, white_is_zero=layout.white_is_zero
    )


def _key(number: int, item: Annotation, layout: Layout) -> str:
    """Return what tells an object from the others of its image: the number of its file, and its own in the file."""
    return str(number) if layout.objects is True else f"{number}-{item.id}"
