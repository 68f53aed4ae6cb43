"""Annotation files are read whole, or refused by name: nothing that a file holds vanishes uncounted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely

from dpconvert.annotations import Annotation, Annotations, LabelMask
from dpconvert.annotations import frame as frames
from dpconvert.annotations import read as files
from dpconvert.annotations.formats.ndpa import Glass
from dpconvert.annotations.read import Subject
from dpconvert.errors import ReadError
from tests.dpconvert.conftest import Answer
from tests.dpconvert.test_formats import asap_xml, coco_file, feature, imagescope_xml, ndpa_xml, outline, region
from tests.dpconvert.test_shape_slides import AREA, HEAD, Tree

SIZE = 1000, 800
SUBJECT = Subject("slides/a.svs", SIZE, glass=Glass(SIZE, (0.5, 0.25), (0, 0)))
SQUARE: Any = [[10, 10], [30, 10], [30, 20], [10, 20], [10, 10]]
TRIANGLE: Any = [[0, 0], [20, 0], [20, 20], [0, 0]]


def read(body: Any, known: list[str] | None = None, **subject: Any) -> Annotations:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = files.read(data, "a", Subject(**(vars(SUBJECT) | subject)), known or [])
    assert not isinstance(found, LabelMask)
    return found


def areas(found: Annotations) -> list[Any]:
    return [pytest.approx(item.geometry.area, rel=1e-3) for item in found.items]


def refused(body: Any, match: str, known: list[str] | None = None, **subject: Any) -> None:
    with pytest.raises(ReadError, match=match):
        read(body, known, **subject)


# --- GeoJSON: every collection and every line

ONE, TWO = feature("Polygon", [SQUARE]), feature("Polygon", [TRIANGLE])


def collection(*features: Any, **more: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)} | more


def lines(*values: Any, between: str = "\n") -> bytes:
    return between.join(json.dumps(value) for value in values).encode()


@pytest.mark.parametrize(
    "body",
    [
        [collection(ONE), collection(TWO)],
        collection(collection(ONE), TWO),
        [ONE, collection(TWO)],
        lines(ONE, TWO),
        lines(collection(ONE), collection(TWO)),
        lines([ONE], [TWO], between=""),
        b"\x1e" + lines(ONE, TWO, between="\n\x1e"),  # RFC 8142
        {"features": [ONE, TWO], "type": "FeatureCollection", "crs": {"features": [1]}},
        {"name": {"features": [ONE]}, "features": [ONE, TWO]},
        [ONE["geometry"], TWO["geometry"]],
        {"type": "GeometryCollection", "geometries": [ONE["geometry"], TWO["geometry"]]},
    ],
)
def test_every_feature_of_a_file_is_read(body: Any) -> None:
    assert areas(read(body)) == [200, 200]


def test_features_inside_properties_are_none_of_the_file() -> None:
    assert areas(read(feature("Polygon", [SQUARE], features=[TWO]))) == [200]
    assert areas(read({"type": "FeatureCollection", "extra": {"features": [TWO, TWO]}, "features": [ONE]})) == [200]


@pytest.mark.parametrize("rest", [b"garbage", b"]", b",", b", {}", b'{"type"', b"}", b"\0"])
def test_what_follows_the_json_is_refused(rest: bytes) -> None:
    for body in ([ONE], collection(ONE), ONE):
        refused(json.dumps(body).encode() + rest, "a: ")


@pytest.mark.parametrize("body", [b'[{"type": "Feature"},]', b'[{"type": "Feature"},,{"type": "Feature"}]'])
def test_commas_too_many_are_refused(body: bytes) -> None:
    refused(body, "not JSON")


def test_a_collection_without_a_list_is_refused() -> None:
    refused({"type": "FeatureCollection", "features": None}, "'features' does not hold a list")
    refused(json.dumps([ONE]).encode() + b"x", "Text that is not JSON after its end")


@pytest.mark.parametrize("body", [[], collection(), [collection(), collection()], {"features": []}])
def test_an_export_without_annotations_holds_none(body: Any) -> None:
    assert read(body).items == []


def test_a_bare_geometry_is_an_annotation_without_a_label() -> None:
    body = {"type": "MultiPolygon", "coordinates": [[SQUARE], [[[x + 100, y] for x, y in SQUARE]]]}
    (item,) = read(body, [""]).items
    assert (item.label, item.geometry.area) == ("", 400)
    refused(body, "without a label", ["Tumor"])


@pytest.mark.parametrize("kind", [{}, [], 1])
def test_a_type_that_is_no_text_is_refused(kind: object) -> None:
    refused({"type": "FeatureCollection", "features": [{"type": kind}]}, "type")


def test_a_closed_line_is_an_outline_and_an_open_one_a_mark() -> None:
    found = read(
        [feature("LineString", SQUARE), feature("LineString", SQUARE[:4]), feature("MultiLineString", [TRIANGLE])]
    )
    assert areas(found) == [200, 200]
    assert found.remarks == {"closed line read as an outline": 2, "line passed over": 1}


# --- encodings

LABELLED = feature("Polygon", [SQUARE], name="T\u00fcmor")
AS_JSON = json.dumps(LABELLED, ensure_ascii=False)
AS_XML = imagescope_xml(region(0, SQUARE), 'Name="T\u00fcmor"').decode()


@pytest.mark.parametrize("text", [AS_JSON, AS_XML, f'<?xml version="1.0"?>\n{AS_XML}', f" \r\n{AS_JSON}"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"], ids=str
)
def test_text_is_read_in_the_encodings_that_programs_write(encoding: str, text: str) -> None:
    if encoding.startswith("utf-16-"):
        text = text.lstrip()
    (item,) = read(text.encode(encoding), ["t\u00fcmor"]).items
    assert (item.label, item.geometry.area) == ("t\u00fcmor", 200)


@pytest.mark.parametrize(
    ("stated", "written"),
    [
        ("utf-16", "utf-8"),
        ("UTF-16", "utf-8-sig"),
        ("utf-8", "utf-16"),
        ("utf-8", "cp1252"),
        ("ISO-8859-1", "latin-1"),
        ("iso-8859-1", "utf-8-sig"),
        ("windows-1252", "cp1252"),
        ("utf-16", "utf-16-be"),
    ],
)
def test_xml_is_read_whatever_it_states(stated: str, written: str) -> None:
    """.NET writes "utf-16" into XML that it then stores as UTF-8."""
    text = f"<?xml version='1.0' encoding='{stated}' standalone='yes'?>\n{AS_XML}"
    assert [item.label for item in read(text.encode(written)).items] == ["T\u00fcmor"]


def test_xml_in_an_encoding_of_several_bytes_is_read() -> None:
    text = f'<?xml version="1.0" encoding="Shift_JIS"?>{AS_XML}'.replace("T\u00fcmor", "\u816b\u760d\u8868")
    assert [item.label for item in read(text.encode("cp932")).items] == ["\u816b\u760d\u8868"]


def test_what_has_no_encoding_is_refused() -> None:
    refused(AS_XML.encode("cp1252") + b"\x81", "not XML")
    refused(b'<?xml version="1.0" encoding="klingon"?>' + AS_XML.encode(), "not XML: unknown encoding")


@pytest.mark.parametrize("label", ["Lung  aca", "Lung\u00a0aca", "lung aca ", "\ufeffLung aca", "Lung\naca"])
def test_labels_that_look_the_same_are_one(label: str) -> None:
    """Blanks of any width, at the ends or within, and case."""
    for body in (feature("Polygon", [SQUARE], name=label), asap_xml(("Polygon", label.replace("\n", " "), SQUARE))):
        assert [item.label for item in read(body, ["Lung aca", "Lungaca"]).items] == ["Lung aca"]


def test_labels_that_no_manifest_names_are_in_one_unicode_form() -> None:
    for body in (feature("Polygon", [SQUARE], name="Tu\u0308mor "), asap_xml(("Polygon", "Tu\u0308mor ", SQUARE))):
        assert [item.label for item in read(body).items] == ["T\u00fcmor"]


# --- rulers and other marks

RULER: Any = [(0, 0), (100, 0)]
MARKED = {
    "asap": (asap_xml(("Polygon", "Tumor", SQUARE), ("Measurement", "None", RULER)), "ruler passed over"),
    "asap of a later version": (
        asap_xml(("Polygon", "Tumor", SQUARE), ("Blob", "None", RULER)),
        "mark of an unknown type passed over: 'Blob'",
    ),
    "imagescope": (imagescope_xml(region(0, SQUARE) + region(4, RULER)), "ruler passed over"),
    "imagescope arrow": (imagescope_xml(region(0, SQUARE) + region(3, RULER)), "arrow passed over"),
    "imagescope of a later version": (
        imagescope_xml(region(0, SQUARE) + region(9, RULER)),
        "mark of an unknown type passed over: '9'",
    ),
    "ndpa": (ndpa_xml(outline(SQUARE) + '<annotation type="linearmeasure"/>'), "ruler passed over"),
    "ndpa of a later version": (
        ndpa_xml(outline(SQUARE) + '<annotation type="hologram"/>'),
        "mark of an unknown type passed over: 'hologram'",
    ),
    "qupath": (
        json.dumps([feature("Polygon", [SQUARE], name="Tumor"), feature("LineString", RULER)]).encode(),
        "line passed over",
    ),
}


@pytest.mark.parametrize("kind", MARKED)
def test_marks_are_passed_over_and_counted_whatever_their_label(kind: str) -> None:
    data, note = MARKED[kind]
    found = read(data, ["Tumor"])
    assert [item.label for item in found.items] == ["Tumor"]
    assert found.remarks == {note: 1}


@pytest.mark.parametrize(
    "data",
    [
        asap_xml(("Blob", "Tumor", RULER)),
        imagescope_xml(region(9, RULER)),
        ndpa_xml('<annotation type="hologram"/>'),
    ],
)
def test_a_file_of_nothing_but_unknown_marks_is_refused(data: bytes) -> None:
    refused(data, "only marks of unknown types")


# --- ImageScope and HALO


def test_a_label_may_stand_in_the_attributes_of_the_region_itself() -> None:
    """As in BACH's slides: layers have a colour only."""
    own = '<Attributes><Attribute Name="Description" Value="{}"/></Attributes><Vertices>'
    drawn = region(0, SQUARE).replace("<Vertices>", own.format("Benign")) + region(0, TRIANGLE).replace(
        "<Vertices>", own.format("Carcinoma in situ")
    )
    found = read(imagescope_xml(drawn, 'Name="" LineColor="65280"'), ["Benign", "Carcinoma in situ"])
    assert [item.label for item in found.items] == ["Benign", "Carcinoma in situ"]


