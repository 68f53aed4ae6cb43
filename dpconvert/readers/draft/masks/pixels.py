"""Masks whose values or colours are classes: a manifest of the shape masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dpconvert.image.header import complete_size
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, naming
from dpconvert.readers.draft.masks import masked_images as masked
from dpconvert.readers.draft.masks import patterns
from dpconvert.readers.draft.masks.mask_files import in_mask_folders, masks_of, without_image
from dpconvert.readers.draft.masks.mask_values import all_values, default_names, inverted, is_binary, value_lines
from dpconvert.readers.draft.masks.value_names import NOT_ANNOTATED, ValueNames, value_names
from dpconvert.readers.draft.masks.words import CHANNEL
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import some, strings

PATCH = 256  # side in pixels, where the images are not smaller
MEASURED = 50  # images
KEPT = "[dense.seg]  # the shards keep the masks, to train on with `mtrain fit --dense`"


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape masks; None where no masks are beside images."""
    masks = masks_of(survey)
    if not masks:
        return None
    in_masks = in_mask_folders(survey.images)
    every = [name for name in survey.images if name not in masks and name not in in_masks]
    images = masked.of(every, masks)
    place = patterns.place_of(masks, every)
    values, questions = all_values(survey, sorted(masks))
    stated = value_names(survey, values, images.classes)
    called = stated.names if stated else default_names(values)
    certain = stated is not None or is_binary(values)
    if values and not certain:
        questions.append(_which(values))
    if stated is None and is_binary(values):
        questions += inverted(survey, sorted(masks))
    if channels := [name for name in images.bare if CHANNEL.search(naming.stem(name))]:
        questions.append(
            f"{counted(len(channels), 'file')} such as {channels[0]} may be further channels of images, as nnU-Net "
            "keeps them apart: they are not put together. If so, save red, green and blue as one image"
        )
    classes = list(dict.fromkeys(name for name in called.values() if not NOT_ANNOTATED.fullmatch(name)))
    ignored = [name for name in dict.fromkeys(called.values()) if name not in classes]
    side = side_of(survey, images.tree.images)
    certain = certain and len(classes) > 1
    about = f"as {stated.file} says" if stated else "names are ours, to be changed"
    return Draft(
        "masks",
        kind=images.kind,
        classes=images.classes or (dict.fromkeys(classes, 0) if certain else {}),
        group=images.grouped.what,
        why=images.grouped.why,
        files={
            "images": (
                patterns.of_images(images.tree, images.roles, images.inner, masks, place),
                folders.about(images.tree, images.roles),
            ),
            "masks": (patterns.of_masks(masks, place), f"{counted(len(masks), 'mask')}, like {min(masks)}"),
        },
        layout=(*_missing(images.bare), *value_lines(called if values else {}, about), *images.layout),
        rule=() if images.classes else _rule(side, called, classes, ignored, certain=certain),
        split=images.split,
        dense=_kept(classes, ignored) if certain else (),
        remarks=(*images.remarks, *_remarks(stated)),
        questions=(*questions, *images.questions, *without_image(survey, masks)),
    )


def _which(values: Mapping[str, int]) -> str:
    by = "colours" if any(value.startswith("#") for value in values) else "values"
    return (
        f"The masks hold {counted(len(values), 'value')} ({some(values)}), and nothing says what they are called "
        "or which of them make a patch positive: name them under `values`, and choose `classes` and a [rule]; "
        f'if they tell objects apart, state `objects = "{by}"` in place of `values`'
    )


def _remarks(stated: ValueNames | None) -> tuple[str, ...]:
    if stated is None:
        return ()
    return (f"What the masks' values are called is taken from {stated.file}: see that it is about them.",)


def _kept(classes: list[str], ignored: list[str]) -> tuple[str, ...]:
    """The table that keeps the masks beside the labels."""
    lines = (KEPT, f"classes = {strings(classes)}")
    return (*lines, f"ignore = {strings(ignored)}") if ignored else lines


def _missing(bare: Iterable[str]) -> list[str]:
    if not (found := list(bare)):
        return []
    return [
        f"missing = true  # {counted(len(found), 'image')} without a mask, the first {found[0]}: left out and counted"
    ]


def side_of(survey: Survey, images: Iterable[str]) -> int:
    """The side of a patch in pixels that lies in each of the first images: many are smaller than PATCH."""
    sizes = [complete_size(survey.source.file(name)) for name in list(images)[:MEASURED]]
    return min([PATCH, *(side for size in sizes if size is not None for side in size)])


def _rule(
    side: int, called: Mapping[str, str], classes: list[str], ignored: list[str], *, certain: bool
) -> tuple[str, ...]:
    size = f"size = {side:<18} # pixels: fit it to your images"
    first = called.get("0") or called.get("#000000")
    if certain and ([first] != classes[:-1] or ignored):
        return (
            'type = "middle"            # the class of a patch covers more than `share` of it; others are left out',
            size,
            "share = 0.5",
            *[f"ignore = {strings(ignored)}"] * bool(ignored),
        )
    lines = (
        'type = "area"              # a patch is positive where the mask covers more than `share` of it',
        size,
        f"positive = {strings(classes[1:2] or ['object'])}",
        "share = 0.5",
    )
    return lines if certain else tuple(f"# {line}" for line in lines)
