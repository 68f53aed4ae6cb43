"""Every parser of dpconvert of bytes that come from elsewhere, with small valid inputs to start from.

A parser may return anything or raise an error of ours; whatever else it raises is a fault.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openpyxl
import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import tifffile
from numpy.typing import NDArray
from PIL import Image

from dpconvert import card
from dpconvert.annotations import masks, point_arrays, points
from dpconvert.annotations.formats import coco, cytomine
from dpconvert.annotations.formats.ndpa import Glass
from dpconvert.annotations.parsing.table import Table
from dpconvert.annotations.read import Subject, read
from dpconvert.image import open_image
from dpconvert.image.header import complete_size
from dpconvert.image.tiff.jpeg_tiles import JpegTiles
from dpconvert.image.tiff.tiff_pages import TiffPages
from dpconvert.manifest import catalog
from dpconvert.manifest.catalog import find
from dpconvert.obtain import fetch
from dpconvert.runtime.locks import Holder
from dpconvert.source.arrays.elements import Element
from dpconvert.source.files import Source
from dpconvert.tasks import verify
from dpconvert.tasks.audit.prints import prints

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
ARCHIVES = find("breakhis")
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


def _sliderunner() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript("""
            PRAGMA page_size = 512;
            CREATE TABLE Slides (uid, filename, width, height); INSERT INTO Slides VALUES (1, 'a.svs', 1000, 800);
            CREATE TABLE Classes (uid, name); INSERT INTO Classes VALUES (1, 'x');
            CREATE TABLE Annotations (uid, slide, type, agreedClass); INSERT INTO Annotations VALUES (1, 1, 1, 1);
            CREATE TABLE Annotations_coordinates (uid, coordinateX, coordinateY, annoId, orderIdx);
            INSERT INTO Annotations_coordinates VALUES (1, 5, 6, 1, 1);
        """)
        return bytes(base.serialize())


def _saved(format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def _tiled(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    tifffile.imwrite(buffer, pixels, **{"tile": (32, 32), "photometric": "rgb", "metadata": None} | options)
    return buffer.getvalue()


def _pages() -> list[bytes]:
    """TIFFs that are read piece by piece: strips, planes, a channel a page, palettes, bits, levels in sub-images."""
    grey = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    kinds: list[tuple[Any, dict[str, object]]] = [
        (grey, {"photometric": "minisblack", "rowsperstrip": 16, "compression": "packbits"}),
        (np.stack([grey] * 3), {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
        (grey.astype(np.uint16), {"photometric": "miniswhite", "compression": "lzw"}),
        (grey, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (np.stack([grey] * 3), {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}}),
    ]
    found = [_tiled(compression="jpeg"), _tiled(), _tiled(compression="zlib", predictor=True)]
    for pixels, options in kinds:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **{"metadata": None} | options)  # type: ignore[arg-type]
        found.append(buffer.getvalue())
    with tifffile.TiffWriter(buffer := io.BytesIO()) as tiff:
        tiff.write(grey, subifds=1, tile=(16, 16), metadata=None)
        tiff.write(grey[::2, ::2], subfiletype=1, tile=(16, 16), metadata=None)
    packed = [_tiled(compression=kind) for kind in ("jpeg2000", "webp", "png", "zstd", "lzma")]
    return [*found, buffer.getvalue(), *packed]


SPACING = (
    "<DataObject ObjectType='PixelDataRepresentation'><Attribute Name='DICOM_PIXEL_SPACING'>{0} {0}</Attribute>"
    "</DataObject>"
)
PHILIPS = f"<DataObject><A>{''.join(SPACING.format(size) for size in (0.25, 0.5, 1))}</A></DataObject>"
QPI = "<?xml version='1.0'?><PerkinElmer-QPI-ImageDescription/>"
SCN = "<scn><collection><image><pixels><dimension r='0' ifd='0'/></pixels></image></collection></scn>"
KINDS: dict[str, dict[str, object]] = {  # that tifffile reads in ways of their own
    "svs": {"description": "Aperio Image Library v1.0\r\n64x48 (16x16) -> 64x48 |AppMag = 20|MPP = 0.5"},
    "philips": {"description": PHILIPS, "software": "Philips DP v1.0"},
    "qpi": {"description": QPI, "software": "PerkinElmer-QPI"},
    "bif": {"description": "level=0 mag=40", "software": "Ventana", "extratags": [(700, 1, 12, b"<iScan></iSc", True)]},
    "imagej": {"description": "ImageJ=1.53\nimages=3\nchannels=3\nhyperstack=true\nunit=um"},
    "shaped": {"description": '{"shape": [48, 64]}'},
    "avs": {"extratags": [(65000, 2, 0, "<Argos.Scan></Argos.Scan>", True)]},
    "ndpi": {"extratags": [(271, 2, 0, "H", True), (65420, 4, 1, 1, True), (65441, 4, 1, 7, True)]},
    "scn": {"description": SCN},
}


def of_kind(kind: str) -> bytes:
    """A TIFF of three levels as the maker of a scanner or program describes it."""
    grey = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    with tifffile.TiffWriter(buffer := io.BytesIO()) as tiff:
        for level in range(3):
            told = KINDS[kind] if level == 0 else {"description": f"level={level}"}
            pixels = grey if kind == "imagej" else grey[:: 1 << level, :: 1 << level]
            pixels = pixels.astype(np.uint16) if kind == "ndpi" else pixels
            tiff.write(pixels, tile=(16, 16), metadata=None, **told)  # type: ignore[arg-type]
    return buffer.getvalue()


def _mat(**options: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"detection": np.arange(8.0).reshape(4, 2)}, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    """An archive whose bytes are the same whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], **options: Any) -> bytes:
    """The bytes of a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def in_file(name: str, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of a path as one of bytes, which lie in a file of that name in memory."""

    def with_file(data: bytes) -> object:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            return parse(path)

    return with_file


