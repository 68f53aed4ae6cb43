"""The images that masks belong to: what their folders and names say of class, set and patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpconvert.plural import counted
from dpconvert.readers.draft import folders, grades
from dpconvert.readers.draft.companions import copied
from dpconvert.readers.draft.toml import some
from dpconvert.readers.draft.tree import Tree


@dataclass(frozen=True)
class MaskedImages:
    """Images, and what is drafted of them.

    kind: that of the task. classes: images of each class, if folders tell it. bare: those without masks.
    """

    tree: Tree
    roles: dict[int, str]
    inner: str
    grouped: folders.Grouping
    split: tuple[str, ...]
    layout: tuple[str, ...]
    classes: Mapping[str, int]
    kind: str
    bare: tuple[str, ...]
    remarks: tuple[str, ...]
    questions: tuple[str, ...]


def of(images: Sequence[str], masks: Mapping[str, str], *, each: bool = False) -> MaskedImages:
    """What is told of images by the levels of their folders.

    masks: mask -> image. each: whether each image has a folder of its own, which is no patient.
    """
    with_mask = {*masks.values()}
    tree = Tree.of(images)
    remarks = []
    at = _class_level(tree)
    if at is None:
        homes = {name.rpartition("/")[0] for name in with_mask}
        kept = [name for name in images if name.rpartition("/")[0] in homes]
        others = [name for name in images if name.rpartition("/")[0] not in homes]
        if others:
            remarks.append(f"Left out: {counted(len(others), 'image')} in folders without masks, the first {others[0]}")
        tree = Tree.of(kept)
        at = _class_level(tree)
    labels = [] if at is None else [tree.folder(name, at) for name in tree.images]
    roles, inner, grouped = folders.grouping(tree, labels, {} if at is None else {at: "class"})
    if each or len(set(grouped.values)) == len(tree.images):  # a folder for each image
        roles, inner, grouped = {} if at is None else {at: "class"}, "[^/]+", folders.Grouping("image", ())
    split, layout, unclear = folders.sets(tree, roles, grouped)
    counts = {} if at is None else grades.in_order(tree.counts(at))
    bare = tuple(name for name in tree.images if name not in with_mask)
    questions = list(unclear)
    if at is not None:
        questions += copied(tree, at)
        remarks.append(
            f"Folders name the class of each image ({some(counts)}), and [dense.seg] keeps its mask. To label patches "
            "by the masks instead, take (?P<class>...) out of the pattern, and choose `classes` and a [rule]."
        )
        if bare:
            questions.append(
                f"{counted(len(bare), 'image')}, such as {bare[0]}, have a class and no mask: `missing = true` in "
                "[layout] leaves them out, and an empty mask beside each says that it shows no object"
            )
    kind = "segmentation" if at is None else "ordinal" if grades.are_grades("", counts) else "classification"
    return MaskedImages(
        tree, roles, inner, grouped, split, layout, counts, kind, bare, tuple(remarks), tuple(questions)
    )


def _class_level(tree: Tree) -> int | None:
    found = tree.at("class")
    return found[0] if len(found) == 1 and not tree.at("unclear") else None
