"""Every parser of bytes that come from elsewhere, with small valid inputs to start from.

A parser may return anything or raise an error of ours; whatever else it raises is a fault.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import tifffile
from PIL import Image

from dpconvert import card, manifest, slide
from dpconvert.annotations import coco, cytomine, masks, points
from dpconvert.annotations.ndpa import Glass
from dpconvert.annotations.read import Subject, read
from dpconvert.audit.prints import prints
from dpconvert.heads import complete_size
from dpconvert.locks import Holder
from dpconvert.manifest import find
from dpconvert.source import Source

GLASS = Glass((1000, 800), (0.25, 0.25), (0.0, 0.0))
SUBJECT = Subject("a.svs", (1000, 800), glass=GLASS, values={0: "no", 1: "yes"})


@dataclass(frozen=True)
class Target:
    """A parser, inputs that it understands, and words of its language."""

    parse: Callable[[bytes], object]
    seeds: list[bytes]
    words: tuple[bytes, ...] = ()


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


def _saved(format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def _tiled(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    tifffile.imwrite(buffer, pixels, tile=(32, 32), photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def _mat(**options: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"detection": np.arange(8.0).reshape(4, 2)}, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", b"x" * 500)
        archive.writestr("c.txt", b"y")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("a/b.png", "n" * 120):
            member = tarfile.TarInfo(name)
            member.size = 9
            archive.addfile(member, io.BytesIO(b"x" * 9))
    return buffer.getvalue()


def _image(suffix: str) -> Callable[[bytes], object]:
    """Open and read, as a conversion does."""

    def parse(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a{suffix}"
            path.write_bytes(data)
            with slide.open_image([path]) as image:
                return image.read(0, 0, min(image.width, 64), min(image.height, 64), (8, 8))

    return parse


def _archive(suffix: str) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"a{suffix}").write_bytes(data)
            source = Source.open(Path(folder), find("breakhis"))
            return [source.read(name) for name in source.sizes]

    return parse


def _in_folder(name: str, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    def with_file(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(data)
            return parse(Path(folder))

    return with_file


def _shapes(items: list[cytomine.Item]) -> object:
    return cytomine.shapes([cytomine.Labelled(item, "a") for item in items], (100, 100), "a", areas=True)


def _read(data: bytes) -> object:
    return read(data, "a", SUBJECT)


def _mask(data: bytes) -> object:
    mask = masks.read(data, "a", dict.fromkeys(range(256), "a"), (24, 16))
    return mask.share([(0, 0, 5, 5)], ["a"]), mask.objects()


ASAP = (
    b'<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" PartOfGroup="Tumor">'
    b'<Coordinates><Coordinate Order="0" X="1" Y="2"/><Coordinate Order="1" X="30" Y="2"/>'
    b'<Coordinate Order="2" X="9.5" Y="40"/></Coordinates></Annotation></Annotations><AnnotationGroups>'
    b'<Group Name="Tumor" PartOfGroup="None"/></AnnotationGroups></ASAP_Annotations>'
)
IMAGESCOPE = (
    b'<Annotations MicronsPerPixel="0.5"><Annotation Id="1" Name="t" LineColor="255"><Regions><Region Id="1" Type="0" '
    b'NegativeROA="0"><Vertices><Vertex X="1" Y="1"/><Vertex X="9" Y="1"/><Vertex X="9" Y="9"/></Vertices></Region>'
    b'<Region Id="2" Type="2"><Vertices><Vertex X="1" Y="1"/><Vertex X="9" Y="9"/></Vertices></Region></Regions>'
    b"</Annotation></Annotations>"
)
NDPA = (
    b'<annotations><ndpviewstate id="1"><title>t</title><coordformat>nanometers</coordformat><annotation '
    b'type="freehand" displayname="AnnotateFreehand" color="#ff0000"><pointlist><point><x>1000</x><y>10</y></point>'
    b"<point><x>9000</x><y>10</y></point><point><x>9000</x><y>8000</y></point></pointlist></annotation></ndpviewstate>"
    b'<ndpviewstate id="2"><title>c</title><annotation type="circle"><x>1</x><y>2</y><radius>500</radius></annotation>'
    b"</ndpviewstate></annotations>"
)
RING = [[0, 0], [9, 0], [9, 9], [0, 0]]
QUPATH = _text(
    {"type": "FeatureCollection", "features": [
        {"type": "Feature", "id": "1", "geometry": {"type": "Polygon", "coordinates": [RING]},
         "properties": {"classification": {"name": "Tumor", "color": [1, 2, 3]}}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[RING], [RING]]}, "properties": {}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]},
         "properties": {"classification": "a"}}]}
)  # fmt: skip
COCO = _text(
    {"images": [{"id": 1, "file_name": "a.svs", "width": 1000, "height": 800}], "categories": [{"id": 1, "name": "t"}],
     "annotations": [
         {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
         {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 4], "counts": [2, 4, 10]}},
         {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 4], "counts": "24:"}},
         {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]}
)  # fmt: skip
ITEM = {"id": 1, "image": 2, "term": [3], "location": "POLYGON ((0 0, 9 0, 9 9, 0 0))"}
LISTED = [_text([ITEM]), _text({"collection": [ITEM, ITEM | {"id": 2, "location": "SRID=0;MULTIPOINT (1 1, 2 2)"}]})]
WKT = (b"GEOMETRYCOLLECTION(", b"POLYGON EMPTY", b"nan", b"1e400", b"CIRCULARSTRING", b"POLYGON Z ((", b"inf")
XML = (b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"&x;", b"<![CDATA[", b"nan", b"1e999", b"-1", b"&#0;", b"encoding='utf-16'")
JSON = (b"null", b"1e999", b"-1", b"NaN", b"[[[[[[", b'"\\ud800"', b"{}", b"9" * 30, b"true")
PICTURE = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"IHDR",
    b"IDAT",
    b"\xff\xd8",
    b"\xff\xc0",
    b"\xff\xda",
)
TABLE = (b'"', b"\0", b"\r", b";", b"\t", b"1e999", b"nan", b"\xff")
CARD = _text(
    {"schema": 1, "task": "T", "source": "t", "title": "", "kind": "x", "classes": ["a"], "metric": "accuracy",
     "organ": "", "stain": "", "split_policy": "strict", "splits": {"train": {"samples": 1, "classes": [1],
     "groups": 1}}, "group_kind": "image", "licence": {"name": "CC0"}, "citation": "", "request": "", "plan": "",
     "digest": "", "index": {"name": "index.parquet", "size": 1, "sha256": ""}, "shards": []}
)  # fmt: skip
MANIFEST = (manifest.manifest_folder() / "examples" / "slides.toml").read_bytes()
HOLDER = _text({"host": "a", "pid": 1, "started": "5", "since": "now"})

TARGETS: dict[str, Target] = {
    "asap": Target(_read, [ASAP], XML),
    "imagescope": Target(_read, [IMAGESCOPE], XML),
    "ndpa": Target(_read, [NDPA], XML),
    "qupath": Target(_read, [QUPATH], JSON),
    "coco": Target(lambda data: coco.shapes(coco.parse(data, "a"), "a", "a.svs", (1000, 800)), [COCO], JSON),
    "cytomine": Target(lambda data: _shapes(cytomine.listing(data, "a.json", cytomine.Item)), LISTED, JSON + WKT),
    "cytomine-table": Target(
        lambda data: _shapes(cytomine.listing(data, "a.csv", cytomine.Item)),
        [b'id,image,term,location\n1,2,"3,4","POLYGON ((0 0, 9 0, 9 9, 0 0))"\n'], TABLE + WKT,
    ),
    "mask": Target(_mask, [_saved("PNG", "1"), _saved("PNG", "P"), _saved("TIFF", "L"), _saved("BMP", "L")], PICTURE),
    "class-table": Target(
        lambda data: masks.class_table(data, "a"), [b"value,class\n1,tumour\n2,other\n", _text({"1": "a"})], TABLE
    ),
    "points": Target(
        lambda data: points.read_text(data, "a", ["x", "y", "label"], delimiter=","), [b"1,2,a\n3.5,4e2,b\n"], TABLE
    ),
    "mat": Target(
        lambda data: points.read_mat(data, "a", "detection", "n"),
        [_mat(), _mat(do_compression=True)],
        PICTURE,
    ),
    "head": Target(
        lambda data: complete_size(io.BytesIO(data)), [_saved("PNG"), _saved("BMP"), _saved("JPEG"), _tiled()], PICTURE
    ),
    "print": Target(lambda data: prints([data], ["a"]), [_saved("PNG"), _saved("JPEG"), _saved("PNG", "LA")], PICTURE),
    "picture": Target(_image(".png"), [_saved("PNG"), _saved("PNG", "P"), _saved("JPEG"), _saved("BMP")], PICTURE),
    "tiff": Target(
        _image(".tif"), [_saved("TIFF"), _tiled(), _tiled(compression="jpeg"), _tiled(compression="zlib")], PICTURE
    ),
    "zip": Target(_archive(".zip"), [_zip()], (b"PK\x01\x02", b"PK\x05\x06", b"../", b"\xff\xff\xff\xff", b"\0\0\0\0")),
    "tar": Target(
        _archive(".tar"), [_tar()], (b"../", b"L", b"x", b"00000000000\0", b"77777777777\0", b"\x80" + b"\xff" * 7)
    ),
    "card": Target(_in_folder("task.json", card.load), [CARD], JSON),
    "manifest": Target(
        _in_folder("m.toml", lambda folder: manifest.load(folder / "m.toml")),
        [MANIFEST],
        (b"[", b"'(?P<'", b"nan", b"1e999"),
    ),
    "lock": Target(_in_folder("l", lambda folder: Holder.read(folder / "l")), [HOLDER], JSON),
}  # fmt: skip
BYTE_LEVEL = ("mask", "mat", "head", "print", "picture", "tiff", "zip", "tar")
