"""Annotation formats: places and areas worked out by hand, and bytes that mean nothing."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpconvert.annotations import Annotations, LabelMask, Regions, masks, outlines
from dpconvert.annotations import read as files
from dpconvert.annotations.formats import asap, coco, imagescope, ndpa, qupath
from dpconvert.annotations.formats.ndpa import Glass
from dpconvert.annotations.read import Subject
from dpconvert.errors import ReadError

REAL = Path(__file__).parents[3] / "shared" / "data" / "camelyon16" / "lesion_annotations"
GLASS = Glass(size=(1000, 800), mpp=(0.5, 0.25), offset=(1000.0, -2000.0))
SUBJECT = Subject("slides/a.svs", (1000, 800), glass=GLASS, values={0: "none", 1: "tumour"})
SQUARE = [(10, 10), (30, 10), (30, 20), (10, 20)]


def areas(found: Annotations) -> list[tuple[str, float]]:
    return [(item.label, pytest.approx(item.geometry.area)) for item in found.items]


# ASAP

ASAP_GROUPS = '<Group Name="metastasis" PartOfGroup="Tumor"/><Group Name="Tumor" PartOfGroup="None"/>'


def asap_xml(*annotations: tuple[str, str, list[tuple[float, float]]]) -> bytes:
    drawn = "".join(
        f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in reversed([*enumerate(ring)]))
        + "</Coordinates></Annotation>"
        for kind, group, ring in annotations
    )
    return (
        f"<ASAP_Annotations><Annotations>{drawn}</Annotations>"
        f"<AnnotationGroups>{ASAP_GROUPS}</AnnotationGroups></ASAP_Annotations>"
    ).encode()


def test_asap_reads_every_type_in_the_order_of_the_coordinates() -> None:
    found = asap.read(
        asap_xml(
            ("Spline", "Tumor", SQUARE),
            ("Rectangle", "Tumor", SQUARE),
            ("Dot", "Tumor", [(5, 6)]),
            ("PointSet", "Tumor", [(1, 2), (3, 4)]),
        ),
        "a.xml",
    )
    assert [item.geometry.area for item in found.items] == [200, 200, 0, 0, 0]
    assert [(p.geometry.x, p.geometry.y) for p in found.items[2:]] == [(5, 6), (1, 2), (3, 4)]


def test_asap_takes_the_nearest_group_that_is_known() -> None:
    data = asap_xml(("Polygon", "metastasis", SQUARE))
    assert asap.read(data, "a.xml", ["Tumor"]).items[0].label == "Tumor"
    assert asap.read(data, "a.xml", ["Tumor", "metastasis"]).items[0].label == "metastasis"
    with pytest.raises(ReadError, match="unknown annotation group 'metastasis'"):
        asap.read(data, "a.xml", ["_0"])


# ImageScope


def imagescope_xml(regions: str, layer: str = 'Name="Tumor"', attributes: str = "") -> bytes:
    return (
        f'<Annotations MicronsPerPixel="0.25"><Annotation Id="1" {layer}><Attributes>{attributes}</Attributes>'
        f"<Regions>{regions}</Regions></Annotation></Annotations>"
    ).encode()


def region(kind: int, points: list[tuple[float, float]], extra: str = "") -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    return f'<Region Id="7" Type="{kind}" {extra}><Vertices>{vertices}</Vertices></Region>'


def test_imagescope_cuts_negative_regions_out_of_their_layer() -> None:
    hole = region(1, [(12, 12), (17, 22)], 'NegativeROA="1"')  # reaches 2 px below the square: 5 x 8 of it are cut
    found = imagescope.read(imagescope_xml(hole + region(0, SQUARE)), "a.xml")
    assert areas(found) == [("Tumor", 160)]


@pytest.mark.parametrize(
    ("kind", "points", "area"),
    [
        (0, SQUARE, 200),
        (1, SQUARE, 200),
        (1, [(10, 10), (30, 20)], 200),
        (1, [(30, 20), (10, 10)], 200),
        (2, [(10, 10), (30, 20)], np.pi * 10 * 5),
    ],
)
def test_imagescope_regions_by_type(kind: int, points: list[tuple[float, float]], area: float) -> None:
    (item,) = imagescope.read(imagescope_xml(region(kind, points)), "a.xml").items
    assert item.geometry.area == pytest.approx(area, rel=1e-3)
    assert item.geometry.bounds == pytest.approx((10, 10, 30, 20))


def test_imagescope_marks_and_degenerate_regions_are_counted() -> None:
    data = imagescope_xml(region(3, SQUARE[:2]) + region(4, SQUARE[:2]) + region(0, SQUARE[:2]) + region(2, SQUARE[:1]))
    found = imagescope.read(data, "a.xml", ["Tumor"])
    assert found.items == []
    assert found.remarks == {"arrow passed over": 1, "ruler passed over": 1, "degenerate ring dropped": 2}


@pytest.mark.parametrize(
    ("layer", "attributes", "extra", "known", "label"),
    [
        ('Name="Tumor" LineColor="65280"', "", "", [], "Tumor"),
        ('Name="" LineColor="65280"', '<Attribute Name="Description" Value="Stroma"/>', "", [], "Stroma"),
        ('Name="" LineColor="65280"', '<Attribute Name="Necrosis" Value=""/>', "", [], "Necrosis"),
        ('Name="" LineColor="255"', "", "", [], "#ff0000"),
        ('Name="" LineColor="65535"', "", "", [], "#ffff00"),
        ('Name="Layer 1" LineColor="16711680"', "", "", ["#0000ff"], "#0000ff"),
        ('Name="Layer 1"', "", 'Text="Tumor"', ["Tumor"], "Tumor"),
        ('Name="" LineColor="99999999999999999999"', "", "", [], ""),
    ],
)
def test_imagescope_names_of_layers(layer: str, attributes: str, extra: str, known: list[str], label: str) -> None:
    data = imagescope_xml(region(0, SQUARE, extra), layer, attributes)
    assert [item.label for item in imagescope.read(data, "a.xml", known).items] == [label]


def test_imagescope_refuses_an_unknown_layer_by_name() -> None:
    with pytest.raises(ReadError, match=r"unknown annotation label 'Tumor'.*'normal'"):
        imagescope.read(imagescope_xml(region(0, SQUARE)), "a.xml", ["normal"])


# QuPath


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


RING = [[10, 10], [30, 10], [30, 20], [10, 20], [10, 10]]
HOLE = [[12, 12], [17, 12], [17, 17], [12, 17], [12, 12]]


def of_qupath(body: Any, known: list[str] | None = None, origin: tuple[int, int] = (0, 0)) -> Annotations:
    return qupath.read(json.dumps(body).encode(), "a.geojson", known or [], origin)


def test_qupath_geometries() -> None:
    found = of_qupath(
        [
            feature("Polygon", [RING, HOLE]),
            feature("MultiPolygon", [[RING], [[[0, 0], [2, 0], [2, 2], [0, 2]]]]),
            feature("Point", [1, 2]),
            feature("MultiPoint", [[1, 2], [3, 4, 0]]),
            feature("LineString", [[0, 0], [1, 1]]),
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [RING], "isEllipse": True}},
            {"type": "Feature", "geometry": None, "nucleusGeometry": {"type": "Polygon", "coordinates": [HOLE]}},
            {
                "type": "Feature",
                "geometry": {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [HOLE]}]},
            },
        ]
    )
    measured = [item.geometry.area for item in found.items]
    assert measured == pytest.approx([175, 204, 0, 0, 0, np.pi * 50, 25, 25], rel=1e-3)
    assert found.remarks == {"line passed over": 1}


def test_qupath_envelopes_of_all_vintages() -> None:
    one = feature("Polygon", [RING])
    old = {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {"type": "Polygon", "coordinates": [RING]},
        "properties": {"classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": False},
    }
    for body, label in (
        (one, ""),
        ([one], ""),
        ({"type": "FeatureCollection", "features": [one]}, ""),
        ([old], "Tumor"),
        ([one | {"properties": None}], ""),
        ([one | {"properties": {"classification": "Stroma"}}], "Stroma"),
    ):
        assert areas(of_qupath(body)) == [(label, 200)]


@pytest.mark.parametrize(
    ("properties", "known", "label"),
    [
        ({"classification": {"name": "Tumor: Positive"}}, ["Tumor"], "Tumor"),
        ({"classification": {"name": "Tumor: Positive"}}, ["Tumor", "Tumor: Positive"], "Tumor: Positive"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, [], "Tumor: Positive"),
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}}, ["#c80000"], "#c80000"),
        ({"classification": {"colorRGB": -3670016}}, ["#c80000"], "#c80000"),
        ({"classification": '{ "name": "Tumor", "color": [ 200, 0, 0 ] }'}, ["Tumor"], "Tumor"),
        ({"classification": "{'name': 'Tumor', 'color': [200, 0, 0]}"}, ["#c80000"], "#c80000"),
        ({"classification": ["Tumor", "Positive"]}, ["Tumor"], "Tumor"),
        ({"classification": "{not an object"}, ["{not an object"], "{not an object"),
        ({"name": "roi 1"}, [], "roi 1"),
        ({}, [""], ""),
    ],
)
def test_qupath_classes(properties: dict[str, Any], known: list[str], label: str) -> None:
    assert [item.label for item in of_qupath([feature("Point", [1, 2], **properties)], known).items] == [label]


def test_qupath_refuses_what_has_no_known_class() -> None:
    with pytest.raises(ReadError, match="without a label"):
        of_qupath([feature("Point", [1, 2])], ["Tumor"])
    assert of_qupath([feature("LineString", [[1, 2], [3, 4]])], ["Tumor"]).items == []


def test_the_grid_of_a_tissue_microarray_is_no_annotation_unless_the_manifest_names_its_cores() -> None:
    square = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]
    core = feature("Polygon", square, objectType="tma_core", name="A-1", isMissing=False)
    region = feature("Polygon", square, objectType="annotation", classification={"name": "Tumor"})
    graded = feature("Polygon", square, objectType="tma_core", name="A-2", classification={"name": "Tumor"})
    for known in ([], ["Tumor"]):
        found = of_qupath([core, region, graded], known)
        assert [item.label for item in found.items] == ["Tumor", "Tumor"]
        assert found.remarks == {"core of a tissue microarray without a class, passed over": 1}
    assert [item.label for item in of_qupath([core], ["A-1"]).items] == ["A-1"]
    with pytest.raises(ReadError, match="only the grid of a tissue microarray: cores without a class; found 1 core"):
        of_qupath([core], ["Tumor"])


def test_a_core_of_a_tissue_microarray_that_is_missing_is_no_region_whatever_its_class() -> None:
    square = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]
    cores = [
        feature("Polygon", square, objectType="tma_core", isMissing=missing, classification={"name": "Tumor"})
        for missing in (True, False)
    ]
    found = of_qupath(cores, ["Tumor"])
    assert [item.label for item in found.items] == ["Tumor"]
    assert found.remarks == {"core of a tissue microarray that is marked as missing, passed over": 1}


def test_qupath_s_name_of_an_object_is_no_label_beside_its_classification() -> None:
    named = feature("Point", [1, 2], classification={"name": "Stroma"}, name="Tumor")
    with pytest.raises(ReadError, match="unknown annotation label 'Stroma'"):
        of_qupath([named], ["Tumor"])


def test_qupath_counts_from_the_corner_of_the_bounds() -> None:
    (item,) = of_qupath([feature("Polygon", [RING])], origin=(100, 1000)).items
    assert item.geometry.bounds == (110, 1010, 130, 1020)


# NDPA


def ndpa_xml(annotation: str, title: str = "Tumor", unit: str = "nanometers") -> bytes:
    return (
        f'<annotations><ndpviewstate id="3"><title>{title}</title><details/><coordformat>{unit}</coordformat>'
        f"{annotation}</ndpviewstate></annotations>"
    ).encode()


def outline(points: list[tuple[float, float]], kind: str = "freehand", tool: str = "Freehand", closed: int = 1) -> str:
    listed = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in points)
    return (
        f'<annotation type="{kind}" displayname="Annotate{tool}" color="#FF0000"><closed>{closed}</closed>'
        f"<pointlist>{listed}</pointlist></annotation>"
    )


# x = 500 + (nm - 1000) / 500, y = 400 + (nm + 2000) / 250
FRAME_NM = [(1000, -2000), (11000, -2000), (11000, 3000), (1000, 3000)]


def test_ndpa_places_nanometres_on_the_slide() -> None:
    (item,) = ndpa.read(ndpa_xml(outline(FRAME_NM)), "a.ndpa", GLASS).items
    assert (item.label, item.id, item.geometry.bounds) == ("Tumor", "3", (500, 400, 520, 420))


def test_ndpa_pins_and_circles() -> None:
    pin = '<annotation type="pin"><x>6000</x><y>-1000</y></annotation>'
    circle = '<annotation type="circle"><x>6000</x><y>-1000</y><radius>1000</radius></annotation>'
    found = ndpa.read(ndpa_xml(pin + circle), "a.ndpa", GLASS)
    assert (found.items[0].geometry.x, found.items[0].geometry.y) == (510, 404)
    assert found.items[1].geometry.bounds == pytest.approx((508, 400, 512, 408))
    assert found.items[1].geometry.area == pytest.approx(np.pi * 2 * 4, rel=1e-3)


def test_ndpa_open_outlines_are_closed_lines_and_pointers_passed_over() -> None:
    drawn = outline(FRAME_NM, closed=0) + outline(FRAME_NM, tool="FreehandLine", closed=0)
    drawn += '<annotation type="linearmeasure"><x1>1</x1></annotation>'
    found = ndpa.read(ndpa_xml(drawn), "a.ndpa", GLASS)
    assert areas(found) == [("Tumor", 400)]
    assert found.remarks == {"open outline closed": 1, "line passed over": 1, "ruler passed over": 1}


def test_ndpa_is_labelled_by_colour_where_it_has_no_title() -> None:
    assert ndpa.read(ndpa_xml(outline(FRAME_NM), title=""), "a", GLASS, ["#ff0000"]).items[0].label == "#ff0000"


def test_ndpa_of_other_units_or_without_a_glass_is_refused() -> None:
    with pytest.raises(ReadError, match="pixels"):
        ndpa.read(ndpa_xml(outline(FRAME_NM), unit="pixels"), "a.ndpa", GLASS)
    with pytest.raises(ReadError, match="no resolution here"):
        files.read(ndpa_xml(outline(FRAME_NM)), "a.ndpa", Subject("a", (1, 1), glass="no resolution here"))


# COCO


def coco_file(*annotations: dict[str, Any], **image: Any) -> bytes:
    entry = {"id": 41, "file_name": "a.png", "width": 1000, "height": 800} | image
    other = {"id": 5, "file_name": "b.png", "width": 10, "height": 10}
    items = [{"id": 90 + i, "image_id": 41, "category_id": 17} | item for i, item in enumerate(annotations)]
    items.append({"id": 1, "image_id": 5, "category_id": 17, "bbox": [0, 0, 1, 1]})
    body = {"images": [other, entry], "categories": [{"id": 17, "name": "nucleus"}], "annotations": items}
    return json.dumps(body).encode()


def of_coco(data: bytes, size: tuple[int, int] = (1000, 800), known: list[str] | None = None) -> Annotations:
    return coco.shapes(coco.parse(data, "c.json"), "c.json", "slides/a.svs", size, known or [])


def test_coco_polygons_boxes_and_runs_of_one_image() -> None:
    found = of_coco(
        coco_file(
            {"segmentation": [[10, 10, 30, 10, 30, 20, 10, 20], [0, 0, 2, 0, 2, 2, 0, 2]]},
            {"segmentation": [], "bbox": [5, 6, 7, 8]},
            {"segmentation": {"size": [3, 4], "counts": [1, 4, 7]}, "iscrowd": 1},
            {"segmentation": []},
        )
    )
    cell = 250 * 800 / 3  # 4 x 3 cells over 1000 x 800 px
    assert areas(found) == [("nucleus", 204), ("nucleus", 56), ("nucleus", 4 * cell)]
    column_major = shapely.union(shapely.box(0, 1, 1, 3), shapely.box(1, 0, 2, 2))  # 2 cells below, then 2 on top
    column_major = shapely.transform(column_major, lambda xy: xy * [250, 800 / 3])
    assert found.items[2].geometry.equals(column_major)
    assert found.remarks == {
        "annotation without an outline": 1,
        "drawn on a copy of another size, scaled to the image": 1,
        "crowd of objects (iscrowd = 1), read as one object": 1,
    }


@pytest.mark.parametrize("outline", [None, [], [[]]])
def test_coco_annotations_without_an_outline_have_their_box_or_their_single_key_point(outline: Any) -> None:
    found = of_coco(
        coco_file(
            {"segmentation": outline, "bbox": [5, 6, 7, 8]},
            {"segmentation": outline, "bbox": [0, 0, 0, 0], "keypoints": [30.5, 40, 2, 0, 0, 0]},
            {"segmentation": outline, "keypoints": [30, 40, 2, 50, 60, 1]},
            {"segmentation": outline, "keypoints": [0, 0, 0]},
        )
    )
    assert [item.geometry.bounds for item in found.items] == [(5, 6, 12, 14), (30.5, 40, 30.5, 40)]
    assert found.remarks["annotation of several key points"] == 1
    assert found.remarks["annotation without an outline"] == 1


@pytest.mark.parametrize(
    ("attributes", "bounds"),
    [
        ({"rotation": 90.0, "occluded": False}, (35, -15, 85, 85)),
        ({"rotation": 0.0}, (10, 10, 110, 60)),
        ({"rotation": "much"}, (10, 10, 110, 60)),
        ([], (10, 10, 110, 60)),
    ],
)
def test_coco_boxes_of_cvat_are_turned_by_their_rotation(attributes: Any, bounds: tuple[float, ...]) -> None:
    (item,) = of_coco(coco_file({"bbox": [10, 10, 100, 50], "attributes": attributes})).items
    assert item.geometry.bounds == pytest.approx(bounds)
    assert item.geometry.area == pytest.approx(5000)


def test_coco_ids_are_the_same_as_text_and_as_numbers() -> None:
    texts = coco_file({"bbox": [5, 6, 7, 8], "image_id": "41", "category_id": "17"})
    assert areas(of_coco(texts)) == [("nucleus", 56)]


def test_coco_polygon_that_is_no_list_of_polygons_is_one() -> None:
    assert areas(of_coco(coco_file({"segmentation": [10, 10, 30, 10, 30, 20, 10, 20]}))) == [("nucleus", 200)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": [{"id": 41, "file_name": "a.png"}, {"id": "41", "file_name": "b.png"}]},
            "2 images of one id, 41; found a.png, b.png",
        ),
        (
            {"categories": [{"id": 17, "name": "nucleus"}, {"id": 17, "name": "stroma"}]},
            "2 categories of one id, 17; found nucleus, stroma",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 40, "category_id": 17, "bbox": [5, 6, 7, 8]}]},
            "no annotation is of an image that the file lists; expected an image_id such as 5; found 40",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 41, "category_id": 17, "segmentation": [[1, 1, 9, 1, 9, 9, 1]]}]},
            "annotation 1: a polygon of 7 numbers",
        ),
    ],
)
def test_coco_whose_parts_do_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    body = json.loads(coco_file({"bbox": [5, 6, 7, 8]})) | change
    with pytest.raises(ReadError, match=re.escape(message)):
        of_coco(json.dumps(body).encode())


def test_coco_compressed_runs_are_the_same_as_plain_ones() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        mask = rng.random((int(rng.integers(1, 40)), int(rng.integers(1, 40)))) > rng.random()
        counts = run_lengths(mask)
        plain = {"size": list(mask.shape), "counts": counts}
        packed = {"size": list(mask.shape), "counts": compressed(counts)}
        height, width = mask.shape
        files = [coco_file({"segmentation": each}, width=width, height=height) for each in (plain, packed)]
        found = [of_coco(file, (width, height)).items for file in files]
        expected = outlines.outline(outlines.of_mask(mask))
        assert all(item.geometry.equals(expected) for items in found for item in items)
        assert [len(items) for items in found] == [int(mask.any())] * 2


def run_lengths(mask: Any) -> list[int]:
    flat = mask.T.reshape(-1)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def compressed(counts: list[int]) -> str:
    """COCO's own way: differences to the count two before, five bits a character."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def test_coco_scales_what_was_drawn_on_a_smaller_copy() -> None:
    data = coco_file({"bbox": [10, 20, 30, 40]}, width=250, height=200)
    found = of_coco(data)
    assert found.items[0].geometry.bounds == (40, 80, 160, 240)
    assert +found.remarks == {"drawn on a copy of another size, scaled to the image": 1}
    assert not +of_coco(coco_file({"bbox": [10, 20, 30, 40]})).remarks
    with pytest.raises(ReadError, match="another shape"):
        of_coco(coco_file(width=250, height=100))


