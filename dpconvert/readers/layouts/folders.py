"""Shape "folders": one picture a file, its class in the name of its folder.

[files.images] pattern: named groups `class`, and optionally `group` (patient or slide), `split`, `name`.
Without `group`, every picture is its own group. [layout] labels maps folders' names to class names.
"""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.card import Model
from dpconvert.manifest.model import FileKind
from dpconvert.readers.pairing import IMAGE, as_split, layout_of, never_met, stem
from dpconvert.source.files import Source
from dpconvert.source.record import Picture

FILES = {
    "images": FileKind(
        pattern=rf"(?:(?P<split>train|val|test)/)?(?P<class>[^/]+)/[^/]+\.(?i:{IMAGE})$",
        what="pictures in a folder per class",
        example="benign/patient1_0001.png",
    )
}


GROUPS = {"images": {"class", "group", "split", "name"}}


class Layout(Model):
    """`[layout]` of a manifest of this shape."""

    labels: dict[str, str] = {}


def pictures(source: Source) -> Iterator[Picture]:
    labels = layout_of(source.manifest, Layout).labels
    images = source.need("images")
    source.notes += never_met("labels", labels, (found["class"] for found in images))
    for found in images:
        name = found.get("name") or stem(found.name)
        label = labels.get(found["class"], found["class"])
        group = found.get("group") or found.name
        yield Picture(name, (found.name,), group, label=label, split=as_split(found.get("split")))