def test_a_region_to_cut_out_that_cuts_nothing_is_counted() -> None:
    hole = region(0, SQUARE, 'NegativeROA="1"')
    note = {"region to cut out that lies on no other of its layer": 1}
    assert (read(imagescope_xml(hole)).items, read(imagescope_xml(hole)).remarks) == ([], note)
    apart = read(imagescope_xml(hole + region(0, [(x + 100, y) for x, y in SQUARE])))
    assert (areas(apart), apart.remarks) == ([200], note)


def test_marks_of_the_counter_are_points() -> None:
    counted = region(5, [(7, 9)]) + region(5, [(8, 10)]) + region(5, SQUARE)
    found = read(imagescope_xml(region(0, SQUARE) + counted), ["Tumor"])
    assert [(item.geometry.area, item.geometry.centroid.coords[0]) for item in found.items[1:]] == [
        (0, (7, 9)),
        (0, (8, 10)),
    ]
    assert found.remarks == {"mark of an unknown type passed over: 'counter'": 1}


@pytest.mark.parametrize(
    ("shape", "areas_of_it"), [("Points", [0, 0, 0, 0]), ("Rectangle", [200]), ("Polygon", [200]), ("Line", [])]
)
def test_a_shape_that_the_region_names_counts_before_its_number(shape: str, areas_of_it: list[float]) -> None:
    """Scripts that write ImageScope's XML number all regions 0: points would become one polygon."""
    found = read(imagescope_xml(region(0, SQUARE, f'GeoShape="{shape}"')), ["Tumor"])
    assert areas(found) == areas_of_it


