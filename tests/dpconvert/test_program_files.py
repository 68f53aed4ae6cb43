"""Annotation files of LabelMe, CVAT, VIA, Label Studio, Darwin, the Digital Slide Archive, HuBMAP, NuCLS, SlideRunner.

Each as its program writes it, with values worked out by hand or by the format's own encoder.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.annotations import read as files
from dpconvert.annotations.label_names import only
from dpconvert.annotations.read import Subject, labels_of_image
from dpconvert.errors import ReadError, SourceError
from tests.dpconvert.test_shape_slides import AREA, Tree

SIZE = 100, 80
Bounds = tuple[float, float, float, float]


def read(
    body: Any, known: list[str] | None = None, *, image: str = "slides/a.png", size: Any = SIZE, label_field: str = ""
) -> Annotations:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = files.read(data, "file", Subject(image, size, label_field=label_field), known or [])
    assert not isinstance(found, LabelMask)
    return found


def refused(body: Any, match: str, **more: Any) -> None:
    with pytest.raises(ReadError, match=match):
        read(body, **more)


def told(found: Annotations) -> list[tuple[str, Bounds]]:
    return [(item.label, tuple(round(float(side), 3) for side in item.geometry.bounds)) for item in found.items]  # type: ignore[misc]


def pixels_of(found: Annotations, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """Which pixels' middles the annotations cover, by shapely alone."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    inside: NDArray[np.bool_] = shapely.contains_xy(shapely.union_all([i.geometry for i in found.items]), x, y)
    return inside


def mask() -> NDArray[np.bool_]:
    drawn = np.zeros((SIZE[1], SIZE[0]), bool)
    drawn[10:30, 20:50] = drawn[40:44, 5] = drawn[79, 99] = True
    drawn[15:20, 30:35] = False
    return drawn


# --- LabelMe


def labelme(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    flags: dict[str, Any] = {"group_id": None, "description": "", "flags": {}, "mask": None}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [flags | shape for shape in shapes],
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 80,
        "imageWidth": 100,
    } | more