def test_coco_finds_the_image_by_the_end_of_its_name_or_says_what_it_knows() -> None:
    assert len(of_coco(coco_file({"bbox": [1, 1, 1, 1]}, file_name="export/images/a.ome.tif")).items) == 1
    with pytest.raises(ReadError, match=r"does not list the image.*b\.png"):
        of_coco(coco_file(file_name="a.1.png"))


@pytest.mark.parametrize("counts", [[1, 2], "!", "0", "o", "PPPPPPPPPPPPPPP", [-1, 13]])
def test_coco_runs_that_do_not_fill_the_mask_are_refused(counts: Any) -> None:
    with pytest.raises(ReadError):
        of_coco(coco_file({"segmentation": {"size": [3, 4], "counts": counts}}))


# masks


def draw_image(values: Any, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    drawn = Image.fromarray(np.asarray(values))
    if mode == "P":
        drawn.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    drawn.save(buffer, kind, **options)
    return buffer.getvalue()


def test_masks_of_palettes_give_their_indexes() -> None:
    mask = masks.read(draw_image(np.array([[0, 1], [2, 2]], np.uint8), "P"), "m", {0: "a", 1: "b", 2: "c"}, (20, 20))
    assert mask.at([(5, 5), (15, 5), (5, 15)]) == ["a", "b", "c"]


def test_lossy_edges_of_masks_go_by_the_threshold() -> None:
    values = np.zeros((64, 64), np.uint8)
    values[10:30, 20:50] = 255
    data = draw_image(values, kind="JPEG", quality=60)
    with pytest.raises(ReadError, match="give a threshold"):
        masks.read(data, "m", {0: "no", 255: "yes"}, (64, 64))
    mask = masks.read(data, "m", {0: "no", 1: "yes"}, (64, 64), threshold=127)
    assert mask.share([(0, 0, 64, 64)], ["yes"])[0] == pytest.approx(600 / 4096, abs=0.01)


def test_objects_of_class_masks_are_connected_areas_at_the_scale_of_the_slide() -> None:
    values = np.zeros((4, 6), np.uint8)
    values[0:2, 0:2] = values[2, 2] = values[3, 5] = 1
    values[0, 4] = 2
    mask = masks.read(draw_image(values), "m", {0: "none", 1: "a", 2: "b"}, (60, 40))
    found = mask.objects(["a", "b"])
    assert [(item.label, item.geometry.bounds) for item in found.items] == [
        ("a", (0, 0, 30, 30)),
        ("a", (50, 30, 60, 40)),
        ("b", (40, 0, 50, 10)),
    ]
    assert found.items[0].geometry.area == 500


def test_objects_of_instance_masks_are_their_values() -> None:
    values = np.zeros((4, 6), np.uint16)
    values[0, 0] = values[3, 5] = 700
    values[1, 1] = 40_000
    labels = {0: "none"} | masks.class_table(b"id,class\n700,a\n40000,b\n", "t")
    mask = masks.read(draw_image(values), "m", labels, (6, 4), instances=True)
    assert [(i.label, i.geometry.area) for i in mask.objects(["a", "b"]).items] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("text", ["1,a\n2,b", "id;class\r\n1;a\r\n2;b\r\n", '{"1": "a", "2": "b"}'])
def test_class_tables(text: str) -> None:
    assert masks.class_table(text.encode(), "t") == {1: "a", 2: "b"}


def test_class_tables_with_a_line_that_is_none_are_refused() -> None:
    with pytest.raises(ReadError, match="line 2"):
        masks.class_table(b"1,a\nx,b\n", "t")


# any of them

EXAMPLES: dict[str, bytes] = {
    "asap": asap_xml(("Polygon", "Tumor", SQUARE), ("Dot", "Tumor", [(5, 6)])),
    "imagescope": imagescope_xml(region(0, SQUARE) + region(2, SQUARE[:3:2], 'NegativeROA="1"')),
    "ndpa": ndpa_xml(outline(FRAME_NM) + '<annotation type="circle"><x>1</x><y>2</y><radius>3</radius></annotation>'),
    "qupath": json.dumps([feature("Polygon", [RING, HOLE], classification={"name": "Tumor: Positive"})]).encode(),
    "coco": coco_file({"segmentation": [[1, 1, 5, 1, 5, 5]]}, {"segmentation": {"size": [3, 4], "counts": "165"}}),
    "mask": draw_image(np.eye(80, 100, dtype=np.uint8)),
}


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("pack", ["plain", "gzip", "zip", "bom"])
def test_the_format_is_recognized_by_the_content(kind: str, pack: str) -> None:
    data = EXAMPLES[kind]
    packed = {"plain": data, "gzip": gzip.compress(data), "zip": zipped({"a": data}), "bom": b"\xef\xbb\xbf" + data}
    if pack == "bom" and kind == "mask":
        return
    assert files.detect(files.unpacked(packed[pack], "a"), "a") == kind
    found = files.read(packed[pack], "a", SUBJECT)
    assert isinstance(found, LabelMask) if kind == "mask" else found.items


@pytest.mark.parametrize("data", [b"", b"hello", b"<html/>", b"\0\1\2", b"<Annotationsx/>", b"{}", b"[1]", b"null"])
def test_content_of_no_format_is_refused(data: bytes) -> None:
    with pytest.raises(ReadError):
        files.read(data, "a", SUBJECT)


def test_several_files_in_an_archive_and_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReadError, match="archive of one file"):
        files.unpacked(zipped({"a": b"1", "b": b"2"}), "a.zip")
    monkeypatch.setattr(files, "UNPACKED", 1000)
    for bomb in (gzip.compress(bytes(1001)), zipped({"a": bytes(1001)}), gzip.compress(b"abc")[:-5]):
        with pytest.raises(ReadError):
            files.unpacked(bomb, "a")


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_ids_are_distinguished() -> None:
    data = json.dumps([feature("MultiPoint", [[1, 2], [3, 4]]), feature("Point", [5, 6])]).encode()
    found = files.read(data, "a", SUBJECT)
    assert isinstance(found, Annotations)
    assert len({item.id for item in found.items}) == 3