HALO = """<Annotations><Annotation Name="Tumor" Visible="True" LineColor="65280"><Regions>{}</Regions></Annotation>
</Annotations>"""


def halo(kind: str, points: Any, negative: int = 0) -> str:
    vertices = "".join(f'<V X="{x}" Y="{y}" />' for x, y in points)
    return (
        f'<Region Type="{kind}" HasEndcaps="0" NegativeROA="{negative}"><Vertices>{vertices}</Vertices>'
        "<Comments /></Region>"
    )


def test_annotations_of_halo_are_read() -> None:
    frame = [(10, 10), (30, 20)]
    drawn = [halo("Polygon", [(10, 10), (30, 10), (30, 20), (10, 20)])]
    drawn += [halo(kind, frame) for kind in ("Rectangle", "Ellipse", "Pin", "Ruler")]
    found = read(HALO.format("".join(drawn)).encode(), ["Tumor"])
    assert areas(found) == [200, 200, 3.14159 * 10 * 5, 0]
    assert found.remarks == {"ruler passed over": 1}
    cut = read(HALO.format(drawn[0] + halo("Rectangle", [(10, 10), (20, 20)], 1)).encode())
    assert areas(cut) == [100]


# --- programs that are told by name

FOREIGN: dict[str, Any] = {
    "Supervisely": {"description": "", "tags": [], "size": {"height": 1, "width": 1}, "objects": [{"classTitle": "a"}]},
    "grand-challenge": {"version": {"major": 1, "minor": 0}, "type": "Multiple polygons", "polygons": []},
    "HoVer-Net": {"mag": 40, "nuc": {"1": {"bbox": [[1, 1], [2, 2]], "centroid": [1, 1]}}},
    "Cytomine": {"collection": [{"id": 1, "location": "POINT (1 1)", "image": 3}], "size": 1},
    "CVAT": {"version": 1, "tags": [], "shapes": [], "tracks": []},
    "Sectra": b'<?xml version="1.0"?><SectraAnnotations/>',
    "unlikely": b"<unlikely/>",
    "odd, or": {"odd, or": 1},
    "QuPath's own": b"\xac\xed\x00\x05sr",
    "DICOM": bytes(128) + b"DICM\x02\x00",
}


