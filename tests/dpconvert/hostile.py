"""Files made to harm, each read in a process with little memory: `python -m tests.dpconvert.hostile CASE...`.

Prints a line of JSON a case: what it came to, the seconds, and by how many MiB the process grew.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from dpconvert.annotations import mask_pixels, masks, point_arrays, points
from dpconvert.annotations.formats import cytomine, qupath
from dpconvert.annotations.parsing import xml_tree
from dpconvert.annotations.read import Subject, read
from dpconvert.errors import UserError
from dpconvert.image import open_image
from dpconvert.image.tiff.tiff_pages import TiffPages
from dpconvert.manifest import catalog
from dpconvert.manifest.catalog import find
from dpconvert.obtain import fetch
from dpconvert.runtime.limits import reading
from dpconvert.source.files import Source
from tests.dpconvert import test_jpeg2000 as jpeg2000
from tests.memory import peak

MEMORY = 4 << 30  # address space: libraries alone take half of it
SUBJECT = Subject("a.svs", (1000, 1000))
CASES: dict[str, Callable[[Path], object]] = {}


def case(function: Callable[[Path], object]) -> Callable[[Path], object]:
    """Add a case under its function's name."""
    CASES[function.__name__] = function
    return function


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *extra: bytes) -> bytes:
    """A grey PNG of zeros, one bit a pixel."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()


def _image(folder: Path, name: str, data: bytes) -> object:
    (folder / name).write_bytes(data)
    with open_image([folder / name]) as image:
        return image.read(0, 0, image.width, image.height, (64, 64)).shape


@case
def manifest_of_a_key_of_a_hundred_thousand_parts(folder: Path) -> object:
    (folder / "m.toml").write_text("a." * 100_000)
    return catalog.load(folder / "m.toml")


@case
def png_of_2500_megapixels(folder: Path) -> object:
    return _image(folder, "a.png", _png(50_000, 50_000))


@case
def png_with_a_text_of_a_gigabyte(folder: Path) -> object:
    return _image(folder, "a.png", _png(400, 400, _chunk(b"zTXt", b"k\0\0" + _zeros(1 << 30))))


@case
def png_with_a_profile_of_a_gigabyte(folder: Path) -> object:
    return _image(folder, "a.png", _png(400, 400, _chunk(b"iCCP", b"k\0\0" + _zeros(1 << 30))))


@case
def mask_of_2500_megapixels(_: Path) -> object:
    return read(_png(50_000, 50_000), "m.png", SUBJECT)


@case
def tiff_of_kilobytes_that_claims_gigabytes(folder: Path) -> object:
    strip = _zeros(1 << 20)
    tags = [
        (256, 4, 1, 60_000),
        (257, 4, 1, 60_000),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 60_000),
        (279, 4, 1, len(strip)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return _image(folder, "a.tif", b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory)


def _round(offset: str) -> bytes:
    """A directory of a width and an empty one, which follow each other without end, as tifffile would."""
    size = struct.calcsize(offset)
    one, other = struct.pack("<HHHII", 1, 256, 4, 1, 64), struct.pack("<H", 0)
    at = 4 + size, 4 + size + len(one) + size
    return b"II*\0" + struct.pack(offset, at[0]) + one + struct.pack(offset, at[1]) + other + struct.pack(offset, at[0])


@case
def tiff_whose_directories_go_round(folder: Path) -> object:
    return _image(folder, "a.tif", _round("<I"))


@case
def ndpi_whose_directories_go_round(folder: Path) -> object:
    return _image(folder, "a.ndpi", _round("<Q"))


@case
def tiff_whose_directories_go_round_by_one_that_is_cut(folder: Path) -> object:
    """The last bytes of the file, which are in the middle of the second directory, lead to the first one again."""
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 256, 4, 1, 64, 26) + struct.pack("<H", 99)
    return _image(folder, "a.tif", data + bytes(40) + struct.pack("<I", 8))


@case
def tiff_with_a_tile_of_gigabytes(folder: Path) -> object:
    tags = [
        (256, 4, 1, 64),
        (257, 4, 1, 64),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, 1 << 24),
        (323, 4, 1, 64),
        (324, 4, 1, 8),
        (325, 4, 1, 8),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return _image(folder, "a.tif", b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory)


@case
def tiff_of_ten_million_tags(folder: Path) -> object:
    """Directories that share their tags: each begins four bytes after the last."""
    tags, many = 4000, 2500
    counts = struct.pack("<HH", tags, 0) * many
    nexts = b"".join(struct.pack("<I", 8 + 4 * i) for i in range(1, many)) + bytes(4)
    between = bytes(2 + 12 * tags - len(counts))
    return _image(folder, "a.tif", b"II*\0" + struct.pack("<I", 8) + counts + between + nexts)


@case
def tiff_whose_directory_is_its_own_next(folder: Path) -> object:
    return _image(folder, "a.tif", b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 10, 8))


def _tiff(tags: list[tuple[int, int, int, int]], more: bytes) -> bytes:
    """A TIFF of a directory at 8 and what follows it; a SHORT stands in its lower bytes."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + more


