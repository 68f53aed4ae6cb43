"""Shape "folders": one image per file, with its class in the name of its folder.

The pattern of [files.images] has the named group `class`, and may have `group` (patient or slide), `split` and `name`.
Without `group`, every image is its own group. In place of `class`, images with any number of classes (kind
`multilabel`) have the group `labels`, or `indicators`, a text of 0 and 1 for each class; those with a number (kind
`regression`) have `value`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from dpconvert import names
from dpconvert.card import Target
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.readers.labels import ALL, ManyLabels, check_many, in_text, parts_of
from dpconvert.readers.layout_keys import Attributes, SetLists, layout_of, never_named
from dpconvert.readers.pairing import IMAGE, stem
from dpconvert.source import target
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "images": FileKind(
        pattern=rf"(?:(?P<split>train|val|test)/)?(?P<class>[^/]+)/[^/]+\.(?i:{IMAGE})$",
        what="images in a folder per class",
        example="benign/patient1_0001.png",
    )
}


MORE_FILES = ("sets",)
TARGETS = ALL
LABELS: dict[Target, tuple[str, ...]] = {"class": ("class",), "labels": ("labels", "indicators"), "value": ("value",)}
GROUPS = {"sets": {"split"}, "images": {"class", "labels", "indicators", "value", "group", "split", "name"}}


class Layout(ManyLabels, SetLists, Attributes):
    """`[layout]` of a manifest of this shape."""

    labels: dict[str, str] = {}
    """Folder name -> class name; other folders keep their names."""


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    images = source.need("images")
    _check_groups(source, layout)
    named = _named_group(source)
    check_many(source.manifest, layout, as_list=named == "labels")
    read = _reader(source, layout, named)
    texts = [text for found in images for text in _texts(found[named], layout, named)]
    source.notes += never_named(layout, ("labels", "none"), texts)
    for found in images:
        name = found.get("name") or stem(found.name)
        label = read(found)
        group = found.get("group") or found.name
        split, attributes = layout.set_of(found.get("split"), found.name), layout.values_of(found.get)
        yield SourceImage(name, (found.name,), group, label=label, split=split, attributes=attributes)
    source.notes += layout.unmet()


def _named_group(source: Source) -> str:
    """Return the named group of the pattern that holds labels."""
    pattern = re.compile(source.manifest.files["images"].pattern).groupindex
    wanted = LABELS[source.manifest.target]
    given = [group for group in wanted if group in pattern]
    if source.manifest.target != "class" and len(given) != 1:
        raise ManifestError(
            f"kind {source.manifest.kind!r} needs one of these groups in the pattern of [files.images]",
            where=source.manifest.path,
            expected=" or ".join(f"(?P<{group}>...)" for group in wanted),
            found=", ".join(pattern) or "no named group",
        )
    return given[0] if given else "class"


def _texts(text: str, layout: Layout, group: str) -> list[str]:
    """Return the texts that `labels` or `none` may name."""
    return [text, *parts_of(text, layout)] if group == "labels" else [text]


def _reader(source: Source, layout: Layout, group: str) -> Callable[[MatchedFile], str]:
    """Return a function that reads the label of a file from the named group."""

    def known(text: str) -> str:
        key = names.match(text, layout.labels)
        return text if key is None else layout.labels[key]

    def read(found: MatchedFile) -> str:
        text = found[group]
        try:
            if group == "value":
                return target.of_number(text)
            if group == "indicators":
                return target.of_indicators(target.bits_of(text), source.manifest.classes)
        except ValueError as error:
            raise SourceError(
                str(error), where=found.name, remedy="correct the pattern of [files.images], or rename the file"
            ) from None
        return known(text) if group == "class" else in_text(text, layout, known, found.name)

    return read


def _check_groups(source: Source, layout: Layout) -> None:
    named = re.compile(source.manifest.files["images"].pattern).groupindex
    missing = [group for group in layout.attributes.values() if group not in named]
    if missing:
        raise ManifestError(
            f"layout.attributes: the pattern of [files.images] has no group (?P<{missing[0]}>...)",
            where=source.manifest.path,
            found=", ".join(named) or "no named group",
        )