@pytest.mark.parametrize("program", FOREIGN)
def test_files_of_other_programs_are_called_by_their_name(program: str) -> None:
    refused(FOREIGN[program], rf"a: .*{program}.*|a: .*found .*{program}")
    refused(FOREIGN[program], "GeoJSON as QuPath writes it.* or a mask")


def test_an_ndpa_is_one_by_its_content_too() -> None:
    assert read(b"<annotations></annotations>").items == []
    refused(
        b"<annotations><note/></annotations>", "XML of no known annotation program;.*; found <annotations> of <note>"
    )
    refused(b"<Annotations><Shape/></Annotations>", "<Annotation>; found <Annotations> of <Shape>")


def test_a_json_file_that_is_on_no_slide_may_be_anything(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.slide("a.tif")
    tree.write("a.geojson", json.dumps([feature("Polygon", [SQUARE], classification={"name": "Tumor"})]))
    tree.write("settings.json", '{"version": 3}')
    tree.manifest(AREA)
    assert "1 file of annotations on no slide here, the first: settings.json" in tree.plan().notes


# --- COCO: run lengths and boxes


def test_a_run_length_mask_of_another_size_covers_the_whole_image() -> None:
    half = {"size": [400, 500], "counts": [0, 400 * 250, 400 * 250]}  # the left half, column by column
    (item,) = read(coco_file({"segmentation": half})).items
    assert item.geometry.bounds == (0, 0, 500, 800)
    assert item.geometry.area == 500 * 800
    refused(coco_file({"segmentation": {"size": [400, 400], "counts": [0, 160_000]}}), "another shape of the image")


CORNERS = [{"bbox": [x, y, x + 50, y + 50]} for x, y in ((10, 20), (900, 700), (500, 300))]


def test_boxes_of_two_corners_are_refused_by_name_or_read_as_such() -> None:
    """MIDOG++ stores x1, y1, x2, y2."""
    refused(
        coco_file(*CORNERS),
        r"2 boxes beyond the image .* as x1, y1, x2, y2; .*found \[900, 700, 950, 750\].*`boxes = \"xyxy\"`",
    )
    found = read(coco_file(*CORNERS), boxes="xyxy")
    assert [item.geometry.bounds for item in found.items] == [
        (10, 20, 60, 70),
        (900, 700, 950, 750),
        (500, 300, 550, 350),
    ]
    refused(coco_file({"bbox": [900, 700, 50, 50]}), "cannot be x1, y1, x2, y2", boxes="xyxy")


def test_boxes_of_two_corners_are_recognized_by_those_of_other_images_too() -> None:
    """Boxes in the upper left quarter of an image fit it either way."""
    file = json.loads(coco_file(*CORNERS))
    file["images"].append({"id": 77, "file_name": "c.png", "width": 1000, "height": 800})
    file["annotations"].append({"id": 500, "image_id": 77, "category_id": 17, "bbox": [1, 1, 50, 50]})
    refused(file, "x1, y1, x2, y2", file="c.png")


def test_a_box_that_reaches_beyond_its_image_is_not_taken_for_two_corners() -> None:
    found = read(coco_file({"bbox": [980, 10, 40, 30]}, {"bbox": [10, 10, 40, 30]}))
    assert [item.geometry.bounds for item in found.items] == [(980, 10, 1020, 40), (10, 10, 50, 40)]
    assert len(read(coco_file(*CORNERS), boxes="xywh").items) == 3


# --- Pascal VOC


def voc(*boxes: tuple[str, tuple[float, ...]], size: tuple[int, int] | None = SIZE) -> bytes:
    sides = ("xmin", "ymin", "xmax", "ymax")
    drawn = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for name, box in boxes
    )
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>a.png</filename>{stated}{drawn}</annotation>".encode()


