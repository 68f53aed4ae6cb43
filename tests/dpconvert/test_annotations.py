"""Annotation files of every format by hand; what comes out is in level-0 pixels with y down."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dpconvert.annotations import Annotations, Regions, masks, point_arrays, points
from dpconvert.annotations.formats import asap
from dpconvert.errors import ReadError, UserError
from dpconvert.manifest.model import Manifest
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from tests.dpconvert.scenes import manifest

KNOWN = ["Tumor", "_0", "_1", "_2"]
SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]
BOW_TIE = [(0, 0), (10, 10), (10, 0), (0, 10)]
Ring = Sequence[tuple[float, float]]


# --- ASAP


def asap_xml(
    annotations: Sequence[tuple[str, Ring]], groups: Mapping[str, str] | None = None, kind: str = "Polygon"
) -> bytes:
    lines = ["<ASAP_Annotations><Annotations>"]
    for group, ring in annotations:
        lines.append(f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}"><Coordinates>')
        lines += [f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring)]
        lines.append("</Coordinates></Annotation>")
    lines.append("</Annotations><AnnotationGroups>")
    lines += [f'<Group Name="{name}" PartOfGroup="{parent}" />' for name, parent in (groups or {}).items()]
    return "\n".join([*lines, "</AnnotationGroups></ASAP_Annotations>"]).encode()


def test_asap_rings_are_closed_and_labelled_by_their_group() -> None:
    found = asap.read(asap_xml([("Tumor", SQUARE), ("_2", [*SQUARE, SQUARE[0]])]), "a.xml", KNOWN)
    assert [(item.label, item.id, item.geometry.area) for item in found.items] == [
        ("Tumor", "0", 100),
        ("_2", "1", 100),
    ]
    assert found.items[0].geometry.equals(shapely.box(10, 10, 20, 20))


def test_asap_coordinates_are_taken_in_their_order_not_in_that_of_the_file() -> None:
    text = asap_xml([("Tumor", SQUARE)]).decode().splitlines()
    text[2], text[3] = text[3], text[2]
    assert asap.read("\n".join(text).encode(), "a.xml").items[0].geometry.area == 100


def test_asap_decimal_commas_are_read() -> None:
    data = asap_xml([("Tumor", [(0.5, 0), (10.5, 0), (10.5, 10), (0.5, 10)])]).replace(b".5", b",5")
    assert asap.read(data, "a.xml").items[0].geometry.bounds == (0.5, 0, 10.5, 10)


def test_asap_an_annotation_in_a_nested_group_belongs_to_the_nearest_known_one() -> None:
    groups = {"Tumor": "None", "isolated": "metastasis", "metastasis": "Tumor"}
    found = asap.read(asap_xml([("isolated", SQUARE)], groups), "a.xml", KNOWN)
    assert found.items[0].label == "Tumor"
    assert asap.read(asap_xml([("isolated", SQUARE)], groups), "a.xml").items[0].label == "isolated"


@pytest.mark.parametrize("groups", [{}, {"necrosis": "None"}, {"necrosis": "other", "other": "necrosis"}])
def test_asap_an_annotation_in_no_known_group_is_an_error(groups: dict[str, str]) -> None:
    with pytest.raises(ReadError, match=r"a.xml: unknown annotation group 'necrosis'; expected one of Tumor, _0, _1"):
        asap.read(asap_xml([("necrosis", SQUARE)], groups), "a.xml", KNOWN)


def test_asap_bow_ties_are_mended_and_degenerate_rings_dropped_and_both_are_counted() -> None:
    found = asap.read(asap_xml([("Tumor", BOW_TIE), ("Tumor", SQUARE[:2]), ("Tumor", [])]), "a.xml", KNOWN)
    assert [item.geometry.area for item in found.items] == [50]
    assert found.remarks == {"invalid ring repaired": 1, "degenerate ring dropped": 2}


def test_asap_the_cut_out_group_takes_its_area_away() -> None:
    found = asap.read(asap_xml([("_0", [(0, 0), (40, 0), (40, 40), (0, 40)]), ("_2", SQUARE)]), "a.xml", KNOWN)
    positive = Regions(*([i.geometry for i in found.items if i.label == label] for label in ("_0", "_2")))
    assert positive.share([(0, 0, 20, 20), (10, 10, 10, 10), (0, 0, 10, 10)]).tolist() == [0.75, 0, 1]


def test_asap_dots_are_points_and_a_file_of_unknown_marks_alone_is_an_error() -> None:
    dots = asap.read(asap_xml([("Tumor", SQUARE)], kind="PointSet"), "a.xml", KNOWN)
    assert [(item.geometry.x, item.geometry.y) for item in dots.items] == SQUARE
    with pytest.raises(ReadError, match=r"only marks of unknown types; .*found 'Blob'"):
        asap.read(asap_xml([("Tumor", SQUARE)], kind="Blob"), "a.xml", KNOWN)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e10"])
def test_asap_a_coordinate_that_is_none_is_an_error(value: str) -> None:
    data = asap_xml([("Tumor", SQUARE)]).replace(b'X="20"', f'X="{value}"'.encode(), 1)
    with pytest.raises(ReadError, match=r"a.xml: X of <Coordinate> is not a coordinate; found "):
        asap.read(data, "a.xml")


LAUGHS = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><ASAP_Annotations>&b;</ASAP_Annotations>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ASAP_Annotations>&x;</ASAP_Annotations>'


@pytest.mark.parametrize("data", [LAUGHS, OUTSIDE, b'<!DOCTYPE a SYSTEM "http://a/b.dtd"><ASAP_Annotations/>'])
def test_xml_with_entities_or_a_document_type_is_refused(data: bytes) -> None:
    with pytest.raises(ReadError, match="XML that defines entities or a document type"):
        asap.read(data, "a.xml")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"<ASAP_Annotations>", b"\xff\xfe<", b'<?xml version="1.0" encoding="no"?><a/>']
)
def test_what_is_not_xml_is_an_error(data: bytes) -> None:
    with pytest.raises(ReadError, match=r"a.xml: not XML"):
        asap.read(data, "a.xml")


def test_another_kind_of_xml_is_an_error() -> None:
    with pytest.raises(ReadError, match=r"another kind of XML; expected <ASAP_Annotations>; found <Annotations>"):
        asap.read(b"<Annotations/>", "a.xml")


# --- Cytomine


WKT = "POLYGON ((10 10, 40 10, 40 30, 10 30, 10 10))"  # height 100: y from 70 to 90 downwards


def export(folder: Path, annotations: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan of an export of one image of 120 x 100 px and the terms 1 "cell" and 2 "lymphocyte"."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(folder / "a.tif")
    image = {"id": 7, "baseImage": 3, "originalFilename": "a.tif", "width": 120, "height": 100}
    terms = [{"id": 2, "name": "lymphocyte"}, {"id": 1, "name": "cell"}]
    listings = {"annotations": annotations, "images": [image], "terms": terms}
    for name, entries in listings.items():
        (folder / f"{name}.json").write_text(json.dumps({"collection": entries, "size": len(entries)}))
    known = cytomine_manifest(folder)
    return plan.make(Source.open(folder, known), Options(), 1, Reporter(quiet=True))


def cytomine_manifest(folder: Path) -> Manifest:
    from dpconvert.readers import with_defaults

    facts = {"shape": "cytomine", "classes": [], "split": {"strict": {}}, "path": folder / "toy.toml"}
    return with_defaults(manifest({"type": "crop"}, **facts))


def drawn(number: int, **facts: Any) -> dict[str, Any]:
    return {"id": number, "image": 7, "term": [1], "location": WKT} | facts


def boxes(made: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(made.classes[row.label], tuple(row.box or ())) for row in made.rows]


def test_cytomine_s_y_axis_points_up(tmp_path: Path) -> None:
    assert boxes(export(tmp_path, [drawn(1)])) == [("cell", (10, 70, 30, 20))]
    shape = "POLYGON ((0 30, 1 30, 1 31, 0 31, 0 30))"
    assert boxes(export(tmp_path, [drawn(1, location=shape)])) == [("cell", (0, 69, 1, 1))]


def test_cytomine_annotations_without_a_term_are_left_out_and_of_several_terms_the_first_counts(tmp_path: Path) -> None:
    made = export(tmp_path, [drawn(1, term=[]), drawn(2, term=None), drawn(3, term=[2, 1]), drawn(4)])
    assert boxes(made) == [("lymphocyte", (10, 70, 30, 20)), ("cell", (10, 70, 30, 20))]


def test_cytomine_of_a_reviewed_annotation_only_the_reviewed_copy_counts(tmp_path: Path) -> None:
    other = "POLYGON ((0 0, 5 0, 5 5, 0 5, 0 0))"
    made = export(tmp_path, [drawn(1), drawn(9, parentIdent=1, location=other, term=[2])])
    assert boxes(made) == [("lymphocyte", (0, 95, 5, 5))]


def test_cytomine_annotations_are_clipped_to_their_image_and_dropped_and_counted_outside(tmp_path: Path) -> None:
    across = "POLYGON ((-10 -10, 20 -10, 20 20, -10 20, -10 -10))"
    outside = "POLYGON ((200 0, 210 0, 210 10, 200 10, 200 0))"
    made = export(tmp_path, [drawn(1, location=across), drawn(2, location=outside)])
    assert boxes(made) == [("cell", (0, 80, 20, 20))]
    assert [note for note in made.notes if "outside its image" in note] == ["annotations: 1 x outside its image"]


def test_cytomine_multipolygons_and_bow_ties_are_one_object_each(tmp_path: Path) -> None:
    two = "MULTIPOLYGON (((0 0, 10 0, 10 10, 0 0)), ((50 50, 60 50, 60 60, 50 50)))"
    bow_tie = "POLYGON ((0 0, 10 10, 10 0, 0 10, 0 0))"
    made = export(tmp_path, [drawn(1, location=two), drawn(2, location=bow_tie)])
    assert boxes(made) == [("cell", (0, 40, 60, 60)), ("cell", (0, 90, 10, 10))]
    assert [note for note in made.notes if "repaired" in note] == ["annotations: 1 x invalid ring repaired"]


@pytest.mark.parametrize("location", ["POLYGON ((0 0, 1 1", "CIRCLE (1)", "", None, 7])
def test_cytomine_outlines_that_cannot_be_read_are_an_error(location: object, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        export(tmp_path, [drawn(1, location=location)])


# --- points


def xy(found: list[Any]) -> list[tuple[float, float, str]]:
    return [(item.geometry.x, item.geometry.y, item.label) for item in found]


def test_points_stand_where_the_columns_say() -> None:
    assert xy(points.read_text(b"1,2\n\n3.5,4\n", "a.csv", ["y", "x"], delimiter=",", label="m")) == [
        (2, 1, "m"),
        (4, 3.5, "m"),
    ]
    graz = b"2 3 0\n10 20 1\n30  40\t3\n"
    assert xy(points.read_text(graz, "a.txt", ["x", "y", "label"], skip=1)) == [(10, 20, "1"), (30, 40, "3")]
    wide = b"\xef\xbb\xbfid;x;y;kind\n5;1;2;a\n"
    assert xy(points.read_text(wide, "a", ["id", "x", "y", "label"], delimiter=";", skip=1)) == [(1, 2, "a")]


@pytest.mark.parametrize("data", [b"", b"\n \n", b"head\n"])
def test_files_without_points_hold_none(data: bytes) -> None:
    assert points.read_text(data, "a.csv", ["x", "y"], delimiter=",", skip=1) == []


def test_a_line_that_is_no_point_is_named() -> None:
    with pytest.raises(ReadError, match=r"a.csv: line 2 has 1 column; expected x, y"):
        points.read_text(b"1,2\n3\n", "a.csv", ["x", "y"], delimiter=",")
    for text in ("x", "", "nan", "inf", "1e9"):
        with pytest.raises(ReadError, match=r"a.csv: line 2: no coordinate; found "):
            points.read_text(f"1,2\n3,{text}\n".encode(), "a.csv", ["x", "y"], delimiter=",")


def mat(**variables: Any) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    return buffer.getvalue()


def test_points_of_a_matlab_file() -> None:
    table = np.array([[1.5, 2.5], [3, 4]])
    assert xy(point_arrays.read_mat(mat(detection=table), "a.mat", "detection", "m")) == [(1.5, 2.5, "m"), (3, 4, "m")]
    assert xy(point_arrays.read_mat(mat(detection=table.astype(np.uint8)), "a.mat", "detection", "m"))[1] == (3, 4, "m")


@pytest.mark.parametrize("shape", [(0, 0), (0, 2), (1, 0)])
@pytest.mark.parametrize("kind", [np.uint8, float])
def test_an_empty_matlab_array_of_any_kind_is_no_point(shape: tuple[int, int], kind: type) -> None:
    assert point_arrays.read_mat(mat(detection=np.zeros(shape, kind)), "a.mat", "detection", "m") == []


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3)),
        np.zeros((2, 2, 2)),
        np.array([[1.0, np.nan]]),
        np.array([[1 + 2j, 3]]),
        "text",
        {"a": np.zeros((2, 2))},
        np.array([[{"a": 1}, 2]], dtype=object),
    ],
)
def test_a_matlab_value_that_is_no_table_of_points_is_an_error(value: object) -> None:
    with pytest.raises(ReadError, match=r"a.mat: 'detection' is not a table of points; expected N x 2"):
        point_arrays.read_mat(mat(detection=value), "a.mat", "detection", "m")


def test_a_matlab_file_without_the_variable_is_an_error() -> None:
    with pytest.raises(ReadError, match=r"a.mat: no variable 'detection'"):
        point_arrays.read_mat(mat(other=np.zeros((1, 2))), "a.mat", "detection", "m")


def test_a_matlab_file_of_another_byte_order_is_an_error() -> None:
    vax = struct.pack("<5i", 2000, 1, 2, 0, 10) + b"detection\0" + bytes(16)
    told = r"a.mat: not a readable MATLAB file: no head of MATLAB 5"
    with warnings.catch_warnings(action="ignore"), pytest.raises(ReadError, match=told):
        point_arrays.read_mat(vax, "a.mat", "detection", "m")


# --- masks


def saved(values: Any, kind: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(values) if mode is None else Image.fromarray(values).convert(mode)
    image.save(buffer, kind)
    return buffer.getvalue()


def test_of_a_palette_mask_the_indexes_count() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    mask = masks.read(buffer.getvalue(), "m.png", {0: "no", 1: "yes"}, (2, 1))
    assert mask.at([(0.5, 0.5), (1.5, 0.5), (5, 5), (-1, 0)]) == ["no", "yes", None, None]


def test_an_index_without_a_colour_is_no_black() -> None:
    """A palette of two colours, written by hand, and the indexes 0, 1 and 2."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 8, 3, 0, 0, 0))
    body = chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0])) + chunk(b"IDAT", zlib.compress(bytes([0, 0, 1, 2])))
    data = b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")
    with pytest.raises(
        ReadError, match=r"a mask with an index that its palette gives no colour: 2, where it has 0 to 1; name the"
    ):
        masks.read(data, "m.png", {"#000000": "no", "#ff0000": "yes"}, (3, 1))
    assert masks.read(data, "m.png", {0: "no", 1: "yes", 2: "unsure"}, (3, 1)).values.tolist() == [[0, 1, 2]]