GREY = [
    (256, 4, 1, 64),
    (257, 4, 1, 64),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
    (278, 4, 1, 64),
    (279, 4, 1, 4096),
]


def _pages(folder: Path, data: bytes) -> object:
    (folder / "a.tif").write_bytes(data)
    return TiffPages(folder / "a.tif").region(0, 0, 0, 64, 64).shape


@case
def tiff_of_many_sub_images(folder: Path) -> object:
    """20 000 times the same one, of 2 000 tags."""
    sub = _tiff([*GREY, *((60_000 + i, 4, 1, 7) for i in range(2000))], b"")[8:]
    at = 8 + 2 + 12 * (len(GREY) + 1) + 4
    tags = [*GREY, (330, 4, 20_000, at + len(sub))]
    return _pages(folder, _tiff(tags, sub + struct.pack("<I", at) * 20_000))


@case
def tiff_whose_sub_image_is_itself(folder: Path) -> object:
    return _pages(folder, _tiff([*GREY, (330, 4, 1, 8)], bytes(4096)))


@case
def tiff_whose_directories_go_round_after_a_sub_image_outside(folder: Path) -> object:
    data = bytearray(_tiff([*GREY, (330, 4, 1, 1 << 30)], bytes(4096)))
    struct.pack_into("<I", data, 8 + 2 + 12 * (len(GREY) + 1), 8)
    return _pages(folder, bytes(data))


@case
def tiff_of_two_million_empty_directories(folder: Path) -> object:
    chain = b"".join(struct.pack("<HI", 0, 14 + 6 * i) for i in range(2_000_000))
    return _pages(folder, b"II*\0" + struct.pack("<I", 8) + chain)


def _ome(folder: Path, pixels: str, of_pixels: str) -> object:
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="P" DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" {pixels}>{of_pixels}</Pixels>'
        "</Image></OME>"
    )
    return _described(folder, xml)


def _described(folder: Path, text: str) -> object:
    """A TIFF of one grey page with a description."""
    data, at = text.encode() + b"\0", 8 + 2 + 12 * (len(GREY) + 1) + 4
    return _pages(folder, _tiff(sorted([*GREY, (270, 2, len(data), at)]), data + bytes(4096)))


@case
def ome_tiff_of_a_thousand_million_planes(folder: Path) -> object:
    return _ome(folder, 'SizeZ="100000" SizeC="1" SizeT="10000"', "<TiffData/>")


@case
def ome_tiff_of_fewer_than_no_planes(folder: Path) -> object:
    less = '<TiffData IFD="0" PlaneCount="-1000000000"/>'
    return _ome(folder, 'SizeZ="100000" SizeC="1" SizeT="10000"', less)


