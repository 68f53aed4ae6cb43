"""Identify the program that wrote a file of annotations by its content: a format that is read here, or a name.

The one place that knows what other programs write. JSON is recognized by the keys of its first object, XML by its root.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dpconvert.annotations.parsing.table import head_of
from dpconvert.errors import ReadError, cut

Format = Literal[
    "asap",
    "imagescope",
    "ndpa",
    "voc",
    "cvat",
    "coco",
    "qupath",
    "labelme",
    "via",
    "label_studio",
    "darwin",
    "dsa",
    "hubmap",
    "hubmap_outlines",
    "nucls",
    "sliderunner",
    "via3",
    "labelme_xml",
    "yolo",
    "mask",
]
READ = (
    "XML of ASAP, ImageScope, HALO (.annotations), NDP.view (.ndpa), Pascal VOC, CVAT or LabelMe; GeoJSON as QuPath "
    "writes it; JSON of COCO, LabelMe, VIA, Label Studio, Darwin, the Digital Slide Archive or HuBMAP; tables of VIA, "
    "NuCLS or HuBMAP; texts of YOLO; databases of SlideRunner; or a mask"
)
EXPORT = "export it as GeoJSON, COCO or masks"
HEAD = 1 << 16  # bytes
MOST_TOKENS = 20_000
MOST_LINES = 50
IMAGES = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"GIF8", b"\xff\xd8\xff")
FEATURE = re.compile(rb'"type"\s*:\s*"Feature(?:Collection)?"')
GEOMETRY = re.compile(rb'"type"\s*:\s*"(?:(?:Multi)?(?:Point|LineString|Polygon)|GeometryCollection)"')
COORDINATES = re.compile(rb'"coordinates"\s*:\s*\[|"geometries"\s*:\s*\[')
OUTLINES = re.compile(rb"[\s\xef\xbb\xbf]*\[\s*\[\s*\[\s*-?\d")  # a list of lists of points
TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*+)(?:"(\s*:)?)?|[{}\[\]]', re.DOTALL)  # an open string goes to the end
TAG = re.compile(rb"<([A-Za-z_][\w.:-]*)")


class ForeignError(ReadError):
    """The file was written by a known program whose format is not supported."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A program whose files are recognized, but not read: its files hold all of `keys`, and `evidence` somewhere."""

    program: str
    keys: frozenset[str] = frozenset()
    evidence: tuple[bytes, ...] = ()
    remedy: str = EXPORT

    def wrote(self, keys: Set[str], data: bytes) -> bool:
        """Whether this program wrote a file whose first object has these keys."""
        return self.keys <= keys and all(part in data for part in self.evidence)


