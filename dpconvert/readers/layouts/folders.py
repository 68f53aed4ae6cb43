"""Shape "folders": one image per file, with its class in the name of its folder.

The pattern of [files.images] has the named group `class`, and may have `group` (patient or slide), `split` and `name`.
Without `group`, every image is its own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dpconvert.errors import ManifestError
from dpconvert.manifest.files import FileKind
from dpconvert.readers.pairing import IMAGE, Attributes, SplitNames, layout_of, never_met, stem
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

FILES = {
    "images": FileKind(
        pattern=rf"(?:(?P<split>train|val|test)/)?(?P<class>[^/]+)/[^/]+\.(?i:{IMAGE})$",
        what="images in a folder per class",
        example="benign/patient1_0001.png",
    )
}


GROUPS = {"images": {"class", "group", "split", "name"}}


class Layout(SplitNames, Attributes):
    """`[layout]` of a manifest of this shape."""

    labels: dict[str, str] = {}
    """Folder name -> class name; other folders keep their names."""


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    images = source.need("images")
    _check_groups(source, layout)
    source.notes += never_met("labels", layout.labels, (found["class"] for found in images))
    for found in images:
        name = found.get("name") or stem(found.name)
        label = layout.labels.get(found["class"], found["class"])
        group = found.get("group") or found.name
        split, attributes = layout.set_of(found.get("split"), found.name), layout.told(found.get)
        yield SourceImage(name, (found.name,), group, label=label, split=split, attributes=attributes)


def _check_groups(source: Source, layout: Layout) -> None:
    named = re.compile(source.manifest.files["images"].pattern).groupindex
    missing = [group for group in layout.attributes.values() if group not in named]
    if missing:
        raise ManifestError(
            f"layout.attributes: the pattern of [files.images] has no group (?P<{missing[0]}>...)",
            where=source.manifest.path, found=", ".join(named) or "no named group",
        )  # fmt: skip