def _arrays(path: Path) -> None:
    """Every array of a file, and the first image of those that may be of images, as a conversion reads them."""
    source = Source.open(path.parent, ARCHIVES)
    stacks = source.stacks(path.name)
    for key, shape in stacks.names().items():
        if len(shape) in (3, 4):
            source.opened((Element(path.name, key, 0).name,), 1)


def _parquet(path: Path) -> None:
    source = Source.open(path.parent, ARCHIVES)
    columns = source.columns(path.name)
    columns.values("label")
    columns.label_names("label")
    source.read(Element(path.name, "image", 1).name)


def _hdf5(**options: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:  # type: ignore[arg-type]
        values = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
        file.create_dataset("x", data=values, chunks=True, compression="gzip", track_times=False)
        file.create_dataset("detection", data=np.arange(8.0).reshape(2, 4), track_times=False)
    return buffer.getvalue()


def _numpy(save: Callable[..., None], *arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays)
    return buffer.getvalue()


def _rows() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [PNG] * 3, "label": [0, 1, 0]}), buffer)
    return buffer.getvalue()


def _workbook() -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in (["file", "label"], ["a.png", 1], ["b.png", 2.5]):
        book.worksheets[0].append(row)
    book.save(buffer)
    return buffer.getvalue()


def _seven() -> bytes:
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w") as archive:
        archive.writef(io.BytesIO(b"x" * 500), "a/b.png")
    return buffer.getvalue()


def _image(path: Path) -> object:
    """Open and read, as a conversion does."""
    with open_image([path]) as image:
        return image.read(0, 0, min(image.width, 64), min(image.height, 64), (8, 8))


def _tiff_pages(path: Path) -> object:
    pages = TiffPages(path)
    try:
        corner = [(level, min(at.width, 64), min(at.height, 64)) for level, at in enumerate(pages.levels)]
        return [pages.region(level, 0, 0, wide, tall) for level, wide, tall in corner]
    finally:
        pages.close()


def _jpeg_tiles(path: Path) -> object:
    tiles = JpegTiles.of(path, [(96, 64)])
    if tiles is None:
        return None
    try:
        return tiles.region(0, 0, 0, 96, 64), tiles.stored(0, 32, 32, 32, 32)
    finally:
        tiles.close()


def _archive(path: Path) -> object:
    with closing(Source.open(path.parent, ARCHIVES)) as source:
        return [source.read(name) for name in source.sizes]


def _table(data: bytes) -> object:
    return list(Table(data, "t.csv"))


SAMPLE = {
    "key": "a",
    "split": "train",
    "label": 0,
    "group": "g",
    "format": "png",
    "offset": 512,
    "stored_width": 24,
    "stored_height": 16,
}