@pytest.mark.parametrize("kind", EXAMPLES)
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_files_are_read_or_refused(kind: str, seed: int) -> None:
    data = mutated(EXAMPLES[kind], np.random.default_rng(seed))
    try:
        found = files.read(data, "a", SUBJECT)
    except ReadError:
        return
    if isinstance(found, Annotations):
        assert all(item.geometry.is_valid and np.isfinite(item.geometry.bounds).all() for item in found.items)


TOKENS = [
    b"NaN",
    b"1e999",
    b"-1",
    b"1e308",
    b"99999999999999999999",
    b"null",
    b"[",
    b"]",
    b"{",
    b'"',
    b"<",
    b">",
    b"&a;",
    b"\xff",
    b"\0",
    b"true",
    b"0",
    b"",
    b",",
    b"\\ud800",
    b"Infinity",
]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(0, len(changed) + 1)), int(rng.integers(0, 12))
        piece = TOKENS[int(rng.integers(len(TOKENS)))] if rng.random() < 0.8 else rng.bytes(4)
        changed[at : at + length] = piece
    return bytes(changed)


@pytest.mark.parametrize(
    ("number", "make"),
    [
        (value, make)
        for value in ("NaN", "1e999", "1e12", "-Infinity")
        for make in (
            lambda n: imagescope_xml(region(0, [*SQUARE, (n, 1)])),
            lambda n: asap_xml(("Polygon", "Tumor", [*SQUARE, (n, 1)])),
            lambda n: ndpa_xml(outline([*FRAME_NM, (n, 1)])),
            lambda n: EXAMPLES["qupath"].replace(b"12,", f"{n},".encode()),
            lambda n: EXAMPLES["coco"].replace(b"[[1, 1,", f"[[{n}, 1,".encode()),
        )
    ],
)
def test_numbers_that_are_no_coordinates_are_refused(number: str, make: Callable[[Any], bytes]) -> None:
    with pytest.raises(ReadError):
        files.read(make(number), "a", SUBJECT)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b'{"type":"Feature","geometry":' * 50_000])