def test_pascal_voc_boxes() -> None:
    found = read(voc(("mitosis", (10, 20, 60.5, 70)), ("other", (5, 5, 5, 9))), ["mitosis", "other"])
    assert [(item.label, item.geometry.bounds) for item in found.items] == [("mitosis", (10, 20, 60.5, 70))]
    assert found.remarks == {"annotation without an outline": 1}
    assert read(voc(("m", (10, 20, 60, 70)), size=(500, 400))).items[0].geometry.bounds == (20, 40, 120, 140)
    assert read(voc(("m", (10, 20, 60, 70)), size=None)).items[0].geometry.bounds == (10, 20, 60, 70)
    assert read(voc(("m", (10, 20, 60, 70)), size=(0, 0))).items[0].geometry.bounds == (10, 20, 60, 70)
    refused(voc(("m", (1, 2, 3, 4)), size=(500, 500)), "another shape of its image")
    refused(voc(("m", (1, 2, 3, 4))), "unknown annotation label 'm'", ["mitosis"])
    assert read(b"<annotation/>").items == []


BOX = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax><ymax>70</ymax></bndbox>"


@pytest.mark.parametrize(
    ("outline", "area", "bounds"),
    [
        (BOX.replace("10<", "60<", 1).replace("60</xmax", "10</xmax"), 2500, (10, 20, 60, 70)),
        (
            BOX + "<polygon><x1>10</x1><y1>20</y1><x2>60</x2><y2>20</y2><x3>10</x3><y3>70</y3></polygon>",
            1250,
            (10, 20, 60, 70),
        ),
        (
            "<robndbox><cx>100</cx><cy>90</cy><w>50</w><h>20</h><angle>1.5707963</angle></robndbox>",
            1000,
            (90, 65, 110, 115),
        ),
        (
            "<robndbox><cx>100</cx><cy>90</cy><w>50</w><h>20</h><angle>0.1</angle></robndbox>",
            1000,
            (74.127, 77.554, 125.873, 102.446),
        ),
    ],
    ids=["swapped corners", "an outline beside its box", "rotated", "rotated a little"],
)
def test_outlines_and_rotated_boxes_in_pascal_voc(outline: str, area: float, bounds: tuple[float, ...]) -> None:
    (item,) = read(f"<annotation><object><name>m</name>{outline}</object></annotation>".encode()).items
    assert item.geometry.area == pytest.approx(area)
    assert item.geometry.bounds == pytest.approx(bounds, abs=1e-3)