@case
def ome_tiff_whose_data_are_a_thousand_million_planes(folder: Path) -> object:
    return _ome(folder, 'SizeZ="1" SizeC="1" SizeT="1"', '<TiffData IFD="0" PlaneCount="1000000000"/>')


@case
def ome_tiff_whose_pixels_do_not_end(folder: Path) -> object:
    """A megabyte of beginnings of an element, each of which may reach to the end."""
    return _described(folder, "<Pixels " * (1 << 17) + "OME>")


@case
def ome_tiff_with_its_planes_outside(folder: Path) -> object:
    of_pixels = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="../a.tif">urn:uuid:1</UUID></TiffData>'
    return _ome(folder, 'SizeZ="1" SizeC="1" SizeT="1"', of_pixels)


@case
def micro_manager_stack_of_hundreds_of_millions_of_planes(folder: Path) -> object:
    """Of two planes that lie far from each other: https://micro-manager.org/Micro-Manager_File_Formats."""
    summary = json.dumps({"MicroManagerVersion": "1.4", "Frames": 1, "Prefix": "a"}).encode()
    at = 8 + 32 + len(summary)
    last = (255, 1023, 1023, 0)
    index = struct.pack("<II", 3453623, 2) + struct.pack("<5I", 0, 0, 0, 0, 8) + struct.pack("<5I", *last, 8)
    head = struct.pack("<8I", 54773648, at, 483765892, 0, 0, 0, 2355492, len(summary)) + summary + index
    directory = _tiff(sorted([*GREY, (51123, 2, 12, at)]), bytes(4096))[8:]
    return _pages(folder, b"II*\0" + struct.pack("<I", 8 + len(head)) + head + directory)


@case
def leica_collection_of_hundreds_of_millions_of_channels(folder: Path) -> object:
    dimension = '<dimension c="268435455" ifd="0"/>'
    return _described(folder, f"<scn><collection><image><pixels>{dimension}</pixels></image></collection></scn>")


@case
def leica_collection_that_is_no_xml(folder: Path) -> object:
    return _described(folder, "<scn></collection></scn>")


@case
def philips_tiff_of_a_billion_laughs(folder: Path) -> object:
    text = '<!DOCTYPE o [<!ENTITY a "ha">]><DataObject>&a;</DataObject>'
    software = b"Philips DP v1.0\0"
    at = 8 + 2 + 12 * (len(GREY) + 2) + 4
    tags = [*GREY, (270, 2, len(text), at), (305, 2, len(software), at + len(text))]
    return _pages(folder, _tiff(sorted(tags), text.encode() + software + bytes(4096)))


def _of_jpeg_2000(folder: Path, data: bytes) -> object:
    """A TIFF of 64 x 64 pixels whose one strip is this."""
    at = 8 + 2 + 12 * len(GREY) + 4
    stored = {259: (259, 3, 1, 34712), 273: (273, 4, 1, at), 279: (279, 4, 1, len(data))}
    return _pages(folder, _tiff([stored.get(tag[0], tag) for tag in GREY], data))


@case
def jpeg_2000_of_a_million_precincts(folder: Path) -> object:
    """In 300 bytes, for which OpenJPEG takes half a gigabyte."""
    return _of_jpeg_2000(folder, jpeg2000.stream(jpeg2000.coding(0)))


@case
def jpeg_2000_of_hundreds_of_millions_of_packets(folder: Path) -> object:
    """For which OpenJPEG looks ten seconds long."""
    return _of_jpeg_2000(folder, jpeg2000.stream(jpeg2000.coding(4, 65_535)))