def test_a_threshold_makes_two_values_of_grey_fringes() -> None:
    values = np.array([[0, 3, 127, 128, 250, 255]], np.uint8)
    mask = masks.read(saved(values), "m.png", {0: "no", 1: "yes"}, (6, 1), threshold=127)
    assert mask.values.tolist() == [[0, 0, 0, 1, 1, 1]]
    with pytest.raises(ReadError, match=r"m.png: mask value 3 has no label; expected one of 0, 255"):
        masks.read(saved(values), "m.png", {0: "no", 255: "yes"}, (6, 1))


@pytest.mark.parametrize("values", [[[0, 1, 1]], [[1, 1, 1]], [[False, True, True]]])
def test_a_mask_of_ones_below_the_threshold_is_refused(values: list[list[int]]) -> None:
    """As one of another program among masks of 0 and 255, all of which would become background."""
    data = saved(np.array(values, bool if values[0][0] is False else np.uint8))
    with pytest.raises(ReadError, match="a mask of 0 and 1, of which nothing is above the threshold of 127"):
        masks.read(data, "m.png", {0: "no", 1: "yes"}, (3, 1), threshold=127)
    assert masks.read(data, "m.png", {0: "no", 1: "yes"}, (3, 1), threshold=0).values.max() == 1
    empty = saved(np.zeros((1, 3), np.uint8))
    assert masks.read(empty, "m.png", {0: "no", 1: "yes"}, (3, 1), threshold=127).values.max() == 0


