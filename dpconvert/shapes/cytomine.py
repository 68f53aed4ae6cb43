"""Shape "cytomine": an export of a Cytomine project, with its slides or with the crops already cut.

With slides: annotations.json (with WKT and terms), images.json, terms.json as the client or the server lists them, and
the slides under their original file names. With crops: <term id or name>/<image id>_<annotation id>.png.
[layout] labels maps term names or ids to class names; terms that it lacks are left out. Without it every term is a
class, in order of term id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from dpconvert.annotations import Annotations, cytomine
from dpconvert.errors import ReadError, SourceError
from dpconvert.fakes import FakeTree
from dpconvert.manifest import FileKind
from dpconvert.record import Picture
from dpconvert.slide import Image
from dpconvert.source import Source

FILES = {
    "annotations": FileKind(
        pattern=r"(^|/)annotations\.json$", what="list of annotations", example="annotations.json", optional=True
    ),
    "images": FileKind(pattern=r"(^|/)images\.json$", what="list of images", example="images.json", optional=True),
    "terms": FileKind(pattern=r"(^|/)terms\.json$", what="list of terms", example="terms.json", optional=True),
    "slides": FileKind(
        pattern=r"(?i)\.(svs|ndpi|mrxs|scn|tiff?|bif|svslide|vms)$",
        what="slides",
        example="slides/M12.tif",
        optional=True,
    ),
    "crops": FileKind(
        pattern=r"(^|/)(?P<term>[^/]+)/(?P<name>(?:[^/_]+_)?(?P<image>\d+)_\d+)\.(png|jpg)$",
        what="crops",
        example="crops/4762/76162_78909.png",
        optional=True,
    ),
}


def pictures(source: Source) -> Iterator[Picture]:
    if source.match("annotations"):
        yield from _slides(source)
    elif source.match("crops"):
        yield from _crops(source)
    else:
        raise SourceError(
            "neither an export of annotations nor crops here",
            where=source.root,
            expected="annotations.json with images.json, terms.json and slides, or TERM/IMAGE_ANNOTATION.png",
            remedy=f"see `dpconvert show {source.manifest.name}`",
        )


def classes(source: Source) -> list[str]:
    """Class names in order of term id (crops: in order of folder name, numbers as numbers)."""
    if source.match("annotations"):
        return list(dict.fromkeys(_labels(source).values()))
    names = {found["term"] for found in source.match("crops")}
    mapped = _mapping(source)
    ordered = sorted(names, key=lambda n: (0, int(n), n) if n.isdigit() else (1, 0, n))
    return list(dict.fromkeys(mapped.get(n, n) for n in ordered if not mapped or n in mapped))


def read_annotations(source: Source, picture: Picture, image: Image) -> Annotations:
    found = _by_image(source)[int(picture.extra["image"])]
    labels = _labels(source)
    kept = [item for item in found if item.terms[0] in labels]
    return cytomine.shapes(kept, labels, (image.width, image.height), picture.annotations[0])


def fake(tree: FakeTree) -> None:
    tree.cytomine(slides=8, terms=len(tree.manifest.classes) or tree.manifest.layout.get("fake_terms", 2))


def _slides(source: Source) -> Iterator[Picture]:
    by_name = {PurePosixPath(found.name).name: found.name for found in source.need("slides")}
    annotation_file = source.need("annotations")[0].name
    wanted = _by_image(source)
    for entry in sorted(_listing(source, "images"), key=lambda e: int(e.get("id", 0))):
        if entry.get("id") not in wanted:
            continue
        names = [str(entry.get(key)) for key in ("originalFilename", "instanceFilename", "filename") if entry.get(key)]
        file = next((by_name[PurePosixPath(n).name] for n in names if PurePosixPath(n).name in by_name), None)
        if file is None:
            raise SourceError("an annotated slide is missing", where=source.root, expected=" or ".join(names[:2]))
        group = str(entry.get("baseImage") or entry["id"])
        yield Picture(
            str(entry["id"]), (file,), group, annotations=(annotation_file,), extra={"image": str(entry["id"])}
        )


def _crops(source: Source) -> Iterator[Picture]:
    mapped = _mapping(source)
    for found in source.need("crops"):
        if not mapped or found["term"] in mapped:
            yield Picture(found["name"], (found.name,), found["image"], label=mapped.get(found["term"], found["term"]))


def _labels(source: Source) -> dict[int, str]:
    """Term id -> class name, in order of id."""
    terms = sorted(_listing(source, "terms"), key=lambda term: int(term.get("id", 0)))
    mapped = _mapping(source)
    labels = {}
    for term in terms:
        number, name = int(term.get("id", 0)), str(term.get("name"))
        if not mapped:
            labels[number] = name
        elif name in mapped or str(number) in mapped:
            labels[number] = mapped.get(name) or mapped[str(number)]
    return labels


def _mapping(source: Source) -> dict[str, str]:
    return {str(k): str(v) for k, v in source.manifest.layout.get("labels", {}).items()}


@lru_cache(maxsize=4)
def _by_image(source: Source) -> dict[int, list[cytomine.Item]]:
    name = source.need("annotations")[0].name
    found: dict[int, list[cytomine.Item]] = defaultdict(list)
    for item in cytomine.items(source.read(name), name):
        found[item.image].append(item)
    return dict(found)


@lru_cache(maxsize=8)
def _listing(source: Source, kind: str) -> list[dict[str, Any]]:
    files = source.match(kind)
    if not files:
        raise ReadError(f"no {source.manifest.files[kind].what} here", where=source.root, expected=f"{kind}.json")
    return cytomine.collection(source.read(files[0].name), files[0].name)