@case
def jpeg_2000_of_a_tile_of_268_megapixels(folder: Path) -> object:
    """16 384 x 16 384 pixels in blocks of 4 x 4, as the page says too, for which OpenJPEG takes eight gigabytes."""
    data, side = jpeg2000.stream(jpeg2000.coding(jpeg2000.WHOLE, block=2), side=16_384), 16_384
    at = 8 + 2 + 12 * len(GREY) + 4
    stored = {
        256: (256, 4, 1, side),
        257: (257, 4, 1, side),
        259: (259, 3, 1, 34712),
        273: (273, 4, 1, at),
        278: (278, 4, 1, side),
        279: (279, 4, 1, len(data)),
    }
    return _pages(folder, _tiff([stored.get(tag[0], tag) for tag in GREY], data))


@case
def jpeg_2000_with_a_palette_of_255_channels(folder: Path) -> object:
    """Of a million pixels, which become a gigabyte."""
    plain = jpeg2000.stream(jpeg2000.coding(jpeg2000.WHOLE))
    head = struct.pack(">IIHBBBB", 1024, 1024, 1, 7, 7, 0, 0)
    palette = struct.pack(">HB", 2, 255) + bytes([7]) * 255 + bytes(510)
    columns = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(255))
    boxes = jpeg2000.boxed(
        (b"ihdr", head), (b"colr", b"\1\0\0" + struct.pack(">I", 17)), (b"pclr", palette), (b"cmap", columns)
    )
    kind = b"jp2 \0\0\0\0jp2 "
    data = jpeg2000.boxed((b"jP  ", b"\r\n\x87\n"), (b"ftyp", kind), (b"jp2h", boxes), (b"jp2c", plain))
    return _of_jpeg_2000(folder, data)


@case
def mask_tiff_of_gigabytes_left_out(_: Path) -> object:
    """16384 x 16384 pixels of four numbers of 64 bits, whose one tile is not there."""
    tags = [
        (256, 4, 1, 16384),
        (257, 4, 1, 16384),
        (258, 3, 1, 64),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 4),
        (322, 4, 1, 16384),
        (323, 4, 1, 16384),
        (324, 4, 1, 0),
        (325, 4, 1, 0),
        (339, 3, 1, 3),
    ]
    return mask_pixels._coarser(_tiff(tags, b""), "m.tif").shape


def _zipped(path: Path, data: bytes, times: int) -> Path:
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
    with archive, archive.open("lung_image_sets/lung_n/a.jpeg", "w", force_zip64=True) as member:
        for _ in range(times):
            member.write(data)
    return path


@case
def zip_member_of_a_gigabyte_in_a_megabyte(folder: Path) -> object:
    _zipped(folder / "a.zip", bytes(1 << 20), 1000)
    return Source.open(folder, find("breakhis")).sizes


@case
def zip_member_that_lies_about_its_size(folder: Path) -> object:
    path = _zipped(folder / "a.zip", bytes(1 << 20), 300)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    source = Source.open(folder, find("breakhis"))
    (name,) = source.sizes
    return len(source.read(name))


@case
def zip_member_outside(folder: Path) -> object:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("../../etc/a.png", b"")
    return Source.open(folder, find("breakhis")).sizes


@case
def zip_member_of_an_absolute_name(folder: Path) -> object:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("/etc/a.png", b"")
    return Source.open(folder, find("breakhis")).sizes


@case
def tar_member_of_an_absolute_name(folder: Path) -> object:
    _tar(folder / "a.tar", (_member("/etc/a.png"), b""))
    return Source.open(folder, find("breakhis")).sizes


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return path


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@case
def tar_gz_of_gigabytes(folder: Path) -> object:
    with gzip.open(folder / "a.tar.gz", "wb", compresslevel=9) as file:
        file.write(_member("a.bin", size=2 << 30).tobuf())
        for _ in range(2 << 10):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    return fetch.unpack(folder / "a.tar.gz", folder / "a")


@case
def tar_gz_with_a_header_of_gigabytes(folder: Path) -> object:
    with gzip.open(folder / "a.tar.gz", "wb", compresslevel=9) as file:
        file.write(_member("././@PaxHeader", size=3 << 30, type=tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT))
        for _ in range(3 << 10):
            file.write(bytes(1 << 20))
    return fetch.unpack(folder / "a.tar.gz", folder / "a")