def test_bilevel_and_colour_masks_are_read() -> None:
    yes = np.array([[False, True]])
    assert masks.read(saved(yes), "m.png", {0: "no", 1: "yes"}, (2, 1)).values.tolist() == [[0, 1]]
    grey = np.array([[0, 255]], np.uint8)
    assert masks.read(saved(grey, mode="RGB"), "m.png", {0: "no", 255: "yes"}, (2, 1)).values.tolist() == [[0, 255]]


def test_a_mask_may_be_coarser_than_its_image_but_not_of_another_shape() -> None:
    mask = masks.read(saved(np.array([[0, 1]], np.uint8)), "m.png", {0: "no", 1: "yes"}, (200, 100))
    assert mask.share([(50, 0, 100, 100), (100, 0, 100, 50)], ["yes"]).tolist() == [0.5, 1.0]
    with pytest.raises(ReadError, match=r"mask of another shape than its image; expected \(100, 100\)"):
        masks.read(saved(np.zeros((10, 20), np.uint8)), "m.png", {0: "no"}, (100, 100))


def test_a_mask_of_fractions_is_an_error() -> None:
    with pytest.raises(ReadError, match="mask of an unknown kind; found float32"):
        masks.read(saved(np.zeros((1, 2), np.float32), "TIFF"), "m.tif", {0: "no"}, (2, 1))


