"""A table that labels images which also have masks: the label of each image, and its mask kept beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dpconvert.plural import counted
from dpconvert.readers.draft import folders, tables
from dpconvert.readers.draft.listings import listings
from dpconvert.readers.draft.masks import objects, patterns
from dpconvert.readers.draft.masks.mask_files import in_mask_folders, masks_of, without_image
from dpconvert.readers.draft.masks.mask_values import all_values, value_lines
from dpconvert.readers.draft.masks.pixels import NamedValues
from dpconvert.readers.draft.slide_tables import StatedSlides
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import some
from dpconvert.readers.draft.tree import Tree

KEPT = (
    "The table states the label of each image, and [dense.seg] keeps its mask. To label patches by the masks instead, "
    "leave [files.table] and `label` out, and choose `classes` and a [rule]."
)
WHOLE = 'type = "whole"           # a sample is an image, with the label that the table states'


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape slides, which reads both; None without masks or such a table, or where it cannot."""
    masks = masks_of(survey)
    in_masks = in_mask_folders(survey.images) if masks else set()
    every = [name for name in survey.images if name not in masks and name not in in_masks]
    stated = StatedSlides.of(survey, every, "image") if masks else None
    if stated is None or all(map(tables.lists_sets, listings(survey)[0])):
        return None
    values, wrong = all_values(survey, sorted(masks))
    if wrong or patterns.place_of(masks, every) is not None or objects.draft(survey) is not None:
        return None
    labels = stated.labelled(Draft("slides"))
    if not labels.classes and labels.kind != "regression":
        return None
    tree = Tree.of(every)
    roles, inner, grouped = folders.grouping(tree, [], {})
    if stated.states_groups:
        roles, inner = {}, "[^/]+"
    split, lines, unclear = folders.sets(tree, roles, grouped)
    bare = [name for name in tree.images if name not in {*masks.values()}]
    named = NamedValues.of(survey, values, labels.classes)
    found = Draft(
        "slides",
        group=grouped.what,
        why=grouped.why,
        files={
            "slides": (patterns.of_images(tree, roles, inner, masks, None), folders.about(tree, roles)),
            "annotations": (patterns.of_masks(masks, None), f"{counted(len(masks), 'mask')}, like {min(masks)}"),
        },
        layout=(*_missing(bare), *value_lines(named.called, named.about), *lines),
        rule=(WHOLE,),
        split=split,
        dense=named.kept(),
        remarks=(KEPT, *named.remarks),
        questions=(*_unnamed(named, values), *unclear, *without_image(survey, masks)),
    )
    return stated.added(stated.labelled(found))


def _missing(bare: Sequence[str]) -> Iterator[str]:
    if bare:
        images = f"{counted(len(bare), 'image')} without a mask, the first {bare[0]}"
        yield f'missing = "none"  # {images}: kept, their pixels not annotated; true leaves them out'


def _unnamed(named: NamedValues, values: Mapping[str, int]) -> Iterator[str]:
    if not named.certain:
        yield (
            f"The masks hold {counted(len(values), 'value')} ({some(values)}), and nothing says what they are called: "
            "name them under `values` and, in the same words, in [dense.seg]"
        )