def png(drawn: NDArray[np.bool_]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_shapes_of_labelme_are_read() -> None:
    found = read(
        labelme(
            {"label": "p", "points": [[10, 10], [30, 10], [30, 20]], "shape_type": "polygon"},
            {"label": "r", "points": [[30, 20], [10, 10]], "shape_type": "rectangle"},
            {"label": "c", "points": [[50, 40], [53, 44]], "shape_type": "circle"},
            {"label": "d", "points": [[7.5, 8]], "shape_type": "point"},
            {"label": "l", "points": [[1, 1], [9, 9]], "shape_type": "line"},
            {"label": "s", "points": [[1, 1], [9, 9], [9, 1]], "shape_type": "linestrip"},
        )
    )
    assert told(found) == [
        ("p", (10, 10, 30, 20)),
        ("r", (10, 10, 30, 20)),
        ("c", (45, 35, 55, 45)),
        ("d", (7.5, 8, 7.5, 8)),
    ]
    assert [item.geometry.area for item in found.items[:2]] == [100, 200]
    assert found.remarks == {"line passed over": 2}


def test_a_mask_of_labelme_lies_between_its_corners() -> None:
    drawn = mask()[10:45, 5:50]
    shape = {"label": "m", "points": [[5, 10], [49, 44]], "shape_type": "mask", "mask": png(drawn)}
    expected = np.zeros((80, 100), bool)
    expected[10:45, 5:50] = drawn
    assert (pixels_of(read(labelme(shape))) == expected).all()
    refused(labelme(shape | {"mask": "QUJD"}), "a mask that cannot be decoded")


def test_a_mask_of_labelme_starts_on_a_whole_pixel() -> None:
    """LabelMe cuts the fractions that moving a mask leaves in its corners."""
    shape = {
        "label": "m",
        "points": [[5.7, 10.9], [6.7, 11.9]],
        "shape_type": "mask",
        "mask": png(np.ones((2, 2), bool)),
    }
    assert told(read(labelme(shape))) == [("m", (5, 10, 7, 12))]
    refused(labelme(shape | {"points": [[5, 10], [8, 11]]}), "does not fill its corners")


def test_a_turned_rectangle_of_labelme_is_its_four_corners() -> None:
    corners = [[20, 10], [40, 30], [30, 40], [10, 20]]
    (item,) = read(labelme({"label": "o", "points": corners, "shape_type": "oriented_rectangle"})).items
    assert item.geometry.equals(shapely.Polygon(corners))


def test_what_was_drawn_on_a_smaller_copy_is_scaled_and_another_shape_refused() -> None:
    box = {"label": "r", "points": [[10, 10], [30, 20]], "shape_type": "rectangle"}
    assert told(read(labelme(box), size=(400, 320))) == [("r", (40, 40, 120, 80))]
    assert read(labelme(box), size=(400, 320)).remarks["drawn on a copy of another size, scaled to the image"] == 1
    refused(labelme(box), "states another shape", size=(400, 400))
    refused(labelme(box), "unknown annotation label 'r'", known=["tumour"])


# --- CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><id>1</id></job></meta>
<image id="0" name="slides/a.png" width="100" height="80">{}</image>
<image id="1" name="slides/b.png" width="100" height="80"></image>{}</annotations>"""
SHAPES = """
<box label="b" source="manual" occluded="0" xtl="10.0" ytl="20.0" xbr="30.0" ybr="30.0" z_order="0"></box>
<box label="turned" occluded="0" xtl="10.0" ytl="20.0" xbr="30.0" ybr="30.0" rotation="90.00" z_order="0"></box>
<polygon label="p" occluded="0" points="10.00,10.00;30.00,10.00;30.00,20.00" z_order="0"></polygon>
<points label="d" occluded="0" points="5.00,6.00;7.00,8.00" z_order="0"></points>
<ellipse label="e" occluded="0" cx="50.00" cy="40.00" rx="10.00" ry="5.00" z_order="0"></ellipse>
<polyline label="l" occluded="0" points="1.0,1.0;2.0,2.0" z_order="0"></polyline>
<tag label="whole" source="manual"></tag>
"""


def test_shapes_of_cvat_are_read_and_the_rest_is_counted() -> None:
    found = read(CVAT.format(SHAPES, "").encode())
    assert told(found) == [
        ("b", (10, 20, 30, 30)),
        ("turned", (15, 15, 25, 35)),
        ("p", (10, 10, 30, 20)),
        ("d", (5, 6, 5, 6)),
        ("d", (7, 8, 7, 8)),
        ("e", (40, 35, 60, 45)),
    ]
    assert found.remarks == {"line passed over": 1, "mark of an unknown type passed over: 'tag'": 1}
    assert read(CVAT.format(SHAPES, "").encode(), image="b.png").items == []
    refused(CVAT.format(SHAPES, "").encode(), "does not list the image 'c.png'", image="c.png")


def test_a_mask_of_cvat_is_runs_along_the_rows_of_its_frame() -> None:
    drawn = mask()[10:45, 5:50]
    values = drawn.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values, [1 - values[-1]]])))
    counts = np.diff(np.concatenate([[0], edges]))
    text = ", ".join(map(str, counts))
    element = f'<mask label="m" rle="{text}" left="5" top="10" width="45" height="35" z_order="0"></mask>'
    expected = np.zeros((80, 100), bool)
    expected[10:45, 5:50] = drawn
    assert (pixels_of(read(CVAT.format(element, "").encode())) == expected).all()
    refused(CVAT.format(element.replace('height="35"', 'height="36"'), "").encode(), "do not fill the mask")


def test_tracks_of_a_video_are_counted_or_refused() -> None:
    track = '<track id="0" label="x"><box frame="0" outside="0" xtl="1" ytl="1" xbr="2" ybr="2"></box></track>'
    assert read(CVAT.format(SHAPES, track).encode()).remarks["track of a video passed over"] == 1
    only = f"<annotations><version>1.1</version><meta></meta>{track}</annotations>"
    refused(only.encode(), 'tracks of a video and no images; export it as "CVAT for images"')


# --- VIA

REGIONS: list[dict[str, Any]] = [
    {
        "shape_attributes": {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 10},
        "region_attributes": {"class": "r"},
    },
    {
        "shape_attributes": {"name": "polygon", "all_points_x": [10, 30, 30], "all_points_y": [10, 10, 20]},
        "region_attributes": {"class": {"p": True, "q": False}},
    },
    {"shape_attributes": {"name": "circle", "cx": 50, "cy": 40, "r": 5}, "region_attributes": {"class": "c"}},
    {
        "shape_attributes": {"name": "ellipse", "cx": 50, "cy": 40, "rx": 10, "ry": 5, "theta": math.pi / 2},
        "region_attributes": {"class": "e"},
    },
    {"shape_attributes": {"name": "point", "cx": 7, "cy": 8}, "region_attributes": {"class": "d"}},
    {"shape_attributes": {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]}, "region_attributes": {}},
]
DRAWN = [
    ("r", (10, 20, 30, 30)),
    ("p", (10, 10, 30, 20)),
    ("c", (45, 35, 55, 45)),
    ("e", (45, 30, 55, 50)),
    ("d", (7, 8, 7, 8)),
]


def via_images() -> dict[str, Any]:
    images = {"a.png": REGIONS, "b.png": []}
    return {f"{n}123": {"filename": n, "size": 123, "regions": r, "file_attributes": {}} for n, r in images.items()}


def via_table() -> bytes:
    text = io.StringIO()
    head = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    writer = csv.writer(text)
    writer.writerow([*head, "region_shape_attributes", "region_attributes"])
    for number, region in enumerate(REGIONS):
        cells = [json.dumps(region[key]) for key in ("shape_attributes", "region_attributes")]
        writer.writerow(["a.png", 123, "{}", len(REGIONS), number, *cells])
    writer.writerow(["b.png", 123, "{}", 0, 0, "{}", "{}"])
    return text.getvalue().encode()


def via_project() -> dict[str, Any]:
    return {
        "_via_settings": {"ui": {}},
        "_via_img_metadata": via_images(),
        "_via_attributes": {"region": {}, "file": {}},
    }


def via_one() -> dict[str, Any]:
    """Version 1: regions by number."""
    entry = via_images()["a.png123"]
    return {"a.png123": entry | {"fileref": "", "regions": {str(n): r for n, r in enumerate(REGIONS)}}}


def via_table_of_version_1() -> bytes:
    return b"#" + via_table()


@pytest.mark.parametrize("write", [via_images, via_table, via_table_of_version_1, via_project, via_one])
def test_every_form_of_via_is_read(write: Callable[[], Any]) -> None:
    found = read(write())
    assert told(found) == DRAWN
    assert found.remarks == {"line passed over": 1}


def test_a_polygon_of_via_with_a_corner_of_one_coordinate_is_refused() -> None:
    outline = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [10, 10, 20]}
    region = {"shape_attributes": outline, "region_attributes": {"type": "p"}}
    refused({"a.png1": {"filename": "a.png", "size": 1, "regions": [region]}}, "differ in length")


def test_an_image_without_regions_holds_none() -> None:
    for body in (via_images(), via_table()):
        assert read(body, image="b.png").items == []
        refused(body, "does not list the image", image="c.png")


# --- VIA 3


def via3(**regions: tuple[list[float], dict[str, str]]) -> dict[str, Any]:
    """A project as the program writes it: two images, of which the second is drawn on, and a video."""
    metadata = {
        f"2_{key}": {"vid": "2", "flg": 0, "z": [], "xy": xy, "av": values} for key, (xy, values) in regions.items()
    }
    files = {
        str(number): {"fid": number, "fname": name, "type": kind, "loc": 1, "src": name}
        for number, (name, kind) in enumerate((("b.png", 2), ("a.png", 2), ("film.mp4", 4)), start=1)
    }
    options = {"0": "tumour", "1": "stroma", "2": "fat"}
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "data_format_version": "3.1.1",
            "creator": "VGG Image Annotator",
            "vid_list": ["1", "2", "3"],
        },
        "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}, "ui": {}},
        "attribute": {
            "1": {
                "aname": "tissue",
                "anchor_id": "FILE1_Z0_XY1",
                "type": 4,
                "options": options,
                "default_option_id": "",
            },
            "2": {"aname": "remark", "anchor_id": "FILE1_Z0_XY1", "type": 1, "options": {}, "default_option_id": ""},
            "3": {"aname": "many", "anchor_id": "FILE1_Z0_XY1", "type": 2, "options": options, "default_option_id": ""},
        },
        "file": files,
        "metadata": {
            "1_file": {"vid": "2", "flg": 0, "z": [], "xy": [], "av": {"2": ""}},
            **metadata,
            "3_film": {"vid": "3", "flg": 0, "z": [1.5], "xy": [2, 0, 0, 9, 9], "av": {"1": "0"}},
        },
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}, "3": {"fid_list": ["3"]}},
    }


def test_shapes_of_a_project_of_via_3_are_read() -> None:
    project = via3(
        point=([1, 10, 20], {"1": "0"}),
        box=([2, 10, 20, 30, 10], {"1": "1"}),
        circle=([3, 50, 40, 10], {"2": "seen twice", "1": ""}),
        ellipse=([4, 50, 40, 20, 10], {"3": "2"}),
        polygon=([7, 0, 0, 30, 0, 30, 20], {"1": "1"}),
        line=([5, 0, 0, 9, 9], {"1": "1"}),
        lines=([6, 0, 0, 9, 9, 18, 0], {"1": "1"}),
    )
    found = read(project)
    assert told(found) == [
        ("tumour", (10, 20, 10, 20)),
        ("stroma", (10, 20, 40, 30)),
        ("seen twice", (40, 30, 60, 50)),
        ("fat", (30, 30, 70, 50)),
        ("stroma", (0, 0, 30, 20)),
    ]
    assert found.items[4].geometry.area == 300
    assert found.items[3].geometry.area == pytest.approx(math.pi * 20 * 10, rel=1e-3)
    assert found.remarks == {"line passed over": 2}
    assert read(project, image="b.png").remarks == {"region of a video passed over": 1}


def test_options_of_via_3_are_one_label_that_counts() -> None:
    several = via3(box=([2, 10, 20, 30, 10], {"3": "2,0"}))
    assert read(several, ["tumour", "stroma"]).items[0].label == "tumour"
    refused(several, "several labels for one region or image; expected one; found 'fat', 'tumour'")
    refused(via3(box=([2, 10, 20, 30, 10], {"3": "0,9"})), "an option that the project does not list.*found 9")


def test_an_attribute_of_the_whole_image_in_via_3_is_its_label() -> None:
    project = via3()
    project["metadata"]["1_file"]["av"] = {"1": "1"}
    assert labels_of_image(json.dumps(project).encode(), "p.json", "a.png") == ("stroma",)


def test_regions_of_via_3_that_cannot_be_placed_are_refused() -> None:
    refused(via3(box=([2, 10, 20, 30], {})), "region 2_box: a rectangle of 3 coordinates")
    refused(via3(odd=([2.5, 0, 0, 9, 9], {})), r"shape 2\.5")
    refused(via3(odd=([7, 0, 0, 30], {})), "region 2_odd: a polygon of 3 coordinates")
    project = via3(box=([2, 10, 20, 30, 10], {}))
    project["view"]["2"]["fid_list"] = ["1", "2"]  # two images side by side
    refused(project, "region 2_box does not belong to exactly one image; found 2 files in view 2")
    refused(via3(), "does not list the image", image="c.png")


def test_a_project_of_via_3_is_known_however_many_regions_it_has() -> None:
    many = {f"r{number}": ([2, number % 90, 20, 5, 5], {"1": "0"}) for number in range(3000)}
    assert len(read(via3(**many)).items) == 3000


# --- LabelMe's XML

LABELME = """<annotation><filename>a.png</filename><folder>slides</folder><source>
<sourceImage>The MIT-CSAIL database of objects and scenes</sourceImage>
<sourceAnnotation>LabelMe Webtool</sourceAnnotation></source>{}<imagesize><nrows>
80
</nrows><ncols>100</ncols></imagesize></annotation>"""
OBJECT = """<object><name>
{}
</name><deleted>{}</deleted><verified>0</verified><occluded>no</occluded><attributes/><parts><hasparts/><ispartof/>
</parts><date>18-Dec-2017 13:40:42</date><id>{}</id>{}</object>"""


def xml_object(label: str, *corners: tuple[float, float], deleted: int = 0, number: int = 0) -> str:
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in corners)
    outline = f"<polygon><username>anonymous</username>{points}</polygon>"
    return OBJECT.format(label, deleted, number, outline)


def test_polygons_of_labelme_s_xml_are_read_and_deleted_ones_are_not() -> None:
    drawn = [
        xml_object("tumour", (10, 20), (40, 20), (40, 50), (10, 50)),
        xml_object("stroma", (0, 0), (30, 0), (30, 20), number=1),
        xml_object("tumour", (60, 60), (70, 60), (70, 70), deleted=1, number=2),
        OBJECT.format("fat", 0, 3, "<segm><username>a</username><mask>a_mask_3.png</mask></segm>"),
    ]
    found = read(LABELME.format("".join(drawn)).encode())
    assert told(found) == [("tumour", (10, 20, 40, 50)), ("stroma", (0, 0, 30, 20))]
    assert [item.geometry.area for item in found.items] == [900, 300]
    assert found.remarks == {"deleted object passed over": 1, "mark of an unknown type passed over: 'mask'": 1}
    half = read(LABELME.format("".join(drawn[:3])).encode(), size=(200, 160))
    assert told(half)[0] == ("tumour", (20, 40, 80, 100))


def test_labelme_s_xml_without_objects_shows_none_and_a_broken_corner_is_refused() -> None:
    assert read(LABELME.format("").encode()).items == []
    broken = LABELME.format(xml_object("tumour", (10, 20), (40, 20), (40, 50))).replace("<y>50</y>", "<y>?</y>")
    refused(broken.encode(), "<y> of <pt>")
    refused(LABELME.format(xml_object("t", (1, 2), (4, 2), (4, 5))).encode(), "another shape", size=(100, 100))


def test_a_region_of_via_with_two_known_labels_is_refused() -> None:
    both = [REGIONS[0] | {"region_attributes": {"grade": "high", "class": {"tumour": True, "stroma": False}}}]
    body = {"a1": via_images()["a.png123"] | {"regions": both}}
    assert [item.label for item in read(body, ["tumour", "stroma"]).items] == ["tumour"]
    refused(body, "several labels .*; expected one; found 'high', 'tumour'", known=["tumour", "high"])
    refused(body, "several labels.*name those that count in the manifest")


# --- Label Studio

PER_CENT = {"image_rotation": 0, "original_width": 100, "original_height": 80, "from_name": "label", "to_name": "image"}


def studio(*results: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-a.png", **more: Any) -> list[Any]:
    named = [PER_CENT | {"id": f"r{number}"} | result for number, result in enumerate(results)]
    return [
        {"id": 1, "annotations": [{"id": 1, "was_cancelled": False, "result": named}], "data": {"image": image}} | more
    ]


STUDIO: list[dict[str, Any]] = [
    {
        "type": "rectanglelabels",
        "value": {"x": 10, "y": 25, "width": 20, "height": 12.5, "rotation": 0, "rectanglelabels": ["r"]},
    },
    {
        "type": "rectanglelabels",
        "value": {"x": 50, "y": 50, "width": 20, "height": 12.5, "rotation": 90, "rectanglelabels": ["t"]},
    },
    {
        "type": "polygonlabels",
        "value": {"points": [[10, 12.5], [30, 12.5], [30, 25]], "closed": True, "polygonlabels": ["p"]},
    },
    {
        "type": "ellipselabels",
        "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 6.25, "rotation": 0, "ellipselabels": ["e"]},
    },
    {"type": "keypointlabels", "value": {"x": 7, "y": 10, "width": 0.5, "keypointlabels": ["d"]}},
    {"type": "choices", "value": {"choices": ["good"]}},
]


@pytest.mark.parametrize(
    "image",
    ["/data/upload/1/0a1b2c3d-a.png", "s3://bucket/slides/a.png", "/data/local-files/?d=slides%2Fa.png", "a.png"],
)
def test_shapes_of_label_studio_are_per_cent_of_the_image(image: str) -> None:
    found = read(studio(*STUDIO, image=image))
    assert told(found) == [
        ("r", (10, 20, 30, 30)),
        ("t", (40, 40, 50, 60)),
        ("p", (10, 10, 30, 20)),
        ("e", (40, 35, 60, 45)),
        ("d", (7, 8, 7, 8)),
    ]
    assert found.remarks == {"mark of an unknown type passed over: 'choices'": 1}


def test_a_region_of_label_studio_with_two_known_labels_is_refused() -> None:
    two = studio(STUDIO[0] | {"value": STUDIO[0]["value"] | {"rectanglelabels": ["tumour", "stroma"]}})
    assert [item.label for item in read(two, ["stroma", "other"]).items] == ["stroma"]
    refused(two, "several labels .*; expected one; found 'tumour', 'stroma'", known=["tumour", "stroma"])


def test_json_min_of_label_studio_is_read_too() -> None:
    labels = [STUDIO[0]["value"] | {"original_width": 100, "original_height": 80}]
    body = [{"image": "/data/upload/a.png", "id": 1, "label": labels, "annotator": 1, "annotation_id": 1}]
    assert told(read(body)) == [("r", (10, 20, 30, 30))]


def test_shapes_of_json_min_with_labels_of_their_own_are_joined() -> None:
    """`<Rectangle>` and `<Labels>` are two lists, whose entries have no ids."""
    size = {"original_width": 100, "original_height": 80}
    shapes: list[dict[str, Any]] = [
        {"x": 10, "y": 25, "width": 20, "height": 12.5, "rotation": 0} | size,
        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 6.25, "rotation": 0} | size,
        {"points": [[10, 12.5], [30, 12.5], [30, 25]], "closed": True} | size,
        {"x": 7, "y": 10, "width": 0.5} | size,
    ]
    labels = [shape | {"labels": [label]} for shape, label in zip(shapes, "re", strict=False)]
    other = [{"vertices": [{"x": 1, "y": 2}]} | size]
    body = [{"image": "/data/upload/a.png", "id": 1, "shape": shapes, "label": labels, "v": other, "annotator": 1}]
    found = read(body)
    assert found.remarks == {"mark of an unknown type passed over: 'shape'": 1}
    assert told(found) == [
        ("r", (10, 20, 30, 30)),
        ("e", (40, 35, 60, 45)),
        ("", (10, 10, 30, 20)),
        ("", (7, 8, 7, 8)),
    ]


def test_a_shape_of_label_studio_without_an_id_has_no_label_of_another() -> None:
    first, second = STUDIO[0], STUDIO[1] | {"type": "rectangle", "value": STUDIO[1]["value"] | {"rectanglelabels": []}}
    found = read(studio(first | {"id": ""}, second | {"id": ""}))
    assert [item.label for item in found.items] == ["r", ""]


@pytest.mark.parametrize("answers", [[], [{"id": 0, "was_cancelled": True, "result": STUDIO}]])
def test_a_task_that_was_skipped_is_an_image_without_annotations(answers: list[Any]) -> None:
    """Not one on which nothing was found."""
    tasks = [*studio(STUDIO[0]), *studio(image="b.png", annotations=answers)]
    named = files.images_named(json.dumps(tasks).encode(), "file") or []
    assert not any("b.png" in image.names for image in named)
    refused(tasks, "does not list the image 'b.png'", image="b.png")
    nothing = [*studio(STUDIO[0]), *studio(image="b.png")]
    assert read(nothing, image="b.png").items == []


PREDICTED = [{"id": 4, "model_version": "v1", "result": [PER_CENT | {"id": "r0"} | STUDIO[0]]}]


@pytest.mark.parametrize("predictions", [PREDICTED, [4]])
@pytest.mark.parametrize("task", [{"annotations": []}, {}])
def test_predictions_alone_are_no_annotations(task: dict[str, Any], predictions: list[Any]) -> None:
    """Where missing annotations mean that there is nothing, all images would be negative without a word."""
    tasks = [task | {"id": 1, "data": {"image": "a.png"}, "meta": {}, "predictions": predictions}] * 2
    if not task and predictions == [4]:
        return  # nothing tells that this is of Label Studio
    message = "holds predictions of a model, and no annotations; found predictions of 2 tasks"
    refused(tasks, message)
    with pytest.raises(ReadError, match=message):
        files.images_named(json.dumps(tasks).encode(), "file")
    assert read([*tasks, *studio(STUDIO[0])]).items


def test_tasks_that_nobody_annotated_are_reported_with_the_reason() -> None:
    cancelled = [{"id": 0, "was_cancelled": True, "result": []}]
    tasks = [
        *studio(STUDIO[0]),
        *studio(image="/data/upload/1/0a1b2c3d-b.png", annotations=[], predictions=PREDICTED),
        *studio(image="c.png", annotations=cancelled, predictions=PREDICTED),
        *studio(image="d.png", annotations=cancelled),
        *studio(image="e.png", annotations=[]),
    ]
    assert files.unanswered(json.dumps(tasks).encode(), "file") == {
        "with predictions of a model alone": [("/data/upload/1/0a1b2c3d-b.png", "/data/upload/1/b.png"), ("c.png",)],
        "skipped by the annotator": [("d.png",)],
        "not reached": [("e.png",)],
    }


def test_a_conversion_says_which_images_nobody_annotated(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for name in "ab":
        tree.slide(f"{name}.tif")
    whole = {"x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0, "rectanglelabels": ["Tumor"]}
    drawn = {"type": "rectanglelabels", "value": whole, "original_width": 512, "original_height": 512}
    other = studio(image="b.tif", annotations=[], predictions=PREDICTED)
    tree.write("all.json", json.dumps([*studio(drawn, image="a.tif"), *other]))
    tree.manifest(AREA)
    note = "all.json: 1 image not annotated, with predictions of a model alone; the first: b.tif"
    with pytest.raises(SourceError, match=f"b.tif: no annotations for this slide; found {note}"):
        tree.counts()
    tree.manifest(AREA + "[layout]\nmissing = true\n")
    assert tree.counts() == {"yes": 8, "no": 8}
    assert note in tree.plan().notes
    tree.slide("c.tif")
    tree.manifest(AREA + '[layout]\nmissing = "none"\n')
    assert tree.counts() == {"yes": 8, "no": 8 + 16}  # c, of which nothing is said, and not b
    assert "left out: 1 slide without annotations, the first b.tif" in tree.plan().notes


def test_an_export_in_which_no_task_was_reached_lists_no_image() -> None:
    tasks = studio(image="a.png", annotations=[], predictions=[], meta={}) * 2
    assert files.images_named(json.dumps(tasks).encode(), "file") == []
    refused(tasks, "does not list the image 'slides.a.png'; found no image")


def test_of_several_annotators_the_first_counts() -> None:
    body = studio(STUDIO[0])
    body[0]["annotations"] = [
        {"id": 0, "was_cancelled": True, "result": []},
        *body[0]["annotations"],
        {"id": 2, "result": []},
    ]
    found = read(body)
    assert len(found.items) == 1
    assert found.remarks == {"annotation of another annotator passed over": 1}


# label_studio_converter.brush.mask2rle of 10 x 8 pixels with [2:5, 3:8] and [6, 1] set
BRUSH = [
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


def test_a_brush_of_label_studio_is_decoded_as_its_own_converter_encodes() -> None:
    value = {"format": "rle", "rle": BRUSH, "brushlabels": ["Tumour"]}
    result = {"type": "brushlabels", "value": value, "original_width": 10, "original_height": 8}
    found = read(studio(result), size=(10, 8))
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:8] = expected[6, 1] = True
    assert (pixels_of(found, (10, 8)) == expected).all()
    assert found.items[0].label == "Tumour"
    refused(studio(result | {"original_width": 5}), "do not fill the mask", size=(5, 8))
    refused(studio(result | {"value": value | {"rle": BRUSH[:9]}}), "truncated", size=(10, 8))


# --- Darwin


def darwin(*annotations: dict[str, Any]) -> dict[str, Any]:
    slot = {"type": "image", "slot_name": "0", "width": 100, "height": 80, "source_files": [{"file_name": "a.png"}]}
    return {
        "version": "2.0",
        "schema_ref": "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json",
        "item": {"name": "a.png", "path": "/", "slots": [slot]},
        "annotations": list(annotations),
    }


def path(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points]


def test_shapes_of_darwin_are_read_and_inner_paths_are_holes() -> None:
    outer = path((10, 10), (30, 10), (30, 30), (10, 30))
    box = {"h": 20, "w": 20, "x": 10, "y": 10}
    found = read(
        darwin(
            {
                "id": "1",
                "name": "p",
                "polygon": {"paths": [outer, path((15, 15), (20, 15), (20, 20), (15, 20))]},
                "bounding_box": box,
            },
            {"id": "2", "name": "b", "bounding_box": box, "slot_names": ["0"]},
            {
                "id": "3",
                "name": "e",
                "ellipse": {"angle": math.pi / 2, "center": {"x": 50, "y": 40}, "radius": {"x": 10, "y": 5}},
            },
            {"id": "4", "name": "d", "keypoint": {"x": 7, "y": 8}},
            {"id": "5", "name": "l", "line": {"path": path((1, 1), (2, 2))}},
            {"id": "6", "name": "t", "tag": {}},
        )
    )
    assert told(found) == [
        ("p", (10, 10, 30, 30)),
        ("b", (10, 10, 30, 30)),
        ("e", (45, 30, 55, 50)),
        ("d", (7, 8, 7, 8)),
    ]
    assert found.items[0].geometry.area == 400 - 25
    assert found.remarks == {"line passed over": 1, "mark of an unknown type passed over: 'tag'": 1}


def test_version_1_of_darwin_is_read_and_videos_are_refused() -> None:
    one = {"name": "p", "polygon": {"path": path((10, 10), (30, 10), (30, 20))}}
    two = {
        "name": "q",
        "complex_polygon": {"path": [path((40, 40), (50, 40), (50, 50), (40, 50)), path((42, 42), (44, 42), (44, 44))]},
    }
    image = {"width": 100, "height": 80, "filename": "a.png", "original_filename": "a.png"}
    found = read({"dataset": "x", "image": image, "annotations": [one, two]})
    assert [item.geometry.area for item in found.items] == [100, 98]
    refused(darwin({"name": "v", "frames": {"0": {}}, "ranges": [[0, 1]]}), "annotations of a video")


# --- Digital Slide Archive

ELEMENTS: list[dict[str, Any]] = [
    {
        "type": "polyline",
        "points": [[10, 10, 0], [30, 10, 0], [30, 30, 0], [10, 30, 0]],
        "closed": True,
        "id": "1",
        "holes": [[[15, 15, 0], [20, 15, 0], [20, 20, 0], [15, 20, 0]]],
        "label": {"value": "p"},
        "group": "g",
    },
    {"type": "rectangle", "center": [20, 25, 0], "width": 20, "height": 10, "rotation": 0, "group": "r"},
    {"type": "rectangle", "center": [20, 25, 0], "width": 20, "height": 10, "rotation": math.pi / 2},
    {"type": "ellipse", "center": [50, 40, 0], "width": 20, "height": 10, "rotation": 0},
    {"type": "circle", "center": [50, 40, 0], "radius": 5},
    {"type": "point", "center": [7, 8, 0]},
    {"type": "polyline", "points": [[1, 1, 0], [2, 2, 0]], "closed": False},
    {"type": "arrow", "points": [[1, 1, 0], [2, 2, 0]]},
    {"type": "heatmap", "points": [[1, 1, 0, 5]]},
]


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"_id": "x", "annotation": d}, lambda d: [{"annotation": d}]])
def test_elements_of_the_digital_slide_archive_are_read(wrap: Callable[[Any], Any]) -> None:
    found = read(wrap({"name": "layer", "description": "", "elements": ELEMENTS}))
    assert told(found) == [
        ("p", (10, 10, 30, 30)),
        ("r", (10, 20, 30, 30)),
        ("layer", (15, 15, 25, 35)),
        ("layer", (40, 35, 60, 45)),
        ("layer", (45, 35, 55, 45)),
        ("layer", (7, 8, 7, 8)),
    ]
    assert found.items[0].geometry.area == 400 - 25
    assert found.remarks == {
        "line passed over": 1,
        "arrow passed over": 1,
        "mark of an unknown type passed over: 'heatmap'": 1,
    }


# --- HuBMAP


def encoded(drawn: NDArray[np.bool_]) -> str:
    """The encoder of the competition: pairs of first pixel and length, down the columns, from 1."""
    pixels = np.concatenate([[0], drawn.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


@pytest.mark.parametrize(
    ("head", "row"),
    [("id,encoding", "a,{}"), ("id,organ,data_source,img_height,img_width,rle", "a,kidney,HPA,80,100,{}")],
)
def test_run_lengths_of_hubmap_are_read_back(head: str, row: str) -> None:
    found = read(f"{head}\n{row.format(encoded(mask()))}\nb{',' * head.count(',')}\n".encode())
    assert (pixels_of(found) == mask()).all()
    assert found.items[0].label == ("kidney" if "organ" in head else "")
    assert read(f"{head}\n{row.format('')}\n".encode()).items == []
    refused(f"{head}\n{row.format('7999 5')}\n".encode(), "run lengths beyond the image")
    refused(f"{head}\n{row.format('7 5 1')}\n".encode(), "not pairs")
    refused(f"{head}\n{row.format('1 5')}\n".encode(), "does not list the image 'c.tif'", image="c.tif")


def test_polygons_of_hubmap_are_one_image_a_line() -> None:
    ring = [[[10, 10], [30, 10], [30, 20], [10, 10]]]
    lines = [{"id": "a", "annotations": [{"type": "glomerulus", "coordinates": ring}]}, {"id": "b", "annotations": []}]
    body = "\n".join(map(json.dumps, lines)).encode()
    assert told(read(body, ["glomerulus"])) == [("glomerulus", (10, 10, 30, 20))]
    assert read(body, image="x/b.tif").items == []


POLYGONS = [[[10, 10], [30, 10], [30, 20], [10, 20]], [[40.5, 30], [60, 30], [50, 50]], [[1, 1], [1, 1]]]


def test_a_bare_list_of_polygons_is_of_one_image_and_without_labels() -> None:
    for body in (POLYGONS, json.dumps(POLYGONS, indent=1).encode()):
        found = read(body)
        assert told(found) == [("", (10, 10, 30, 20)), ("", (40.5, 30, 60, 50))]
        assert (pixels_of(found) == pixels_of(Annotations([*found.items, *found.items]))).all()
        assert found.items[1].geometry.equals(shapely.Polygon(POLYGONS[1]))
        assert found.remarks == {"degenerate ring dropped": 1}
    refused(POLYGONS, "an annotation without a label", known=["glomerulus"])
    refused([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], "file: 0.0: ")
    refused([[[1, 2], [4, 5], ["x", 8]]], "file: 0.2.0: ")


def test_polygons_without_a_label_are_what_the_manifest_says(tmp_path: Path) -> None:
    """The left quarter and the right quarter of a square, in tiles of a quarter of its side."""
    tree = Tree(tmp_path)
    tree.slide("a.tif")
    quarters = [[[left, 0], [left + 128, 0], [left + 128, 512], [left, 512]] for left in (0, 384)]
    tree.write("a.json", json.dumps(quarters))
    tree.manifest(AREA)
    with pytest.raises(SourceError, match="without a label"):
        tree.counts()
    tree.manifest(AREA + '[layout.labels]\n"" = "Tumor"\n')
    assert tree.counts() == {"no": 8, "yes": 8}


@pytest.mark.parametrize("organ", ["organ", "tissue_thickness"])
def test_crops_of_a_table_without_organs_are_no_class(
    organ: str, dpconvert: Callable[..., Any], tmp_path: Path
) -> None:
    tree = Tree(tmp_path)
    for name in "abc":
        tree.slide(f"{name}.tif")
    rows = "".join(f"{name},kidney,512,512,1 20 513 20\n" for name in "abc")
    tree.write("train.csv", f"id,{organ},img_height,img_width,rle\n{rows}")
    path = tmp_path / "crops.toml"
    path.write_text(
        "task = 'Crops'\nshape = 'slides'\n[files.annotations]\npattern = 'train\\.csv$'\n[rule]\ntype = 'crop'\n"
    )
    checked = dpconvert("check", path, "--source", tree.root, "-q")
    made = dpconvert(path, "--source", tree.root, "--out", tmp_path / "out", "-q")
    if organ == "organ":
        assert (checked.code, made.code) == (0, 0), made.err
        return
    assert (checked.code, made.code) == (1, 1)
    for answer in (checked, made):
        assert (
            "a.tif: a sample without a label; name the task's `classes` in the manifest; for annotations" in answer.err
        )


# --- NuCLS

NUCLS = (
    ",raw_classification,main_classification,super_classification,type,xmin,ymin,xmax,ymax,coords_x,coords_y\n"
    '0,tumor,tumor_nonMitotic,tumor_any,polyline,10,10,30,20,"10,30,30","10,10,20"\n'
    "1,fibroblast,nonTILnonMQ_stromal,nonTIL_stromal,rectangle,40,40,50,60,,\n"
)


def test_nuclei_of_nucls_are_outlines_or_boxes_under_any_of_three_names() -> None:
    assert told(read(NUCLS.encode())) == [("tumor", (10, 10, 30, 20)), ("fibroblast", (40, 40, 50, 60))]
    assert [i.geometry.area for i in read(NUCLS.encode()).items] == [100, 200]
    known = ["tumor_any", "nonTIL_stromal"]
    assert [label for label, _ in told(read(NUCLS.encode(), known))] == known
    refused(NUCLS.replace("40,40,50", "40,x,50").encode(), "line 3: ymin is not a coordinate")


TABLES_OF_PROGRAMS = {
    "VIA": (via_table(), "a.png"),
    "NuCLS": (NUCLS.encode(), "x"),
    "HuBMAP": (b"id,organ,img_height,img_width,rle\na,kidney,80,100,1 20 101 20\n", "a.tif"),
}


@pytest.mark.parametrize(
    "form", ["sep=;", "utf-16", "utf-16-le", "utf-8-sig", "cp1252", "blank lines", "\t", "carriage"]
)
@pytest.mark.parametrize("program", TABLES_OF_PROGRAMS)
def test_tables_of_programs_may_be_saved_again_by_a_spreadsheet(program: str, form: str) -> None:
    """With another delimiter, encoding or line end; each field of it is that of the program's own file."""
    data, image = TABLES_OF_PROGRAMS[program]
    wanted = read(data, image=image)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    if form in ("cp1252", "carriage"):
        rows = [[*row, "m\u00fc" if at else "note"] for at, row in enumerate(rows)]
    text = io.StringIO()
    end = {"carriage": "\r", "utf-16": "\r\n"}.get(form, "\n")
    csv.writer(text, delimiter={"sep=;": ";", "\t": "\t"}.get(form, ","), lineterminator=end).writerows(rows)
    saved = text.getvalue()
    if form == "sep=;":
        saved = f"sep=;\n{saved}"
    if form == "blank lines":
        saved = f"\n\n{saved}\n\n"
    encoding = form if form.startswith(("utf", "cp")) else "utf-8"
    found = read(saved.encode(encoding), image=image)
    assert wanted.items
    assert told(found) == told(wanted)
    assert all(one.geometry.equals(other.geometry) for one, other in zip(found.items, wanted.items, strict=True))


def test_two_file_attributes_of_one_image_of_via_are_refused() -> None:
    one, other = via_table().decode().rsplit("b.png,123,{},0", 1)
    refused(
        f'{one}a.png,123,"{{""grade"": ""2""}}",0{other}'.encode(),
        "two rows about one image, with different",
        image="a.png",
    )


# --- SlideRunner


def sliderunner(folder: Path, *, deleted: bool = True) -> bytes:
    """A database as SlideRunner makes it."""
    base = sqlite3.connect(folder / "x.sqlite")
    base.executescript(f"""
        CREATE TABLE `Slides` (`uid` INTEGER PRIMARY KEY, `filename` TEXT, `width` INTEGER, `height` INTEGER,
            `directory` TEXT);
        CREATE TABLE `Classes` (`uid` INTEGER PRIMARY KEY, `name` TEXT, `color` TEXT);
        CREATE TABLE `Annotations` (`uid` INTEGER PRIMARY KEY, `slide` INTEGER, `type` INTEGER, `agreedClass` INTEGER
            {", `deleted` INTEGER DEFAULT 0" if deleted else ""});
        CREATE TABLE `Annotations_label` (`uid` INTEGER PRIMARY KEY, `person` INTEGER, `class` INTEGER,
            `annoId` INTEGER);
        CREATE TABLE `Annotations_coordinates` (`uid` INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, `coordinateX` INTEGER,
            `coordinateY` INTEGER, `slide` INTEGER, `annoId` INTEGER, `orderIdx` INTEGER);
        INSERT INTO Slides VALUES (1, 'a.svs', 100, 80, '/x'), (2, 'b.svs', 100, 80, '/x');
        INSERT INTO Classes VALUES (1, 'mitotic figure', '#f00'), (2, 'hard negative', '#0f0');
    """)
    drawn = [
        (1, 1, [(7, 8)]),
        (2, 2, [(30, 30), (10, 20)]),
        (3, 1, [(10, 10), (30, 10), (30, 20)]),
        (5, 2, [(40, 35), (60, 45)]),
        (4, 0, [(3, 4)]),
    ]
    for uid, (kind, label, points) in enumerate(drawn, 1):
        base.execute("INSERT INTO Annotations (uid, slide, type, agreedClass) VALUES (?, 1, ?, ?)", (uid, kind, label))
        rows = [(x, y, 1, uid, order) for order, (x, y) in enumerate(points, 1)]
        into = "Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx)"
        base.executemany(f"INSERT INTO {into} VALUES (?, ?, ?, ?, ?)", rows[::-1])
    if deleted:
        base.execute("INSERT INTO Annotations VALUES (9, 1, 1, 1, 1)")
        base.execute("INSERT INTO Annotations_coordinates VALUES (99, 1, 1, 1, 9, 1)")
    base.commit()
    base.close()
    return (folder / "x.sqlite").read_bytes()


@pytest.mark.parametrize("deleted", [True, False])
def test_annotations_of_sliderunner_are_read(tmp_path: Path, deleted: bool) -> None:
    data = sliderunner(tmp_path, deleted=deleted)
    found = read(data, image="slides/a.svs")
    assert told(found) == [
        ("mitotic figure", (7, 8, 7, 8)),
        ("hard negative", (10, 20, 30, 30)),
        ("mitotic figure", (10, 10, 30, 20)),
        ("hard negative", (40, 35, 60, 45)),
        ("", (3, 4, 3, 4)),
    ]
    assert [round(item.geometry.area) for item in found.items] == [0, 200, 100, 157, 0]
    assert read(data, image="b.svs").items == []
    refused(data[:9000], "a database that cannot be read|does not know")
    refused(data.replace(b"Annotations_coordinates", b"annotations_Coordinates"), "SQLite database of another program")


# --- in a source


def test_one_file_of_several_slides_is_found_by_their_names(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.slide("a.tif")
    tree.slide("b.tif")
    square = "10,10;600,10;600,600;10,600"
    images = "".join(
        f'<image id="{n}" name="{n}.tif" width="512" height="512"><polygon label="Tumor" points="{square}"/></image>'
        for n in "ab"
    )
    tree.write("all.xml", f"<annotations><version>1.1</version><meta/>{images}</annotations>")
    tree.manifest(AREA)
    made = tree.plan()
    assert {row.files[0] for row in made.rows} == {"a.tif", "b.tif"}


@pytest.mark.parametrize(
    "data",
    [
        b'{"shapes": [{"points": [[1]]}], "imagePath": "a"}',
        b'{"shapes": 3, "imagePath": "a"}',
        b'{"_via_img_metadata": []}',
        b'{"a": {"filename": "a.png", "shape_attributes": 1, "regions": 3}}',
        b'[{"from_name": "", "to_name": "", "annotations": 3}]',
        b'{"elements": [{"type": 3}]}',
        b'{"item": {}, "annotations": [{"polygon": {"paths": [[1]]}}]}',
        b'{"id": 3, "annotations": [{"coordinates": 1}]}',
        b"filename,region_shape_attributes\na,{",
        b"id,rle\na,x y",
        b"raw_classification,xmin,ymax\na,1,2",
        b"SQLite format 3\0 Annotations_coordinates",
        b"<annotations><image width='x' height='2'/></annotations>",
        b"<annotations><image name='a'><polygon points='1'/></image></annotations>",
    ],
)
def test_what_is_damaged_is_one_line(data: bytes) -> None:
    refused(data, "^file", image="a")


def test_an_empty_file_is_refused_by_its_emptiness() -> None:
    refused(b"", r"an empty file \(0 bytes\); .* state what that means as `missing`", image="a")


# --- what a shape needs


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [("rect", "x"), ("circle", "cx"), ("ellipse", "ry"), ("point", "cy"), ("polygon", "all_points_y")],
)
def test_a_region_of_via_without_a_number_is_refused_and_not_put_at_zero(kind: str, lacks: str) -> None:
    full = {"x": 5, "y": 5, "width": 9, "height": 9, "cx": 9, "cy": 9, "r": 3, "rx": 3, "ry": 2}
    outline = full | {"name": kind, "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}
    region = {"shape_attributes": outline, "region_attributes": {}}
    body = {"a.png1": {"filename": "a.png", "size": 1, "regions": [region]}}
    assert len(read(body).items) == 1
    del outline[lacks]
    refused(body, f"a {kind} without {lacks}")


@pytest.mark.parametrize("result", STUDIO[:-1], ids=lambda result: result["type"])
def test_a_shape_of_label_studio_without_a_number_is_refused_and_not_put_at_zero(result: dict[str, Any]) -> None:
    lacks = "points" if "points" in result["value"] else "y"
    value = {key: number for key, number in result["value"].items() if key != lacks}
    refused(studio(result | {"value": value}), f"without {lacks}")


def test_a_task_of_several_images_is_refused() -> None:
    """`valueList`: `item_index` says on which image a shape lies."""
    assert len(read(studio(STUDIO[0] | {"item_index": 0})).items) == 1
    refused(studio(STUDIO[0] | {"item_index": 1}), "a task of several images")


def test_an_outline_of_darwin_without_a_path_is_counted() -> None:
    found = read(darwin({"name": "t", "polygon": {"paths": []}}))
    assert (found.items, found.remarks) == ([], {"annotation without an outline": 1})


def test_four_corners_of_a_rectangle_of_labelme_are_kept() -> None:
    """As programs that write LabelMe's files store a turned one."""
    corners = [[10, 10], [30, 20], [25, 30], [5, 20]]
    (item,) = read(labelme({"label": "o", "points": corners, "shape_type": "rectangle"})).items
    assert item.geometry.equals(shapely.Polygon(corners))


@pytest.mark.parametrize(
    "body",
    [
        labelme({"label": "a", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}),
        darwin({"id": "1", "name": "a", "bounding_box": {"x": 1, "y": 1, "w": 8, "h": 8}}),
        b"<annotation><filename>a.png</filename><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
        b"<ymax>9</ymax></bndbox></object></annotation>",
    ],
)
def test_a_file_of_one_image_that_names_another_is_counted(body: Any) -> None:
    assert read(body, image="slides/a.tif").remarks == {}
    told = {"file that names a different image than its own file name does": 1}
    assert read(body, image="slides/b.png").remarks == told


def test_a_shape_on_an_image_that_was_turned_in_label_studio_is_refused() -> None:
    assert len(read(studio(STUDIO[0] | {"image_rotation": 0})).items) == 1
    refused(
        studio(STUDIO[0] | {"image_rotation": 90}), "an image that was turned by 90 degrees; rotate the image itself"
    )


def coco_of(image: str, category: Any = 1, categories: int = 1) -> str:
    ring = [0, 0, 100, 0, 100, 80, 0, 80]
    entry = {"id": 1, "image_id": 1, "category_id": category, "segmentation": [ring], "bbox": [0, 0, 100, 80]}
    named = [{"id": 1, "name": f"Tumor{'x' * number}"} for number in range(categories)]
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": image, "width": 100, "height": 80}],
            "annotations": [entry],
            "categories": named,
        }
    )


