"""Patterns of the names of images and of their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dpconvert.readers.draft import naming
from dpconvert.readers.draft.masks.pairs import NamePlace
from dpconvert.readers.draft.masks.words import bare, own
from dpconvert.readers.draft.tree import Tree, endings


def place_of(masks: Mapping[str, str], images: Iterable[str]) -> NamePlace | None:
    """Where paths tell images of one name apart; None where names do.

    masks: mask -> image. images: all of them, also those without a mask.
    """
    partner = {image: mask for mask, image in masks.items()}
    called = {name: _called(partner[name], name) if name in partner else naming.stem(name) for name in images}
    return NamePlace.of(masks, {mask: called[image] for mask, image in masks.items()}, called)


def of_images(
    tree: Tree, roles: Mapping[int, str], inner: str, masks: Mapping[str, str], place: NamePlace | None
) -> str:
    """The pattern of images; inner: an expression of their stems."""
    file = rf"{filled(image_name(masks), inner)}\.(?i:{'|'.join(endings(tree.images))})$"
    return tree.pattern(roles, file) if place is None else place.of_images(tree, roles, file)


def image_name(masks: Mapping[str, str]) -> str:
    """The names of images, which end as none of the masks does; `filled` puts an expression of the stem in."""
    own_before, own_after = _around({image: _called(mask, image) for mask, image in masks.items()})
    if any(own_before):
        return f"(?={{inner}}){_one_of(own_before)}(?P<name>[^/]+?){_one_of(own_after)}"
    if any(own_after):
        return f"(?P<name>{{inner}}){_one_of(own_after)}"
    before, after = _around({mask: _called(mask, image) for mask, image in masks.items()})
    barred = "".join(f"(?!{naming.escaped(beginning)})" for beginning in before if beginning)
    return f"{barred}(?P<name>{{inner}})" + "".join(f"(?<!{naming.escaped(ending)})" for ending in after if ending)


def filled(name: str, inner: str) -> str:
    """The names of images with the expression of a stem."""
    return name.replace("(?={inner})", "" if inner == "[^/]+" else f"(?={inner})").replace("{inner}", inner)


def of_masks(masks: Mapping[str, str], place: NamePlace | None) -> str:
    """Folders of masks as they are, and the beginning and the end of their names that images lack."""
    tree = Tree.of(sorted(masks))
    before, after = map(_one_of, _around({mask: _called(mask, image) for mask, image in masks.items()}))
    file = rf"{before}(?P<name>[^/]+?){after}\.(?i:{'|'.join(endings(masks))})$"
    return tree.pattern({}, file) if place is None else place.of_masks(tree, file)


def _around(called: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What names of files have at their beginning, and at their end, beyond what they are called."""
    before, after = set[str](), set[str]()
    for file, name in called.items():
        stem = naming.stem(file)
        at = 0 if stem.casefold().startswith(name.casefold()) else len(stem) - len(name)
        before.add(stem[:at])
        after.add(stem[at + len(name) :])
    return sorted(before), sorted(after)


def _called(mask: str, image: str) -> str:
    """What a mask and its image have in common."""
    stem, of_mask = naming.stem(image), naming.stem(mask)
    wanted = {of_mask.casefold(), bare(of_mask).casefold()}
    return next((called for called in own(stem) if called.casefold() in wanted), stem)


def _one_of(texts: list[str]) -> str:
    """An expression of these texts."""
    listed = "|".join(map(naming.escaped, texts))
    return listed if len(texts) == 1 else f"(?:{listed})"