@case
def tar_with_a_header_of_gigabytes(folder: Path) -> object:
    path = folder / "a.tar"
    with path.open("wb") as file:
        file.write(_member("././@LongLink", size=3 << 30, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT))
        file.truncate(4 << 30)  # a hole: nothing on disk
    return Source.open(folder, find("breakhis")).sizes


@case
def tar_gz_with_links_and_devices_outside(folder: Path) -> object:
    link = _member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    return fetch.unpack(_tar(folder / "a.tar.gz", (link, b"")), folder / "a")


@case
def tar_gz_with_a_name_outside(folder: Path) -> object:
    return fetch.unpack(_tar(folder / "a.tar.gz", (_member("../a.png"), b"")), folder / "a")


@case
def xml_of_a_billion_laughs(_: Path) -> object:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    return _asap(f'<!DOCTYPE a [<!ENTITY l0 "ha">{entities}]><ASAP_Annotations>&l11;</ASAP_Annotations>')


@case
def xml_that_reads_a_file(_: Path) -> object:
    return _asap('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ASAP_Annotations>&x;</ASAP_Annotations>')


@case
def xml_of_depth_a_million(_: Path) -> object:
    return _asap("<ASAP_Annotations>" + "<a>" * 10**6 + "</a>" * 10**6 + "</ASAP_Annotations>")


@case
def xml_of_ten_million_elements(_: Path) -> object:
    return _asap("<ASAP_Annotations>" + "<a/>" * 10**7 + "</ASAP_Annotations>")


@case
def xml_of_three_million_attributes(_: Path) -> object:
    return _asap("<ASAP_Annotations " + " ".join(f'a{i}=""' for i in range(3_000_000)) + "/>")


@case
def xml_with_a_name_of_100_megabytes(_: Path) -> object:
    return _asap("<" + "a" * 10**8 + "/>")


def _asap(text: str) -> object:
    return xml_tree.root(text.encode(), "a.xml", "ASAP_Annotations")


@case
def csv_of_a_million_columns(_: Path) -> object:
    head = b"id,image," + b",".join(b"c%d" % i for i in range(10**6)) + b"\n"
    return cytomine.listing(head + b"1,2," + b"3," * 10**6 + b"\n" * 10, "a.csv", cytomine.CytomineAnnotation)


@case
def csv_with_a_cell_of_100_megabytes(_: Path) -> object:
    return cytomine.listing(b"id,image\n1," + b"2" * 10**8, "a.csv", cytomine.CytomineAnnotation)


@case
def csv_with_a_cell_of_100_megabytes_in_lines(_: Path) -> object:
    return cytomine.listing(b'id,image\n1,"' + (b"2" * 999 + b"\n") * 10**5, "a.csv", cytomine.CytomineAnnotation)


@case
def csv_of_20_million_rows(_: Path) -> object:
    return cytomine.listing(b"id,image\n" + b"1,2\n" * (2 * 10**7), "a.csv", cytomine.CytomineAnnotation)


@case
def points_of_20_million_lines(_: Path) -> object:
    return points.read_text(b"1 2\n" * (2 * 10**7), "a.txt", ["x", "y"])


@case
def json_of_five_million_objects(_: Path) -> object:
    return cytomine.listing(b"[" + b'{"id":1,"image":2},' * (5 * 10**6) + b"]", "a.json", cytomine.CytomineAnnotation)


@case
def csv_of_quotes_that_never_end(_: Path) -> object:
    return cytomine.listing(b"id,image\n" + b'"1,2\n' * 900_000, "a.csv", cytomine.CytomineAnnotation)


def _mat(variables: dict[str, object], *, packed: bool = False) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=packed)
    return file.getvalue()


@case
def mat_of_objects(_: Path) -> object:
    return point_arrays.read_mat(
        _mat({"detection": np.array([{"a": 1}, "b"], dtype=object)}), "a.mat", "detection", "n"
    )