def test_deep_json_is_refused(data: bytes) -> None:
    with pytest.raises(ReadError):
        files.read(data, "a", SUBJECT)


def test_deep_xml_is_read() -> None:
    deep = b"<a>" * 200_000 + b"</a>" * 200_000
    assert files.read(b"<Annotations><Annotation>" + deep + b"</Annotation></Annotations>", "a", SUBJECT)


def test_more_vertices_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = b",".join(b"[%d,%d]" % (i, i * i % 97) for i in range(1000))
    data = b'[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[' + ring + b"]]}}]"
    assert files.read(data, "a", SUBJECT)
    monkeypatch.setattr("dpconvert.annotations.parsing.json_text.MOST_NUMBERS", 1000)
    monkeypatch.setattr("dpconvert.annotations.parsing.xml_tree.MOST_TAGS", 10)
    for refused in (data, EXAMPLES["asap"]):
        with pytest.raises(ReadError, match="too much"):
            files.read(refused, "a", SUBJECT)


def test_a_scribble_is_filled() -> None:
    ring = np.random.default_rng(0).uniform(0, 1e4, (150, 2)).round().tolist()
    (item,) = of_qupath([feature("Polygon", [[*ring, ring[0]]])]).items
    assert item.geometry.is_valid
    assert item.geometry.area > 0.45e8