KNOWN: tuple[tuple[Format, Foreign], ...] = (
    ("labelme", Foreign("LabelMe", frozenset({"shapes"}), (b'"imagePath"',))),
    ("via", Foreign("VIA", evidence=(b'"_via_img_metadata"',))),
    ("via", Foreign("VIA", evidence=(b'"file_attributes"', b'"regions"'))),
    ("via", Foreign("VIA", evidence=(b'"shape_attributes"', b'"filename"'))),
    ("via3", Foreign("VIA 3", frozenset({"project", "config", "attribute", "file"}))),
    ("darwin", Foreign("Darwin (V7)", frozenset({"item", "annotations"}))),
    ("darwin", Foreign("Darwin (V7)", frozenset({"dataset", "image", "annotations"}))),
    ("dsa", Foreign("the Digital Slide Archive", frozenset({"elements"}))),
    ("dsa", Foreign("the Digital Slide Archive", frozenset({"annotation"}), (b'"elements"',))),
    ("label_studio", Foreign("Label Studio", evidence=(b'"from_name"', b'"to_name"'))),
    ("label_studio", Foreign("Label Studio", evidence=(b'"original_width"', b'"original_height"'))),
    ("label_studio", Foreign("Label Studio", frozenset({"data", "annotations"}))),
    ("label_studio", Foreign("Label Studio", evidence=(b'"annotation_id"', b'"annotator"'))),
    ("hubmap", Foreign("HuBMAP", frozenset({"id", "annotations"}), (b'"coordinates"',))),
)
JSON = (
    Foreign("Supervisely", frozenset({"objects", "size"})),
    Foreign("Labelbox", evidence=(b'"data_row"',)),
    Foreign("Labelbox", frozenset({"Labeled Data"})),
    Foreign("grand-challenge.org", evidence=(b'"Multiple ',)),
    Foreign("HoVer-Net", frozenset({"nuc"})),
    Foreign("TIAToolbox", evidence=(b'"contour"', b'"centroid"', b'"box"')),
    Foreign("Datumaro", frozenset({"items", "categories"})),
    Foreign("WholeSlideData", frozenset({"coordinates", "label"})),
    Foreign("Cytomine", frozenset({"collection"}), remedy='read it with shape = "cytomine"'),
    Foreign("Cytomine", frozenset({"location", "image"}), remedy='read it with shape = "cytomine"'),
    Foreign("CVAT", frozenset({"shapes", "tags"})),
    Foreign("Sectra", evidence=(b"Sectra",)),
    Foreign("Sectra", evidence=(b"SECTRA",)),
)
LABELME = (b"<pt>", b"LabelMe Webtool")
CVAT = (b"<image", b"<track", b"<meta>")
XML = (
    Foreign("a drawing program (SVG)", frozenset({"svg"})),
    Foreign("ImageJ's Cell Counter", frozenset({"CellCounter_Marker_File"}), remedy="save its points as a table"),
    Foreign("Definiens or Tissue Studio", frozenset({"object-stream"})),
    *(Foreign("Sectra", evidence=(word,)) for word in (b"Sectra", b"SECTRA")),
    Foreign(
        "several images (Pascal VOC, LabelMe)",
        frozenset({"annotations"}),
        (b"</annotation>",),
        "write a file for each image, whose outermost tag is <annotation>",
    ),
)
SQLITE = b"SQLite format 3\0"
TABLES: dict[Format, tuple[set[str], ...]] = {
    "via": ({"filename", "region_shape_attributes"},),
    "nucls": ({"raw_classification", "xmin", "ymax"},),
    "hubmap": ({"id", "encoding"}, {"id", "rle"}),
}
TABLES_NOT_READ = (
    Foreign("napari", frozenset({"shape-type", "axis-0", "axis-1"})),
    Foreign(
        "napari",
        frozenset({"index", "axis-0", "axis-1"}),
        remedy='read its points with shape = "points" and names = {x = "axis-1", y = "axis-0"} in [layout]',
    ),
    Foreign(
        "QuPath's measurements",
        frozenset({"Image", "Class", "ROI"}),
        remedy="in QuPath: File > Export objects as GeoJSON",
    ),
    Foreign("Slideflow", frozenset({"ROI_name", "X_base", "Y_base"})),
)
YOLO = re.compile(rb"\d{1,4}(?: +(?:0(?:\.\d+)?|1(?:\.0+)?|\d(?:\.\d+)?e-\d+)){4,}")  # a class, and fractions
CELLPOSE = re.compile(rb"\d+,\d+(?:,\d+,\d+){2,}")  # whole pixels
BINARY = (
    (0, b"\xac\xed\0\x05", "QuPath's own data (.qpdata)", "in QuPath: File > Export objects as GeoJSON"),
    (128, b"DICM", "DICOM annotations (Sectra and others)", "export GeoJSON or COCO from the program that drew them"),
    (0, b"Iout", "an ImageJ ROI", "open it in QuPath, and export GeoJSON"),
    (
        0,
        SQLITE,
        "an SQLite database of another program than SlideRunner (TIAToolbox and others)",
        "export GeoJSON from it",
    ),
    (0, b"\x89HDF", "an HDF5 file", "write masks, GeoJSON or COCO from it"),
)
ROOTS: dict[str, Format] = {"ASAP_Annotations": "asap", "Annotations": "imagescope", "annotations": "ndpa"}


@lru_cache(maxsize=1)  # one file for many images
def detect(data: bytes, name: str) -> Format:
    """Return the format of unpacked content, whose JSON or XML is in UTF-8.

    Raises:
        ReadError: it is in none of these formats; the message names the program that wrote it, if that is known.
    """
    head = data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n\x1e")
    if not data:
        remedy = "save it again; remove it if nothing was annotated, and state what that means as `missing` in [layout]"
        raise ReadError("an empty file (0 bytes)", where=name, expected="annotations", remedy=remedy)
    if head.startswith(IMAGES):
        return "mask"
    if head.startswith((b"[", b"{")):
        return _json(data, name)
    if head.startswith(b"<"):
        return _xml(data, head, name)
    if data.startswith(SQLITE) and b"Annotations_coordinates" in data:
        return "sliderunner"
    if (table := _table(data, name)) is not None:
        return table
    for at, magic, what, remedy in BINARY:
        if data.startswith(magic, at):
            raise ForeignError(f"{what}, which is not read", where=name, expected=READ, remedy=remedy)
    raise ReadError("of no known annotation format", where=name, expected=READ, found=repr(bytes(head[:24])))