def _shard(data: bytes) -> object:
    """What `verify` says of a shard of one sample, whose digest is the stated one."""
    image = data[512 : 512 + len(PNG)]
    row = SAMPLE | {"length": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    return list(verify._contents(data, A_CARD, ONE_SHARD, [row]))


def _shapes(items: list[cytomine.CytomineAnnotation]) -> object:
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
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "1",
                "geometry": {"type": "Polygon", "coordinates": [RING]},
                "properties": {"classification": {"name": "Tumor", "color": [1, 2, 3]}},
            },
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": [[RING], [RING]]},
                "properties": {},
            },
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [1, 2]},
                "properties": {"classification": "a"},
            },
        ],
    }
)
COCO = _text(
    {
        "images": [{"id": 1, "file_name": "a.svs", "width": 1000, "height": 800}],
        "categories": [{"id": 1, "name": "t"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 4], "counts": [2, 4, 10]}},
            {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 4], "counts": "24:"}},
            {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]},
        ],
    }
)
ITEM = {"id": 1, "image": 2, "term": [3], "location": "POLYGON ((0 0, 9 0, 9 9, 0 0))"}
LISTED = [_text([ITEM]), _text({"collection": [ITEM, ITEM | {"id": 2, "location": "SRID=0;MULTIPOINT (1 1, 2 2)"}]})]
WKT = (b"GEOMETRYCOLLECTION(", b"POLYGON EMPTY", b"nan", b"1e400", b"CIRCULARSTRING", b"POLYGON Z ((", b"inf")
XML = (b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"&x;", b"<![CDATA[", b"nan", b"1e999", b"-1", b"&#0;", b"encoding='utf-16'")
JSON = (b"null", b"1e999", b"-1", b"NaN", b"[[[[[[", b'"\\ud800"', b"{}", b"9" * 30, b"true")
IMAGE = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"IHDR",
    b"IDAT",
    b"\xff\xd8",
    b"\xff\xc0",
    b"\xff\xda",
)
ZIP = (b"PK\x01\x02", b"PK\x05\x06", b"../", b"\xff\xff\xff\xff", b"\0\0\0\0")
TAR = (b"../", b"L", b"x", b"00000000000\0", b"77777777777\0", b"\x80" + b"\xff" * 7)
TABLE = (b'"', b"\0", b"\r", b";", b"\t", b"1e999", b"nan", b"\xff")
A_CARD = card.TaskCard.model_validate(
    {
        "schema": 1,
        "task": "T",
        "source": "t",
        "title": "",
        "kind": "x",
        "classes": ["a"],
        "metric": "accuracy",
        "organ": "",
        "stain": "",
        "split_policy": "strict",
        "splits": {"train": {"samples": 1, "classes": [1], "groups": 1}},
        "group_kind": "image",
        "licence": {"name": "CC0"},
        "citation": "",
        "request": "",
        "plan": "",
        "digest": "",
        "index": {"name": "index.parquet", "size": 1, "sha256": ""},
        "shards": [],
    }
)
CARD = card.dump(A_CARD)
MANIFEST = (catalog.manifest_folder() / "examples" / "slides.toml").read_bytes()
HOLDER = _text({"host": "a", "pid": 1, "started": "5", "since": "now"})
PNG, JPEG = _saved("PNG"), _saved("JPEG")
TEXT = _text({"label": 0, "group": "g", "split": "train"})
SHARD = tar_of({"a.png": PNG, "a.cls": b"0", "a.json": TEXT}, format=tarfile.USTAR_FORMAT)
ONE_SHARD = card.ShardCard(name="train-000000.tar", split="train", samples=1, size=len(SHARD), sha256="")
MEMBERS = tar_of({"a/b.png": b"x" * 9, "n" * 120: b"x" * 9})