def test_scribbles_that_could_not_be_mended_in_time_are_refused() -> None:
    ring = np.random.default_rng(0).uniform(0, 1e5, (20_000, 2)).round().tolist()
    data = json.dumps([feature("Polygon", [[*ring, ring[0]]])]).encode()
    with pytest.raises(ReadError, match="crosses itself"):
        files.read(data, "a", SUBJECT)


def test_entities_are_refused_in_every_xml() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'
    for kind in ("asap", "imagescope", "ndpa"):
        with pytest.raises(ReadError, match="entities"):
            files.read(bomb + EXAMPLES[kind], "a", SUBJECT)


# shares

SCALES = [1, 2, 4, 8]


@pytest.mark.parametrize("scale", SCALES)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shares_of_outlines_are_those_of_a_mask_of_the_same_area(scale: int, seed: int) -> None:
    """Cells of a mask as an outline at level 0, against counted cells of the mask stretched to level 0."""
    rng = np.random.default_rng(seed)
    cells = rng.random((24, 32)) > 0.6
    width, height = 32 * scale, 24 * scale
    mask = LabelMask(cells.astype(np.uint8), {0: "no", 1: "yes"}, width, height)
    boxes = np.stack(
        [rng.integers(0, width - 4, 50), rng.integers(0, height - 4, 50), *rng.integers(1, 40, (2, 50))], 1
    )
    outlines = Regions(item.geometry for item in mask.objects(["yes"]).items).share(boxes)
    full = np.kron(cells, np.ones((scale, scale)))
    counted = [full[y : y + h, x : x + w].sum() / (w * h) for x, y, w, h in boxes]
    np.testing.assert_allclose(outlines, counted, atol=1e-9)
    np.testing.assert_allclose(mask.share(boxes, ["yes"]), counted, atol=1e-9)


@pytest.mark.real
@pytest.mark.parametrize("path", sorted(REAL.glob("*.xml"))[:6] if REAL.is_dir() else [], ids=lambda p: p.stem)
def test_shares_of_the_real_outlines_are_those_of_drawn_ones(path: Path) -> None:
    found = asap.read(path.read_bytes(), path.name)
    area = Regions(item.geometry for item in found.items if item.label != "_2").area
    left, top, right, bottom = area.bounds
    for downsample in (8, 32):
        size = int((right - left) / downsample) + 2, int((bottom - top) / downsample) + 2
        drawn = rasterised(area, (left, top), downsample, size)
        share = Regions([area]).share([(left, top, size[0] * downsample, size[1] * downsample)])[0]
        assert drawn.mean() == pytest.approx(share, rel=0.02, abs=0.002)


def rasterised(area: Any, corner: tuple[float, float], downsample: int, size: tuple[int, int]) -> Any:
    shapely.prepare(area)
    x, y = np.meshgrid(*(c + (np.arange(n) + 0.5) * downsample for c, n in zip(corner, size, strict=True)))
    return shapely.contains_xy(area, x, y)