def test_a_damaged_file_of_several_images_is_refused_and_not_taken_for_one_of_no_slide(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for name in "ab":
        tree.fake.slide(f"{name}.tif", np.full((80, 100, 3), 200, np.uint8), levels=1)
    tree.manifest(AREA.replace("128", "40") + '[layout]\nmissing = "none"\n')
    tree.write("train.json", coco_of("a.tif"))
    tree.write("test.json", coco_of("b.tif", 1.0))
    assert tree.counts() == {"yes": 8}
    tree.write("test.json", coco_of("b.tif", categories=2))
    with pytest.raises(ReadError, match=r"test\.json: 2 categories of one id, 1"):
        tree.plan()


# --- labels of whole images

OF_WHOLE: dict[str, Callable[[], Any]] = {
    "darwin": lambda: darwin({"id": "6", "name": "Tumour", "tag": {}}),
    "label_studio": lambda: studio({"type": "choices", "value": {"choices": ["Tumour"]}}, image="a.tif"),
    "labelme": lambda: labelme(flags={"normal": False, "Tumour": True}),
    "via": lambda: {"a1": {"filename": "a.tif", "size": 1, "regions": [], "file_attributes": {"kind": "Tumour"}}},
    "via of check boxes": lambda: {
        "a1": {
            "filename": "a.tif",
            "size": 1,
            "regions": [],
            "file_attributes": {"kind": {"Tumour": True, "no": False}},
        }
    },
    "via table": lambda: via_table().replace(
        b"a.png,123,{}", b'a.tif,123,"{""kind"": ""Tumour"", ""caption"": ""no""}"'
    ),
    "cvat": lambda: b'<annotations><meta></meta><image id="0" name="a.tif"><tag label="Tumour"/></image></annotations>',
}
WHOLE = '[layout]\nlabels = {Tumour = "yes", Benign = "no"}\n'


@pytest.mark.parametrize("program", OF_WHOLE)
def test_a_label_of_the_whole_image_is_its_class(program: str, tmp_path: Path) -> None:
    tree, body = Tree(tmp_path), OF_WHOLE[program]()
    tree.fake.slide("a.tif", np.full((80, 100, 3), 200, np.uint8), levels=1)
    ending = {"via table": "csv", "cvat": "xml"}.get(program, "json")
    tree.write(f"a.{ending}", body if isinstance(body, bytes) else json.dumps(body))
    pattern = f"[files.annotations]\npattern = '^(?P<name>a)[.]{ending}$'\n"
    tree.manifest(WHOLE + pattern)
    assert tree.counts() == {"yes": 1}
    tree.manifest(WHOLE + pattern + '[rule]\ntype = "tiles"\nsize = 40\n')
    assert tree.counts() == {"yes": 4}


def test_two_labels_of_a_whole_image_are_refused_and_none_is_reported(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.fake.slide("a.tif", np.full((80, 100, 3), 200, np.uint8), levels=1)
    tags = [{"id": str(number), "name": name, "tag": {}} for number, name in enumerate(("Tumour", "Benign"))]
    tree.write("a.json", json.dumps(darwin(*tags)))
    tree.manifest(WHOLE)
    with pytest.raises(
        ReadError, match="several labels for one region or image; expected one; found 'Tumour', 'Benign'"
    ):
        tree.plan()
    tree.write("a.json", json.dumps(darwin()))
    with pytest.raises(SourceError, match="no label is known for this image"):
        tree.plan()


def test_labels_of_whole_images_are_named_where_outlines_are_needed() -> None:
    refused(
        OF_WHOLE["darwin"](), "labels of whole images, and no outlines; found 'Tumour'; the rules 'whole' and 'tiles'"
    )


def test_choices_of_json_min_label_whole_images() -> None:
    told = {"annotator": 1, "annotation_id": 1, "created_at": "2026-01-01T00:00:00Z", "lead_time": 1.5}
    body = [
        {"image": "/data/upload/1/ab12cd34-a.png", "id": 1, "patient": "P1", "choice": "Tumour"} | told,
        {"image": "/data/upload/1/ab12cd34-b.png", "id": 2, "choice": {"choices": ["Normal", "Blurred"]}} | told,
    ]
    data = json.dumps(body).encode()
    assert only(labels_of_image(data, "x.json", "a.png"), ["Normal", "Tumour"], "x.json") == "Tumour"
    assert set(labels_of_image(data, "x.json", "b.png")) >= {"Normal", "Blurred"}
    with pytest.raises(ReadError, match="holds labels of whole images, and no outlines"):
        read(body)


@pytest.mark.parametrize("choice", ["ER+/PR-", "grade.ii", "n/a"])
def test_a_choice_of_json_min_may_hold_slashes_and_dots(choice: str) -> None:
    told = {"image": "/data/upload/a.tiff", "url": "s3://bucket/a.jp2", "annotator": 1, "annotation_id": 1}
    data = json.dumps([told | {"choice": choice}]).encode()
    assert labels_of_image(data, "a.json", "a.tiff") == (choice,)


# --- one field of several holds the label

AFTER = {"annotator": 1, "annotation_id": 1, "created_at": "2026-01-01T00:00:00Z", "lead_time": 1.5}
TWO_CLASSES = ["Normal", "Tumour"]


def whole(body: Any, image: str, field: str = "") -> str:
    data = json.dumps(body).encode()
    return only(labels_of_image(data, "x.json", image, TWO_CLASSES, field), TWO_CLASSES, "x.json")


def test_a_field_of_a_task_s_data_is_no_choice_in_json_min() -> None:
    """The exporter writes the data, the id, what was chosen, and the annotator, in this order."""
    first = {"image": "/data/upload/a.png", "site": "Tumour", "id": 1, "choice": "Normal"} | AFTER
    second = {"image": "/data/upload/b.png", "site": "Normal", "id": 2, "choice": "Unsure"} | AFTER
    third = {"image": "/data/upload/c.png", "site": "Normal", "id": 3} | AFTER
    body = [first, second, third]
    assert whole(body, "a.png") == "Normal"
    with pytest.raises(ReadError, match="unknown annotation label 'Unsure'"):
        whole(body, "b.png")
    with pytest.raises(ReadError, match="an annotation without a label"):
        whole(body, "c.png")


def test_json_min_in_another_order_of_keys_is_read_where_one_field_alone_holds_classes() -> None:
    def ordered(**fields: str) -> dict[str, Any]:
        return dict(sorted(({"id": 1} | AFTER | fields).items()))

    first = ordered(image="/data/upload/a.png", site="P1", choice="Normal")
    second = ordered(image="/data/upload/b.png", site="P2", choice="Unsure")
    assert whole([first, second], "a.png") == "Normal"
    with pytest.raises(ReadError, match="unknown annotation label 'Unsure'"):
        whole([first, second], "b.png")
    third = ordered(image="/data/upload/c.png", site="Tumour")
    with pytest.raises(
        ReadError, match="several labels in the fields 'choice', 'site'; expected one; found 'Normal', 'Tumour'; say"
    ):
        whole([first, second, third], "a.png")
    assert whole([first, second, third], "a.png", "choice") == "Normal"
    assert whole([first, second, third], "c.png", "site") == "Tumour"
    with pytest.raises(ReadError, match="no field 'other' of labels; found 'choice', 'site'; correct `label_field`"):
        whole([first, second, third], "c.png", "other")


def test_choices_of_two_controls_are_distinguished_by_their_names() -> None:
    def task(image: str, **chosen: str) -> dict[str, Any]:
        results = [
            {"id": f"r{n}", "from_name": control, "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
            for n, (control, choice) in enumerate(chosen.items())
        ]
        return {"id": 1, "data": {"image": image}, "annotations": [{"id": 1, "result": results}]}

    body = [task("a.png", first="Unsure", second="Normal"), task("b.png", first="Tumour", second="Tumour")]
    with pytest.raises(ReadError, match="several labels in the fields 'first', 'second'; expected one"):
        whole(body, "a.png")
    assert whole(body, "a.png", "second") == "Normal"
    with pytest.raises(ReadError, match="unknown annotation label 'Unsure'"):
        whole(body, "a.png", "first")
    alternately = [task("a.png", first="Normal"), task("b.png", second="Tumour")]
    assert (whole(alternately, "a.png"), whole(alternately, "b.png")) == ("Normal", "Tumour")


def test_one_attribute_of_via_holds_the_label_of_regions() -> None:
    def region(**attributes: str) -> dict[str, Any]:
        box = {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 10}
        return {"shape_attributes": box, "region_attributes": attributes}

    def file(*regions: dict[str, Any]) -> dict[str, Any]:
        return {"a": {"filename": "a.png", "size": 1, "file_attributes": {}, "regions": list(regions)}}

    both = file(region(tissue="Necrosis", beside="Tumour"), region(tissue="Tumour", beside=""))
    refused(both, "several labels in the fields 'beside', 'tissue'; expected one", known=TWO_CLASSES)
    refused(both, "unknown annotation label 'Necrosis'", known=TWO_CLASSES, label_field="tissue")
    one = file(region(tissue="Tumour", quality="good"), region(tissue="Normal", quality="poor"))
    assert [item.label for item in read(one, TWO_CLASSES).items] == ["Tumour", "Normal"]
    alternately = file(region(tissue="Tumour"), region(cell="Normal"))
    assert [item.label for item in read(alternately, TWO_CLASSES).items] == ["Tumour", "Normal"]


# --- Lines

RING = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 10.0)]


def lines_of(program: str, line: list[tuple[float, float]]) -> Any:
    """A file of a program that holds this line alone."""
    flat = [list(point) for point in line]
    match program:
        case "labelme":
            return labelme({"label": "l", "points": flat, "shape_type": "linestrip"})
        case "cvat":
            points = ";".join(f"{x},{y}" for x, y in line)
            return CVAT.format(
                f'<polyline label="l" occluded="0" points="{points}" z_order="0"></polyline>', ""
            ).encode()
        case "via":
            x, y = ([point[at] for point in line] for at in range(2))
            shape = {"name": "polyline", "all_points_x": x, "all_points_y": y}
            region = {"shape_attributes": shape, "region_attributes": {"class": "l"}}
            return {"a.png1": {"filename": "a.png", "size": 1, "regions": [region], "file_attributes": {}}}
        case "via3":
            return via3(one=([6, *(at for point in line for at in point)], {"1": "l"}))
        case "darwin":
            return darwin({"id": "1", "name": "l", "line": {"path": path(*line)}})
        case "dsa":
            element = {"type": "polyline", "closed": False, "points": [[*p, 0] for p in line], "label": {"value": "l"}}
            return {"name": "a", "elements": [element]}
    geometry = {"type": "LineString", "coordinates": flat}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "l"}}}


@pytest.mark.parametrize("program", ["labelme", "cvat", "via", "via3", "darwin", "dsa", "qupath"])
def test_a_line_that_ends_where_it_begins_is_an_outline_and_another_is_counted(program: str) -> None:
    found = read(lines_of(program, RING))
    assert [(item.label, item.geometry.area) for item in found.items] == [("l", 200)]
    assert found.remarks["closed line read as an outline"] == 1
    found = read(lines_of(program, RING[:3]))
    assert (found.items, found.remarks["line passed over"]) == ([], 1)