@case
def mat_that_unpacks_to_gigabytes(_: Path) -> object:
    element = struct.pack("<II", 15, 0)
    body = _zeros(3 << 30)
    return point_arrays.read_mat(
        _mat({})[:128] + element[:4] + struct.pack("<I", len(body)) + body, "a.mat", "detection", "n"
    )


@case
def mat_of_a_huge_structure(_: Path) -> object:
    """A structure of 60 000 x 60 000 without fields: its parts would be made one by one."""
    flags = struct.pack("<IIII", 6, 8, 2, 0)
    size = struct.pack("<IIii", 5, 8, 60_000, 60_000)
    name = struct.pack("<II", 1, 9) + b"detection" + bytes(7)
    fields = struct.pack("<HHi", 5, 4, 8) + struct.pack("<II", 1, 0)
    body = flags + size + name + fields
    return point_arrays.read_mat(_mat({})[:128] + struct.pack("<II", 14, len(body)) + body, "a.mat", "detection", "n")


DEEP = b"[" * 10**5 + b"]" * 10**5


@case
def json_of_depth_100000(_: Path) -> object:
    for data in (DEEP, b'{"type":"FeatureCollection","features":' + DEEP + b"}", b'{"a":' * 10**5):
        try:
            qupath.read(data, "a.geojson")
        except UserError as error:
            told = error
    raise told


@case
def json_of_depth_100000_from_a_server(_: Path) -> object:
    return cytomine.listing(b'{"collection":' + DEEP + b"}", "a.json", cytomine.CytomineAnnotation)


@case
def json_of_depth_100000_as_classes(_: Path) -> object:
    return masks.class_table(b'{"1":' + DEEP + b"}", "a.json")


@case
def json_geometries_in_geometries(_: Path) -> object:
    inner = '{"type":"GeometryCollection","geometries":['
    text = '{"type":"Feature","geometry":' + inner * 10**4 + "]}" * 10**4 + "}"
    return qupath.read(text.encode(), "a.geojson")


@case
def wkt_of_ten_million_vertices(_: Path) -> object:
    ring = ",".join(f"{i % 3000} {i // 3000}" for i in range(10**7))
    item = cytomine.CytomineAnnotation(id=1, image=2, location=f"POLYGON(({ring},0 0))")
    return cytomine.shapes([cytomine.Labelled(item, "a")], (4000, 4000), "a.json", areas=True)


@case
def wkt_of_depth_100000(_: Path) -> object:
    location = "GEOMETRYCOLLECTION(" * 10**5 + "POINT(0 0)" + ")" * 10**5
    item = cytomine.CytomineAnnotation(id=1, image=2, location=location)
    return cytomine.shapes([cytomine.Labelled(item, "a")], (4000, 4000), "a.json", areas=True)


@case
def gzip_of_annotations_of_gigabytes(_: Path) -> object:
    packer = zlib.compressobj(9, wbits=31)
    data = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(3 << 10)) + packer.flush()
    return read(data, "a.xml.gz", SUBJECT)


def outcome(name: str) -> str:
    """What reading a case says, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"read: {str(CASES[name](Path(folder)))[:80]}"
        except UserError as error:
            return str(error).replace(folder, "DIR")
        except (Exception, MemoryError) as error:  # noqa: BLE001
            return f"NOT OURS: {type(error).__name__}: {str(error)[:200]}"


def limited(context: str, name: str) -> str:
    """The outcome of a case under the limits of a worker process, in which this runs."""
    try:
        with reading(name):
            return f"{name}: {outcome(name)}"
    except UserError as error:
        return str(error)


def main() -> None:
    """Run the cases that are named."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in sys.argv[1:]:
        before, begun = peak(), time.monotonic()
        line = {"case": name, "told": outcome(name)}
        line |= {"seconds": time.monotonic() - begun, "mib": peak() - before}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