# --- whatever the bytes, nothing but our own error


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """The seed with some bytes replaced, removed or repeated; or any bytes."""
    at = st.integers(0, len(seed))
    edits = st.lists(st.tuples(at, at, st.binary(max_size=8) | st.sampled_from([seed[:40], seed[-40:]])), max_size=6)

    def edited(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = seed
        for start, length, new in changes:
            data = data[:start] + new + data[start + length % 64 :]
        return data

    return edits.map(edited) | st.binary(max_size=200)


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ASAP_SEED = asap_xml([("isolated", SQUARE), ("_2", BOW_TIE)], {"isolated": "Tumor", "Tumor": "None"})
POINTS_SEED = b"head\n1,2,a\n3.5,4e3,b\n\n7,8,c\n"
MAT_SEED = mat(detection=np.array([[1.5, 2.5], [3, 4]]))
MASK_SEED = saved(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2)
TIFF_SEED = saved(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2, "TIFF")


def only_ours(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except ReadError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told


@FUZZ
@given(mutated(ASAP_SEED))
def test_any_bytes_as_asap(data: bytes) -> None:
    def read(data: bytes) -> None:
        found: Annotations = asap.read(data, "a", KNOWN)
        Regions([item.geometry for item in found.items]).share([(0, 0, 10, 10)])

    only_ours(read, data)


@FUZZ
@given(mutated(POINTS_SEED))
def test_any_bytes_as_points(data: bytes) -> None:
    only_ours(lambda d: points.read_text(d, "a", ["x", "y", "label"], delimiter=",", skip=1), data)


@FUZZ
@given(mutated(MAT_SEED))
def test_any_bytes_as_a_matlab_file(data: bytes) -> None:
    only_ours(lambda d: point_arrays.read_mat(d, "a", "detection", "m"), data)


@FUZZ
@given(mutated(MASK_SEED) | mutated(TIFF_SEED))
def test_any_bytes_as_a_mask(data: bytes) -> None:
    only_ours(lambda d: masks.read(d, "a", {0: "no", 1: "yes"}, (8, 8)), data)


def test_a_tiff_without_pixels_as_a_mask_is_refused() -> None:
    """Some versions of tifffile give an array of no pixels for it."""
    with pytest.raises(ReadError, match="not a readable mask"):
        masks.read(b"II*\0\5\0\0\0", "a", {0: "no", 1: "yes"}, (8, 8))


@settings(FUZZ, max_examples=100)
@given(data=mutated(json.dumps({"collection": [drawn(1), drawn(2, parentIdent=1, term=[2])]}).encode()))
def test_any_bytes_as_an_export_of_cytomine(data: bytes, tmp_path: Path) -> None:
    if not (tmp_path / "images.json").exists():
        export(tmp_path, [drawn(1)])
    (tmp_path / "annotations.json").write_bytes(data)
    known = cytomine_manifest(tmp_path)
    with contextlib.suppress(UserError):
        plan.make(Source.open(tmp_path, known), Options(), 1, Reporter(quiet=True))