# --- what lies outside the image


def drawn(*geometries: Any) -> Annotations:
    return Annotations([Annotation(geometry, "a", str(i)) for i, geometry in enumerate(geometries)], Counter(x=1))


def test_what_lies_outside_the_image_is_left_out_and_counted() -> None:
    within, across = shapely.box(0, 0, 1000.5, 10), shapely.box(990, 790, 1100, 900)
    outside, border = shapely.box(1001, 0, 1010, 10), shapely.Point(1000, 800)
    found = frames.inside(drawn(within, outside, across, border, shapely.Point(-1, 5)), SIZE, "a")
    assert [item.geometry for item in found.items] == [within, across, border]
    assert found.remarks == {"x": 1, "outside its image": 2, "reaching beyond its image": 1}


def test_all_outside_is_an_error_unless_allowed() -> None:
    outside = drawn(shapely.box(5000, 5000, 9000, 9000), shapely.Point(-3, 6000))
    told = r"a: all 2 annotations lie outside the image; expected x from 0 to 1000, .*; found x from -3 to 9000"
    with pytest.raises(ReadError, match=told):
        frames.inside(outside, SIZE, "a")
    allowed = frames.inside(outside, SIZE, "a", allow_outside=True)
    assert (allowed.items, allowed.remarks["outside its image"]) == ([], 2)
    assert frames.inside(drawn(), SIZE, "a").items == []


def test_fractions_of_the_image_are_no_pixels() -> None:
    """As YOLO and some tables have them."""
    with pytest.raises(ReadError, match=r"fractions of the image would; .*found x from 0.1 to 0.9, y from 0.5 to 0.75"):
        frames.inside(drawn(shapely.Point(0.1, 0.5), shapely.box(0.2, 0.5, 0.9, 0.75)), SIZE, "a")
    corners = drawn(shapely.Point(0, 0), shapely.Point(1, 1))
    assert len(frames.inside(corners, SIZE, "a").items) == 2


def test_a_slide_whose_outlines_lie_elsewhere_is_refused_or_one_without(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    tree = Tree(tmp_path)
    tree.slide("a.tif")
    far = [[5000, 5000], [9000, 5000], [9000, 9000]]
    tree.write("a.geojson", json.dumps([feature("Polygon", [far], classification={"name": "Tumor"})]))
    tree.manifest(AREA)
    command = [tmp_path / "own.toml", "--source", tree.root, "--out", tmp_path / "out", "--workers", 1]
    answer = dpconvert(*command)
    assert (answer.code, "a.geojson: the only annotation lies outside the image" in answer.err) == (1, True)
    answer = dpconvert(*command, "--allow-outside")
    assert answer.code == 0
    assert "note: annotations: 1 x outside its image" in answer.out
    assert "note: class 'yes' has no sample in the whole task" in answer.out
    (tmp_path / "own.toml").write_text("allow_outside = true\n" + HEAD + AREA)
    assert dpconvert(*command, "--overwrite").code == 0
    assert dpconvert("preview", *command[:3], "--out", tmp_path / "seen").code == 0