CVAT = (
    b'<annotations><meta/><image id="0" name="a.svs" width="1000" height="800"><box label="x" xtl="1" ytl="2" '
    b'xbr="3" ybr="4" rotation="5"/><polygon label="x" points="1,2;3,4;5,1"/><points label="x" points="1,2"/>'
    b'<ellipse label="x" cx="9" cy="9" rx="2" ry="3"/><mask label="x" rle="1, 2, 3" left="1" top="2" width="3" '
    b'height="2"/></image></annotations>'
)
SIDES = {"original_width": 1000, "original_height": 800}
PROGRAMS = [
    _text(
        {
            "shapes": [{"label": "x", "points": [[1, 2], [3, 4]], "shape_type": "circle"}],
            "imagePath": "a",
            "imageWidth": 1000,
            "imageHeight": 800,
        }
    ),
    _text(
        {
            "a.svs1": {
                "filename": "a.svs",
                "file_attributes": {},
                "regions": [
                    {
                        "shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 5, 2]},
                        "region_attributes": {"c": "x"},
                    }
                ],
            }
        }
    ),
    _text(
        [
            {
                "id": 1,
                "data": {"image": "a.svs"},
                "annotations": [
                    {
                        "result": [
                            {
                                "id": "r",
                                "from_name": "l",
                                "to_name": "i",
                                "type": "rectanglelabels",
                                **SIDES,
                                "value": {
                                    "x": 1,
                                    "y": 2,
                                    "width": 3,
                                    "height": 4,
                                    "rotation": 5,
                                    "rectanglelabels": ["x"],
                                },
                            },
                            {
                                "id": "b",
                                "type": "brushlabels",
                                "original_width": 10,
                                "original_height": 8,
                                "value": {
                                    "rle": [
                                        0,
                                        0,
                                        1,
                                        64,
                                        57,
                                        27,
                                        254,
                                        91,
                                        0,
                                        194,
                                        127,
                                        248,
                                        76,
                                        3,
                                        9,
                                        255,
                                        225,
                                        48,
                                        12,
                                        39,
                                        255,
                                        140,
                                        192,
                                        35,
                                        255,
                                        200,
                                        224,
                                        0,
                                    ]
                                },
                            },
                        ]
                    }
                ],
            }
        ]
    ),
    _text(
        {
            "item": {"slots": [{"width": 1000, "height": 800}]},
            "annotations": [
                {"name": "x", "polygon": {"paths": [[{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 1}]]}},
                {"name": "x", "ellipse": {"center": {"x": 9, "y": 9}, "radius": {"x": 1, "y": 2}, "angle": 1}},
            ],
        }
    ),
    _text(
        {
            "annotation": {
                "name": "x",
                "elements": [
                    {"type": "rectangle", "center": [9, 9, 0], "width": 3, "height": 2, "rotation": 1},
                    {"type": "polyline", "closed": True, "points": [[1, 2, 0], [3, 4, 0], [5, 1, 0]], "holes": []},
                ],
            }
        }
    ),
    _text({"id": "a", "annotations": [{"type": "x", "coordinates": [[[1, 2], [3, 4], [5, 1]]]}]}),
    _text(
        {
            "project": {},
            "config": {},
            "attribute": {"1": {"options": {"0": "x"}}},
            "file": {"1": {"fname": "a.svs"}},
            "metadata": {
                "a": {"vid": "1", "xy": [2, 1, 2, 3, 4], "av": {"1": "0"}},
                "b": {"vid": "1", "xy": [7, 1, 2, 3, 4, 5, 1]},
            },
            "view": {"1": {"fid_list": ["1"]}},
        }
    ),
]
LABELME = (
    b"<annotation><filename>a.svs</filename><object><name>x</name><deleted>0</deleted><polygon><pt><x>1</x><y>2</y></pt>"
    b"<pt><x>3</x><y>4</y></pt><pt><x>5</x><y>1</y></pt></polygon></object>"
    b"<imagesize><nrows>800</nrows><ncols>1000</ncols></imagesize></annotation>"
)
TABLES = [
    b"id,rle,img_height,img_width,organ\na,1 5 9 2,800,1000,x\n",
    b"id,encoding\na,1 5 9 2\n",
    b'raw_classification,main_classification,xmin,ymin,xmax,ymax,coords_x,coords_y\nx,y,1,2,3,4,"1,2,3","1,5,2"\n',
    b'filename,region_shape_attributes,region_attributes\na.svs,"{""name"":""rect"",""x"":1,""y"":1,""width"":2,""height"":3}",{}\n',
]
IMAGES = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
TARGETS: dict[str, Target] = {
    "asap": Target(_read, [ASAP], XML),
    "imagescope": Target(_read, [IMAGESCOPE], XML),
    "ndpa": Target(_read, [NDPA], XML),
    "qupath": Target(_read, [QUPATH], JSON),
    "coco": Target(lambda data: coco.shapes(coco.parse(data, "a"), "a", "a.svs", (1000, 800)), [COCO], JSON),
    "cvat": Target(_read, [CVAT], XML),
    "labelme-xml": Target(_read, [LABELME], XML),
    "programs": Target(_read, PROGRAMS, JSON),
    "tables": Target(_read, TABLES, TABLE),
    "sliderunner": Target(_read, [_sliderunner()]),
    "packed": Target(_read, [gzip.compress(ASAP, mtime=0), _zip(a=QUPATH)], ZIP),
    "cytomine": Target(
        lambda data: _shapes(cytomine.listing(data, "a.json", cytomine.CytomineAnnotation)), LISTED, JSON + WKT
    ),
    "cytomine-table": Target(
        lambda data: _shapes(cytomine.listing(data, "a.csv", cytomine.CytomineAnnotation)),
        [b'id,image,term,location\n1,2,"3,4","POLYGON ((0 0, 9 0, 9 9, 0 0))"\n'],
        TABLE + WKT,
    ),
    "mask": Target(_mask, [_saved("PNG", "1"), _saved("PNG", "P"), _saved("TIFF", "L"), _saved("BMP", "L")], IMAGE),
    "class-table": Target(
        lambda data: masks.class_table(data, "a"), [b"value,class\n1,tumour\n2,other\n", _text({"1": "a"})], TABLE
    ),
    "table": Target(_table, [b"file,label\na.png,1\nb.png,2\n", b'file;label\n"a;b.png";1\n'], TABLE),
    "points": Target(
        lambda data: points.read_text(data, "a", ["x", "y", "label"], delimiter=","), [b"1,2,a\n3.5,4e2,b\n"], TABLE
    ),
    "mat": Target(
        lambda data: point_arrays.read_mat(data, "a", "detection", "n"), [_mat(), _mat(do_compression=True)], IMAGE
    ),
    "head": Target(lambda data: complete_size(io.BytesIO(data)), [PNG, _saved("BMP"), JPEG, _tiled()], IMAGE),
    "print": Target(lambda data: prints([data], ["a"]), [PNG, JPEG, _saved("PNG", "LA")], IMAGE),
    "picture": Target(in_file("a.png", _image), [PNG, _saved("PNG", "P"), JPEG, _saved("BMP")], IMAGE),
    "tiff": Target(in_file("a.tif", _image), [_saved("TIFF"), *_pages()[:4]], IMAGE),
    "tiff-pages": Target(in_file("a.tif", _tiff_pages), _pages(), IMAGE),
    "tiff-kinds": Target(in_file("a.tif", _tiff_pages), [of_kind(kind) for kind in KINDS], IMAGE),
    "jpeg-tiles": Target(in_file("a.tif", _jpeg_tiles), [_tiled(compression="jpeg")], IMAGE),
    "zip": Target(in_file("a.zip", _archive), [_zip(**{"a/b.png": b"x" * 500, "c.txt": b"y"})], ZIP),
    "tar": Target(in_file("a.tar", _archive), [MEMBERS], TAR),
    "arrays-hdf5": Target(in_file("a.h5", _arrays), [_hdf5()], IMAGE),
    "arrays-npy": Target(in_file("a.npy", _arrays), [_numpy(np.save, IMAGES)], IMAGE),
    "arrays-npz": Target(
        in_file("a.npz", _arrays), [_numpy(np.savez, IMAGES), _numpy(np.savez_compressed, IMAGES)], ZIP
    ),
    "parquet": Target(in_file("a.parquet", _parquet), [_rows()], IMAGE),
    "workbook": Target(lambda data: [list(row.cells) for row in Table(data, "a.xlsx")], [_workbook()], ZIP),
    "mat73": Target(
        lambda data: point_arrays.read_mat(data, "a", "detection", "n"), [_hdf5(userblock_size=512)], IMAGE
    ),
    "tgz": Target(in_file("a.tgz", _archive), [gzip.compress(MEMBERS, mtime=0)], TAR),
    "seven": Target(in_file("a.7z", _archive), [_seven()], IMAGE),
    "unpack": Target(in_file("a.tar", lambda path: fetch.unpack(path, path.with_name("a"))), [MEMBERS], TAR),
    "shard": Target(_shard, [SHARD], TAR + IMAGE),
    "card": Target(in_file("task.json", lambda path: card.load(path.parent)), [CARD], JSON),
    "manifest": Target(in_file("m.toml", catalog.load), [MANIFEST], (b"[", b"'(?P<'", b"nan", b"1e999")),
    "lock": Target(in_file("l", Holder.read), [HOLDER], JSON),
}
BYTE_LEVEL = (
    "packed",
    "mask",
    "mat",
    "head",
    "print",
    "picture",
    "tiff",
    "tiff-pages",
    "tiff-kinds",
    "jpeg-tiles",
    "zip",
    "tar",
    "unpack",
    "shard",
    "arrays-hdf5",
    "arrays-npy",
    "arrays-npz",
    "parquet",
    "workbook",
    "mat73",
    "tgz",
    "seven",
)