def _table(data: bytes, name: str) -> Format | None:
    """Return the format of a table, recognized by the names of its columns.

    Raises:
        ForeignError: it is of another program.
    """
    columns = head_of(data, name)
    for kind, heads in TABLES.items():
        if any(known <= columns for known in heads):
            return kind
    for foreign in TABLES_NOT_READ:
        if foreign.wrote(columns, data):
            raise _refusal(foreign, name)
    lines = data[:HEAD].splitlines()[: -1 if len(data) > HEAD else None][:MOST_LINES]
    filled = [bare for line in lines if (bare := line.strip())]
    if filled and all(map(YOLO.fullmatch, filled)):
        return "yolo"
    if filled and all(map(CELLPOSE.fullmatch, filled)):
        raise _refusal(Foreign("Cellpose (outlines)", remedy="save its masks as PNG or TIFF"), name)
    return None


def is_named(data: bytes, name: str) -> bool:
    """Whether JSON is of a format that is read here.

    Raises:
        ReadError: it is of another program, by name.
    """
    return _known_json(_keys(data), data, name) is not None


def _json(data: bytes, name: str) -> Format:
    keys = _keys(data)
    if (known := _known_json(keys, data, name)) is not None:
        return known
    if not keys:
        return _unknown_json(data, name)
    found = f"an object of {', '.join(cut(key, 20) for key in sorted(keys)[:6])}"
    raise ReadError("JSON of no known annotation program", where=name, expected=READ, found=found, remedy=EXPORT)


def _known_json(keys: Set[str], data: bytes, name: str) -> Format | None:
    """The format of JSON that is read here; None if nothing identifies it."""
    if "features" in keys or ("type" in keys and _is_geojson(data)):
        return "qupath"
    if "images" in keys and b'"annotations"' in data:
        return "coco"
    if (known := next((kind for kind, each in KNOWN if each.wrote(keys, data)), None)) is not None:
        return known
    if (foreign := next((each for each in JSON if each.wrote(keys, data)), None)) is not None:
        raise _refusal(foreign, name)
    if "annotations" in keys and b'"images"' in data:  # so many annotations that the rest was not examined
        return "coco"
    return "qupath" if _is_geojson(data) else None


def _is_geojson(data: bytes) -> bool:
    return FEATURE.search(data) is not None or (
        GEOMETRY.search(data) is not None and COORDINATES.search(data) is not None
    )


def _unknown_json(data: bytes, name: str) -> Format:
    """JSON without an object: HuBMAP's outlines; an empty list is an export without annotations."""
    if OUTLINES.match(data):
        return "hubmap_outlines"
    if re.fullmatch(rb"[\s\xef\xbb\xbf]*\[\s*\]\s*", data):
        return "qupath"
    raise ReadError(
        "JSON without annotations that are read", where=name, expected=READ, found=repr(data[:24]), remedy=EXPORT
    )


def _keys(data: bytes) -> set[str]:
    """The keys of the first object in a text, up to a limit, without those of objects in it."""
    depth, inside, keys = 0, 0, set()
    for number, token in enumerate(TOKEN.finditer(data)):
        mark = token[0][:1]
        if mark in b"{[":
            depth += 1
            inside = inside or (depth if mark == b"{" else 0)
        elif mark in b"}]":
            depth -= 1
        elif token[2] and depth == inside:
            keys.add(token[1].decode("utf-8", "replace"))
        if number > MOST_TOKENS or (inside and depth < inside):
            break
    return keys


def _xml(whole: bytes, head: bytes, name: str) -> Format:
    tag = TAG.search(head)
    root = tag[1].decode("ascii", "replace") if tag else ""
    if root == "annotation" and b"<bndbox" in whole:
        return "voc"
    if root == "annotation" and any(part in whole for part in LABELME):
        return "labelme_xml"
    if root == "annotations" and b"<ndpviewstate" not in whole and any(part in whole for part in CVAT):
        return "cvat"
    if root != "annotations" or b"<ndpviewstate" not in whole:
        for foreign in XML:
            if foreign.wrote({root}, whole):
                raise _refusal(foreign, name)
    inner = [cut(tag.decode("ascii", "replace"), 40) for tag in TAG.findall(head)[1:2]]
    if root in ROOTS and not (root == "annotations" and inner and b"<ndpviewstate" not in whole):
        return ROOTS[root]
    if root == "annotation":
        return "voc"
    found = [f"<{tag}>" for tag in (cut(root, 40), *inner)]
    raise ReadError("XML of no known annotation program", where=name, expected=READ, found=" of ".join(found))


def _refusal(foreign: Foreign, name: str) -> ForeignError:
    return ForeignError(
        f"a file of {foreign.program}, which is not read", where=name, expected=READ, remedy=foreign.remedy
    )
