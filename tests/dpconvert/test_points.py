"""Points in the files that people have: tables with heads, decimal commas, JSON, MATLAB, one table for all images."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpconvert import card as cards
from dpconvert.annotations import point_arrays
from dpconvert.annotations.listed import Names
from dpconvert.annotations.parsing.units import is_length
from dpconvert.annotations.point_boxes import BoxForm
from dpconvert.annotations.points import Form, PointRow, read_rows
from dpconvert.errors import ReadError
from dpconvert.readers.points.tables import images_by_ending
from dpconvert.source.matched import MatchedFile
from tests.dpconvert.mirax import write_mirax
from tests.dpconvert.test_formats import coco_file, feature
from tests.dpconvert.test_shapes import Make, draw_image, make
from tests.dpconvert.test_whole_annotations import voc

__all__ = ["make"]


def read(text: str, columns: Sequence[str] = (), **form: Any) -> list[tuple[Any, ...]]:
    return told(read_rows(text.encode(), "p.csv", Form(columns, **form)))


def told(rows: list[PointRow]) -> list[tuple[Any, ...]]:
    return [(*row.place, row.label) for row in rows]


# --- text


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("400,5;32,25\n7;8,5\n", {}),
        ("x;y\n400,5;32,25\n7;8,5\n", {"skip": 1}),
        ("x;y\n400,5;32,25\n7;8,5\n", {"delimiter": ";"}),
        ('x,y\n"400,5","32,25"\n7,"8,5"\n', {}),
        ('"x","y"\n"400.5","32.25"\n"7","8.5"\n', {}),
        ("400.5\t32.25\n7\t8.5\n", {}),
        ("400.5 32.25\n 7   8.5 \n", {}),
        ("400,5 32,25\n7 8,5\n", {}),
        ("x, y\r\n400.5, 32.25\r\n\r\n7, 8.5\r\n", {}),
        ("Y;X\n32,25;400,5\n8,5;7\n", {}),
        ("# made by us\nid,y,x\n1,32.25,400.5\n2,8.5,7\n", {"skip": 2}),
        ("id;x;y\n1;400,500;32,250\n2;7;8,5\n", {}),
    ],
)
def test_numbers_and_columns_however_they_are_divided(text: str, form: dict[str, Any]) -> None:
    assert read(text, label="m", **form) == [(400.5, 32.25, "m"), (7, 8.5, "m")]


def test_columns_by_the_names_of_the_head() -> None:
    text = 'Image;Class;Centroid X;Centroid Y\n"a; b";Tumor;400,5;32,25\n'
    names = {"x": "Centroid X", "y": "Centroid Y", "label": "Class", "image": "Image"}
    (row,) = read_rows(text.encode(), "p.csv", Form(names=names))
    assert row == PointRow(2, (400.5, 32.25), "Tumor", "a; b")
    with pytest.raises(ReadError, match=r"no column 'Centroid X'; found x, y"):
        read("x,y\n1,2\n", names=names)
    assert read(",x,y\n7,1,2\n", label="m") == read(" ,Area,X,Y\n1,0,1,2\n", label="m") == [(1, 2, "m")]
    assert read("x,y,class\n1,2,Tumor\n") == [(1, 2, "Tumor")]
    assert read("x,y,type\n1,2,3\n", label="m") == [(1, 2, "3")]


def test_numbers_that_nothing_names_are_refused() -> None:
    for text in ("30,20,20,24\n", "30,20,20,24,m\n", "30 20 0.9 m\n"):
        with pytest.raises(
            ReadError, match=r"line 1 has [45] cells, and no header names them; expected x, y, label; say"
        ):
            read(text)
    with pytest.raises(ReadError, match="a point of 4 values, which nothing names"):
        point_arrays.read_json(b"[[30, 20, 20, 24]]", "p.json", Form())
    assert read("30 20 0.9 m\n", ["x", "y", "score", "label"]) == [(30, 20, "m")]
    assert read("30,20,m,\n", []) == [(30, 20, "m")]
    assert read("30,20,7\n", [], label="m") == [(30, 20, "m")]


BOXES = {"xywh": [(30, 20, 50, 44)], "cxcywh": [(20, 8, 40, 32)], "none": [(30, 20)]}


@pytest.mark.parametrize("boxes", ["xywh", "cxcywh", "none", "", "xyxy"])
def test_a_size_beside_x_and_y_is_a_box_of_the_stated_kind(boxes: BoxForm) -> None:
    reads: list[Callable[[Form], list[PointRow]]] = [
        lambda form: read_rows(b"x;y;Width;Height;label\n30;20;20;24;a\n", "p.csv", form),
        lambda form: read_rows(
            b"30 20 a 20 24\n", "p.txt", replace(form, columns=["x", "y", "label", "width", "height"])
        ),
        lambda form: read_rows(
            b"X,Y,w,h,label\n30,20,20,24,a\n", "p.csv", replace(form, names={"x": "X", "y": "Y", "label": "label"})
        ),
        lambda form: point_arrays.read_json(b'[{"x": 30, "y": 20, "w": 20, "h": 24, "label": "a"}]', "p.json", form),
    ]
    for one in reads:
        if boxes in BOXES:
            assert [row.place for row in one(Form(boxes=boxes))] == BOXES[boxes]
        else:
            with pytest.raises(ReadError, match=r'corner of a box or its centre; .* say .*`boxes = "xywh"`'):
                one(Form(boxes=boxes))


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("xmin,ymin,xmax,ymax", "30,20,50,44"),
        ("X_min,Y_min,X_max,Y_max", "30,20,50,44"),
        ("bbox_xmin,bbox_ymin,bbox_xmax,bbox_ymax", "30,20,50,44"),
        ("x1,y1,x2,y2", "30,20,50,44"),
        ("left,top,right,bottom", "30,20,50,44"),
        ("startX,startY,endX,endY", "30,20,50,44"),
        ("min_row,min_col,max_row,max_col", "20,30,44,50"),  # as scikit-image has it
        ("x,y,x2,y2", "30,20,50,44"),
        ("xmin,ymin,width,height", "30,20,20,24"),
        ("left,top,w,h", "30,20,20,24"),
        ("box_x1,box_y1,box_w,box_h", "30,20,20,24"),
    ],
)
def test_two_corners_and_a_corner_with_a_size_are_a_box(head: str, row: str) -> None:
    columns = head.split(",")
    tables = read_rows(f"{head},label\n{row},a\n".encode(), "p.csv", Form())
    named = read_rows(f"{head},{'kind'}\n{row},a\n".encode(), "p.csv", Form(names={"label": "kind"}))
    bare = read_rows(f"{row},a\n".encode(), "p.csv", Form(columns=[*columns, "label"]))
    (listed,) = point_arrays.read_json(
        json.dumps([dict(zip(columns, map(int, row.split(",")), strict=True)) | {"label": "a"}]).encode(),
        "p.json",
        Form(),
    )
    for one in (*tables, *named, *bare, listed):
        assert (one.annotation().geometry.bounds, one.label) == ((30, 20, 50, 44), "a")


def test_a_box_without_area_is_refused() -> None:
    with pytest.raises(ReadError, match="line 2: a box of no width or height; found -20 x 24"):
        read_rows(b"xmin,ymin,xmax,ymax,label\n50,20,30,44,a\n", "p.csv", Form())


def test_a_point_beside_the_corners_of_its_box_stays_a_point() -> None:
    (row,) = read_rows(b"x,y,xmin,ymin,xmax,ymax,label\n40,32,30,20,50,44,a\n", "p.csv", Form())
    assert row.place == (40, 32)


def test_a_corner_that_is_said_to_be_the_centre_is_refused() -> None:
    with pytest.raises(ReadError, match="the corner of a box, and `boxes` says the centre; found xmin, ymin, width"):
        read_rows(b"xmin,ymin,width,height,label\n30,20,20,24,a\n", "p.csv", Form(boxes="cxcywh"))


def test_commas_that_may_be_of_thousands_are_refused() -> None:
    for text in ("1,234;5,678\n", "1,234,567;3\n"):
        with pytest.raises(ReadError, match=r"decimal or of thousands; found .*say `decimal = \",\"`"):
            read(text, label="m")
    assert read("1,234;5,678\n", label="m", decimal=",") == [(1.234, 5.678, "m")]
    with pytest.raises(ReadError, match="decimal points and with commas"):
        read("1.5;5,6\n", label="m")
    with pytest.raises(ReadError, match="no coordinate"):
        read("1.234,5;6\n", label="m", decimal=",", delimiter=";")


def test_a_decimal_comma_between_commas_is_no_column() -> None:
    with pytest.raises(ReadError, match=r"line 2 has 4 cells; expected 2, as in its header; found 400,5,32,25; dec"):
        read("x,y\n400,5,32,25\n")
    with pytest.raises(ReadError, match=r"line 2 has 4 cells"):
        read("x,y\n400,5,32,25\n", ["x", "y"], skip=1)
    with pytest.raises(ReadError, match=r"four whole numbers per line"):
        read("400,5,32,25\n7,0,8,5\n", ["x", "y"])
    assert read("400,5,32.5,0.9\n7,0,8,1\n", ["x", "y"], label="m") == [(400, 5, "m"), (7, 0, "m")]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("# x y score\n400.5 32.25 50\n7 8.5 51\n", {"label": "m"}),
        ("# x y\n1 400.5 32.25\n2 7 8.5\n", {"label": "m"}),
        ("#x,y,score\n400.5,32.25,50\n7,8.5,51\n", {"label": "m"}),
        ("# exported twice\nx,y\n400.5,32.25\n# a note\n7,8.5\n", {"label": "m"}),
        ("# in 2 files\n400.5 32.25\n7 8.5\n", {"label": "m"}),
        ("sep=;\nx;y\n400,5;32,25\n7;8,5\n", {"label": "m"}),
        ("x|y\n400.5|32.25\n7|8.5\n", {"label": "m"}),
        ('x,y\n="400.5",="32.25"\n7,8.5\n', {"label": "m"}),
        ("Name,X,Y,Type\na,400.5,32.25,m\nb,7,8.5,m\n", {"names": {"label": "type"}}),
    ],
)
def test_heads_comments_and_quotes_are_read_as_in_other_tables(text: str, form: dict[str, Any]) -> None:
    """The `#` that numpy writes before a head once was a column, so that x was taken for y."""
    assert read(text, **form) == [(400.5, 32.25, "m"), (7.0, 8.5, "m")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('x,y,label\n1,2,a\n3,4,"b\n5,6,c\n', "line 3: not a readable table: unexpected end of data"),
        ("x,y,X\n1,2,3\n", "two columns that hold x"),
        ("x,y,label,label\n1,2,a,b\n", "two columns that hold label"),
        ("x,y,type,class\n1,2,a,b\n", "several columns that may hold the labels; found class, type; name one in the"),
        ("x;y\n1.050,5;2\n", "numbers with decimal points and with commas; found '1.050,5'"),
        ("x,y\n#1,2\n", "line 2: no coordinate; found '#1'"),
    ],
)
def test_tables_that_may_be_read_in_two_ways_are_refused(text: str, said: str) -> None:
    """A quote that never ends once took all points after it for its label."""
    with pytest.raises(ReadError) as error:
        read(text)
    assert said in str(error.value)


def test_two_columns_of_a_name_that_the_manifest_gives_are_refused() -> None:
    with pytest.raises(ReadError, match="two columns that hold y"):
        read("X,Y,Y\n1,2,3\n", names={"x": "X", "y": "Y"}, label="m")


def test_a_head_that_swaps_the_columns_is_refused_unless_allowed() -> None:
    for skip in (0, 1):
        with pytest.raises(
            ReadError, match=r"x and y in other columns than `columns` states; expected x, y; found y, x"
        ):
            read("y,x\n32,400\n", ["x", "y"], skip=skip)
    assert read("y,x\n32,400\n", ["x", "y"], check_head=False, label="m") == [(32, 400, "m")]
    assert read("row,column\n32,400\n", ["y", "x"], skip=1, label="m") == [(400, 32, "m")]
    with pytest.raises(ReadError, match=r"line 1: no coordinate; found 'column'; if this is a header, say in"):
        read("row,column\n32,400\n", ["y", "x"])


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.text("ab ;,'\"", min_size=1)), min_size=1, max_size=20),
    st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), ("\t", ".")]),
)
def test_tables_of_pandas_come_back(points: list[tuple[float, float, str]], how: tuple[str, str]) -> None:
    table = pd.DataFrame(points, columns=["x", "y", "label"])
    text = table.to_csv(index=False, sep=how[0], decimal=how[1], float_format="%.6f")
    found = read(text, decimal=how[1], delimiter=how[0])
    assert [row[2] for row in found] == [label.strip() for _, _, label in points]
    np.testing.assert_allclose([row[:2] for row in found], [point[:2] for point in points], atol=1e-6)


# --- JSON


@pytest.mark.parametrize(
    "body",
    [
        [[1, 2, "a"], [3.5, 4, "b"]],
        [{"x": 1, "y": 2, "label": "a"}, {"x": 3.5, "y": 4, "label": "b"}],
        {"image": "p.png", "points": [[1, 2, "a"], [3.5, 4, "b"]]},
        {"points": [{"x": "1", "y": "2", "label": "a"}, {"x": 3.5, "y": 4, "label": "b", "z": None}]},
    ],
)
def test_points_in_json(body: Any) -> None:
    found = point_arrays.read_json(json.dumps(body).encode(), "p.json", Form())
    assert told(found) == [(1, 2, "a"), (3.5, 4, "b")]


def test_points_in_json_by_other_names() -> None:
    body = {"cells": [{"cx": 1, "cy": 2, "type": 3}], "meta": [1, 2]}
    form = Form(names={"x": "cx", "y": "cy", "label": "type"})
    assert told(point_arrays.read_json(json.dumps(body).encode(), "p", form, "cells")) == [(1, 2, "3")]
    with pytest.raises(ReadError, match=r"2 lists that may be of points; .*found cells, meta; name it as `variable`"):
        point_arrays.read_json(json.dumps(body).encode(), "p", form)
    with pytest.raises(ReadError, match=r"no list 'points'; .*found cells, meta"):
        point_arrays.read_json(json.dumps(body).encode(), "p", form, "points")
    apart = Form(names={"label": "\u00e9tat"})
    body = {"cells": [{"x": 1, "y": 2, "e\u0301tat": "a"}]}
    assert told(point_arrays.read_json(json.dumps(body).encode(), "p", apart)) == [(1, 2, "a")]
    yx = Form(["y", "x"], label="m")
    assert told(point_arrays.read_json(b"[[1, 2]]", "p", yx)) == [(2, 1, "m")]


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[[1]]", '[["a", 2]]', '[{"x": 1}]', "[[1, NaN]]", "[[1, 1e999]]", "[[1, null]]"]
)
def test_points_in_json_without_two_numbers_are_refused(text: str) -> None:
    with pytest.raises(ReadError, match=r"p: (point 1: no coordinates|not JSON|.*[Ii]nvalid)"):
        point_arrays.read_json(text.encode(), "p", Form())


# --- MATLAB


def mat(**variables: Any) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    return buffer.getvalue()


CENTRES = np.array([[1.5, 2], [3, 4]])


def test_the_only_array_of_a_matlab_file_or_the_named_one() -> None:
    form = Form(label="m")
    assert told(point_arrays.read_mat_rows(mat(anything=CENTRES), "p.mat", form)) == [(1.5, 2, "m"), (3, 4, "m")]
    both = mat(inst_centroid=CENTRES, inst_type=np.array([[1], [2]]), inst_map=np.zeros((4, 4)))
    with pytest.raises(ReadError, match=r"3 variables; .*found inst_centroid, inst_type, inst_map; name it"):
        point_arrays.read_mat_rows(both, "p.mat", form)
    found = point_arrays.read_mat_rows(both, "p.mat", Form(), "inst_centroid", "inst_type")
    assert told(found) == [(1.5, 2, "1"), (3, 4, "2")]
    labelled = mat(points=np.array([[1, 2, 7.0], [3, 4, 8.5]]))
    assert told(point_arrays.read_mat_rows(labelled, "p.mat", Form())) == [(1, 2, "7"), (3, 4, "8.5")]
    assert told(point_arrays.read_mat_rows(labelled, "p.mat", Form(["y", "x"], label="m"))) == [
        (2, 1, "m"),
        (4, 3, "m"),
    ]
    assert point_arrays.read_mat_rows(mat(points=np.zeros((0, 2))), "p.mat", form) == []


def mat73(**arrays: NDArray[Any]) -> bytes:
    """A file of MATLAB 7.3: HDF5 behind a head of 512 bytes, every array transposed, as MATLAB stores it."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            stored = file.create_dataset(name, data=np.asarray(values, float).T)
            stored.attrs["MATLAB_class"] = np.bytes_("double")
            if values.size == 0:
                stored.attrs["MATLAB_empty"] = np.uint8(1)
        cell = file.create_group("#refs#")
        cell["a"] = np.zeros(3)
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0")
    return head + buffer.getvalue()[512:]


def test_arrays_of_matlab_7_3_are_read_as_those_of_before() -> None:
    arrays = {"points": CENTRES, "kinds": np.array([[1], [2]]), "map": np.arange(12.0).reshape(3, 4)}
    asked = ((Form(label="m"), ("points", "")), (Form(), ("points", "kinds")), (Form(["y", "x"]), ("map", "")))
    for form, variables in asked:
        old, new = (point_arrays.read_mat_rows(write(**arrays), "p.mat", form, *variables) for write in (mat, mat73))
        assert old == new
    assert point_arrays.read_mat_rows(mat73(points=np.zeros((0, 2))), "p.mat", Form(label="m")) == []
    with pytest.raises(ReadError, match="no variable 'c'; found points"):
        point_arrays.read_mat_rows(mat73(points=CENTRES), "p.mat", Form(), "c")
    with pytest.raises(ReadError, match="not a readable MATLAB file"):
        point_arrays.read_mat_rows(mat73(points=CENTRES)[:-900], "p.mat", Form())


def structure73(points: NDArray[Any], kinds: list[str]) -> bytes:
    """A file of MATLAB 7.3 with a structure `cells`: an array, a cell array and a char array of texts."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        file["cells/points"] = points.T
        references = np.empty((1, len(kinds)), h5py.ref_dtype)
        for number, kind in enumerate(kinds):
            text = file.create_dataset(f"#refs#/{number}", data=np.array([list(map(ord, kind))], np.uint16).T)
            text.attrs["MATLAB_class"] = np.bytes_("char")
            references[0, number] = text.ref
        file.create_dataset("cells/kinds", data=references).attrs["MATLAB_class"] = np.bytes_("cell")
        rows = np.array([list(map(ord, kind.ljust(8))) for kind in kinds], np.uint16)
        file.create_dataset("cells/rows", data=rows.T).attrs["MATLAB_class"] = np.bytes_("char")
    return b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0") + buffer.getvalue()[512:]


KINDS = ["m\u00e9trit", "o"]


@pytest.mark.parametrize("form", ["5", "5, compressed", "7.3"])
def test_points_in_structures_and_labels_as_texts(form: str) -> None:
    if form == "7.3":
        data = structure73(CENTRES, KINDS)
    else:
        buffer = io.BytesIO()
        cells = {"points": CENTRES, "kinds": np.array(KINDS, object).reshape(2, 1), "rows": np.array(KINDS)}
        scipy.io.savemat(buffer, {"other": 1, "cells": cells}, do_compression="compressed" in form)
        data = buffer.getvalue()
    for labels in ("cells.kinds", "cells.rows"):
        found = point_arrays.read_mat_rows(data, "p.mat", Form(), "cells.points", labels)
        assert told(found) == [(1.5, 2, KINDS[0]), (3, 4, KINDS[1])]
    with pytest.raises(ReadError, match=r"cells\.points, cells\.kinds|no variable 'cells'|cells\.kinds, cells\.points"):
        point_arrays.read_mat_rows(data, "p.mat", Form(label="m"), "cells")
    with pytest.raises(ReadError, match=r"points, kinds, rows|no variable 'cells.nothing'"):
        point_arrays.read_mat_rows(data, "p.mat", Form(label="m"), "cells.nothing")


def test_matlab_files_that_are_not_read_say_so() -> None:
    with pytest.raises(ReadError, match="not a table of points; expected one column for each of x, y"):
        point_arrays.read_mat_rows(mat(points=np.zeros((3, 1))), "p.mat", Form(label="m"))
    with pytest.raises(
        ReadError, match="not a table of points; expected one column for each of x, y; found 2 x 3; name the columns"
    ):
        point_arrays.read_mat_rows(mat(points=np.ones((2, 3))), "p.mat", Form(label="m"))
    with pytest.raises(ReadError, match=r"1 labels of 2 points; found b"):
        point_arrays.read_mat_rows(mat(a=CENTRES, b=np.ones((1, 1))), "p.mat", Form(), "a", "b")
    with pytest.raises(ReadError, match="no variable 'c'; found a"):
        point_arrays.read_mat_rows(mat(a=CENTRES), "p.mat", Form(), "c")


# --- manifests

HEAD = 'shape = "points"\n'
PRESENCE = '[rule]\ntype = "presence"\nsize = 10\npositive = ["m"]\n'
CROP = '[rule]\ntype = "crop"\nsize = 8\n'


def positives(rows: list[dict[str, Any]]) -> set[tuple[str, int, int]]:
    return {(row["source"], row["x"], row["y"]) for row in rows if row["label"]}


def draw_images(folder: Path, names: str = "abc") -> Path:
    for name in names:
        draw_image(folder / "source" / f"{name}.png")
    return folder / "source"


POINTS: dict[str, bytes] = {
    "csv": b"x,y,label\n5,5,m\n15,5,other\n",
    "txt": b"5 5 m\n15 5 other\n",
    "tsv": b"x\ty\tlabel\n5,5\t5\tm\n15\t5,5\tother\n",
    "json": b'[{"x": 5, "y": 5, "label": "m"}, {"x": 15, "y": 5, "label": "other"}]',
    "geojson": json.dumps(
        [
            feature("Point", [5, 5], classification={"name": "m"}),
            feature("Point", [15, 5], classification={"name": "other"}),
        ]
    ).encode(),
    "xml": voc(("m", (3, 3, 7, 7)), ("other", (13, 3, 17, 7)), size=(20, 20)).replace(b"a.png", b"renamed.png"),
}


@pytest.mark.parametrize("ending", POINTS)
def test_a_file_of_points_of_any_kind(ending: str, make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.{ending}").write_bytes(POINTS[ending])
    assert positives(make(HEAD + PRESENCE)) == {(f"{name}.png", 0, 0) for name in "abc"}
    notes = cards.load(tmp_path / "out" / "Mine").notes
    assert "annotations: 3 x labelled 'other', which the rule does not name" in notes


def test_the_manifest_says_what_boxes_of_coco_are_here_too(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    body = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "categories": [{"id": 1, "name": "m"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [12, 2, 16, 6]}],
    }
    (root / "a.json").write_text(json.dumps(body))
    assert 'say `boxes = "xyxy"`' in make(HEAD + PRESENCE, fails=True)
    assert positives(make(HEAD + '[layout]\nboxes = "xyxy"\n' + PRESENCE)) == {("a.png", 10, 0)}
    refused = make(HEAD + '[layout]\nboxes = "cxcywh"\n' + PRESENCE, fails=True)
    assert "a file of an annotation program, whose boxes are not stated by their centres" in refused


@pytest.mark.parametrize(("ending", "data"), [("csv", "x,y\n5,5\n15,5\n"), ("json", '{"m": [[5, 5], [15, 5]]}')])
def test_points_without_a_label_are_refused_unless_the_manifest_says_what_they_are(
    ending: str, data: str, make: Make, tmp_path: Path
) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.{ending}").write_text(data)
    refused = make(HEAD + PRESENCE, fails=True)
    assert "2 objects without a label; expected a column or key of labels, such as 'm'; say in the" in refused
    everything = {(f"{name}.png", x, 0) for name in "abc" for x in (0, 10)}
    assert positives(make(HEAD + '[layout]\nlabel = "m"\n' + PRESENCE)) == everything
    assert positives(make(HEAD + '[layout]\nlabels = {"" = "m"}\n' + PRESENCE)) == everything


def test_points_of_a_matlab_file(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.mat").write_bytes(mat(detection=np.array([[5.0, 5.0]])))
    assert positives(make(HEAD + '[layout]\nlabel = "m"\n' + PRESENCE)) == {(f"{name}.png", 0, 0) for name in "abc"}


TABLES: dict[str, str] = {
    "points.csv": "image,x,y,label\na.png,5,5,m\nb,15,5,m\n./folder\\c.png,5,15,other\nz.png,1,1,m\n",
    "points.tsv": "image\tx\ty\tlabel\na.png\t5,0\t5\tm\nb\t15\t5\tm\nc.png\t5\t15,5\tother\nz.png\t1\t1\tm\n",
    "points.json": json.dumps(
        [
            dict(zip(("image", "x", "y", "label"), row, strict=True))
            for row in (("a.png", 5, 5, "m"), ("b", 15, 5, "m"), ("c.png", 5, 15, "other"), ("z.png", 1, 1, "m"))
        ]
    ),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "layout", ['columns = ["image", "x", "y", "label"]', 'names = {x = "x", y = "y", label = "label", image = "image"}']
)
def test_one_table_for_all_images(name: str, layout: str, make: Make, tmp_path: Path) -> None:
    for image in ("a.png", "b.png", "folder/c.png"):
        draw_image(tmp_path / "source" / image)
    (tmp_path / "source" / name).write_text(TABLES[name])
    text = HEAD + f"[layout]\n{layout}\n" + PRESENCE
    assert positives(make(text)) == {("a.png", 0, 0), ("b.png", 10, 0)}
    notes = cards.load(tmp_path / "out" / "Mine").notes
    assert "1 point of the tables on no image here" in notes
    draw_image(tmp_path / "source" / "d.png")
    assert "d.png: no points in the tables for this image" in str(make(text, fails=True))
    assert len(make(text.replace("[layout]", "[layout]\nmissing = true"))) == 12
    assert "left out: 1 image without points, the first d.png" in cards.load(tmp_path / "out" / "Mine").notes
    assert len(make(text.replace("[layout]", '[layout]\nmissing = "none"'))) == 16
    draw_image(tmp_path / "source" / "two" / "b.png")
    assert "line 3: several images of this name" in str(make(text, fails=True)) or name.endswith("json")


@pytest.mark.parametrize("name", ["points.xlsx", "points.csv.gz", "points.jsonl.gz"])
def test_one_table_for_all_images_may_be_a_workbook_or_packed(name: str, make: Make, tmp_path: Path) -> None:
    draw_images(tmp_path, "ab")
    table = pd.DataFrame({"image": ["a.png", "b"], "x": [5.2, 15], "y": [5, 5.5], "label": ["m", "m"]})
    path = tmp_path / "source" / name
    if name.endswith("xlsx"):
        with pd.ExcelWriter(path) as book:
            table.assign(x=1).to_excel(book, sheet_name="before", index=False)
            table.to_excel(book, sheet_name="after", index=False)
        layout = 'sheet = "after"\n'
    else:
        text = table.to_csv(index=False) if ".csv" in name else table.to_json(orient="records", lines=True)
        path.write_bytes(gzip.compress(text.encode()))
        layout = ""
    files = HEAD + f"[files.points]\npattern = '{name}$'\n"
    found = make(files + '[layout]\nnames = {image = "image"}\n' + layout + PRESENCE)
    assert positives(found) == {("a.png", 0, 0), ("b.png", 10, 0)}


def test_the_manifest_names_the_encoding_of_a_table() -> None:
    data = "x,y,Größe\n1,2,groß\n".encode("mac-roman")
    form = Form(names={"label": "Größe"}, encoding="mac-roman")
    assert told(read_rows(data, "p.csv", form)) == [(1.0, 2.0, "groß")]


def test_bare_names_in_several_folders_mean_the_images_near_the_table(make: Make, tmp_path: Path) -> None:
    for name, x in {"train": 5, "val": 15}.items():
        draw_image(tmp_path / "source" / "images" / name / "1.png")
        (tmp_path / "source" / f"points_{name}.csv").write_text(f"image,x,y,label\n1.png,{x},5,m\n")
    text = HEAD + '[layout]\nnames = {image = "image"}\n' + PRESENCE
    assert positives(make(text)) == {("images/train/1.png", 0, 0), ("images/val/1.png", 10, 0)}


def test_a_table_about_other_images_is_refused(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    (root / "points.csv").write_text("image,x,y\nq.png,5,5\nr.png,5,5\n")
    layout = '[layout]\ncolumns = ["image", "x", "y"]\nlabel = "m"\nmissing = true\n'
    assert "points.csv: no point of the table is on an image here; found 2 points" in str(
        make(HEAD + layout + PRESENCE, fails=True)
    )


@pytest.mark.parametrize("missing", ["", "missing = true\n", 'missing = "none"\n'])
def test_rows_name_images_with_another_ending(missing: str, make: Make, tmp_path: Path) -> None:
    """An image whose points were not found would be negative throughout."""
    root = draw_images(tmp_path)
    (root / "points.csv").write_text("image,x,y\na.png,5,5\nb.tif,5,5\nD:\\x\\c.JPG,5,5\n")
    layout = f'[layout]\ncolumns = ["image", "x", "y"]\nlabel = "m"\n{missing}'
    assert positives(make(HEAD + layout + PRESENCE)) == {(f"{name}.png", 0, 0) for name in "abc"}


@pytest.mark.parametrize(("row", "name"), [("7", "0007"), ("7.0", "7"), ("0", "000"), ("07.jpg", "7")])
def test_a_row_whose_image_a_spreadsheet_renamed_is_refused(row: str, name: str, make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    (root / "a.png").rename(root / f"{name}.png")
    draw_images(tmp_path, "b")
    (root / "points.csv").write_text(f"image,x,y\nb.png,5,5\n{row},5,5\n")
    layout = '[layout]\ncolumns = ["image", "x", "y"]\nlabel = "m"\nmissing = "none"\n'
    message = str(make(HEAD + layout + PRESENCE, fails=True))
    assert f"line 3: no image of this name; expected {row}; {name}.png is here: write the names of images" in message


def test_a_file_without_a_name_in_its_pattern_serves_all_images(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    (root / "all.json").write_bytes(
        coco_file({"bbox": [3, 3, 4, 4]}, file_name="a.png", width=20, height=20).replace(b"nucleus", b"m")
    )
    files = "[files.points]\npattern = 'all\\.json$'\n"
    assert positives(make(HEAD + files + PRESENCE)) == {("a.png", 0, 0)}


def test_files_name_images_in_archives_as_if_they_were_unpacked() -> None:
    endings = images_by_ending([MatchedFile(f"{archive}.zip/a/0.png", {}) for archive in ("one", "two")])
    assert endings["one/a/0.png"] == endings["one/a/0"] == ["one.zip/a/0.png"]
    assert Names(["one/a/0.png", "two/a/0.png"]).places("two.zip/a/0.png") == [1]


OF_IMAGES: dict[str, tuple[str, str, str]] = {
    "lists by image": ("all.json", '{"a.png": [[5, 5]], "b.png": [[15, 5], [17, 5]], "z.png": []}', "*"),
    "objects by image": ("all.json", '{"a": [{"x": 5, "y": 5}], "b": {"cells": [{"x": 15, "y": 5}]}}', "*"),
    "a list of lists": ("all.json", '[{"file": "a.png", "at": [[5, 5]]}, {"file": "b.png", "at": [[15, 5]]}]', "file"),
    "lines": ("all.jsonl", '{"file": "a.png", "x": 5, "y": 5}\n{"file": "b.png", "x": 15, "y": 5}\n', "file"),
    "lines of lists": ("all.jsonl", '{"file": "a.png", "at": [[5, 5]]}\n{"file": "b.png", "at": [[15, 5]]}\n', "file"),
}


@pytest.mark.parametrize("case", OF_IMAGES)
def test_one_file_of_json_for_all_images(case: str, make: Make, tmp_path: Path) -> None:
    name, text, key = OF_IMAGES[case]
    root = draw_images(tmp_path)
    (root / name).write_text(text)
    manifest = HEAD + f'[files.points]\npattern = \'{name}$\'\n[layout]\nlabel = "m"\nmissing = "none"\n'
    found = make(manifest + f'names = {{image = "{key}"}}\n' + PRESENCE)
    assert positives(found) == {("a.png", 0, 0), ("b.png", 10, 0)}
    assert make(manifest + PRESENCE, fails=True)


def test_a_single_key_that_names_an_image_is_not_about_all_of_them(make: Make, tmp_path: Path) -> None:
    (draw_images(tmp_path) / "all.json").write_text('{"a.png": [[5, 5]]}')
    manifest = HEAD + '[files.points]\npattern = \'all.json$\'\n[layout]\nlabel = "m"\nmissing = "none"\n'
    told = str(make(manifest + PRESENCE, fails=True))
    assert "the keys name images here, while without saying so all points are on all images" in told
    assert 'say names = {image = "*"} in [layout]' in told


@pytest.mark.parametrize("name", ["all.csv", "all.json"])
def test_a_table_that_names_images_is_not_about_all_of_them(name: str, make: Make, tmp_path: Path) -> None:
    """Each image had the points of all."""
    root = draw_images(tmp_path)
    rows = [("a.png", 3, 3), ("b.png", 13, 3), ("elsewhere.png", 3, 13)]
    text = "File,x,y\n" + "".join(f"{image},{x},{y}\n" for image, x, y in rows)
    told = json.dumps([{"File": image, "x": x, "y": y} for image, x, y in rows])
    (root / name).write_text(told if name.endswith("json") else text)
    manifest = HEAD + f'[files.points]\npattern = \'{name}$\'\n[layout]\nlabel = "m"\nmissing = "none"\n'
    message = str(make(manifest + PRESENCE, fails=True))
    assert f"{name}: 'File' names an image here for each point" in message
    assert 'say names = {image = "File"} in [layout]' in message
    found = make(manifest + 'names = {image = "File"}\n' + PRESENCE)
    assert positives(found) == {("a.png", 0, 0), ("b.png", 10, 0)}


def test_a_crop_a_point_with_the_point_s_class(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.csv").write_text("x,y,label\n10,10,no\n1,19.6,yes\n9.5,3,unsure\n")
    rows = make(HEAD + CROP)
    boxes = {(row["label"], row["x"], row["y"], row["width"], row["height"]) for row in rows}
    assert boxes == {(0, 6, 6, 8, 8), (1, 0, 12, 8, 8)}
    assert "annotations: 3 x labelled 'unsure', which is not a class" in cards.load(tmp_path / "out" / "Mine").notes
    told = str(make(HEAD + CROP.replace("size = 8\n", ""), fails=True))
    assert "a point has no outline to crop; say in the manifest's [rule] how large crops are: `size`" in told
    assert "smaller than a crop of 30 px; found 20 x 20" in str(make(HEAD + CROP.replace("8", "30"), fails=True))


def test_crops_of_a_size_have_the_resolution_requested(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.csv").write_text("x,y,label\n10,10,no\n12,10,yes\n")
    rows = make("mpp = 0.25\n" + HEAD + CROP + "mpp = 0.5\n")
    assert {(row["x"], row["y"], row["width"], row["stored_width"]) for row in rows} == {(2, 2, 16, 8), (4, 2, 16, 8)}


@pytest.mark.parametrize(
    ("body", "program"),
    [
        (b'{"objects": [], "size": {"height": 1, "width": 1}}', "Supervisely"),
        (b"<other/>", "no known annotation program"),
    ],
)
def test_points_of_other_programs_are_reported(body: bytes, program: str, make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    (root / f"a.{'json' if body[:1] == b'{' else 'xml'}").write_bytes(body)
    assert program in str(make(HEAD + PRESENCE, fails=True))


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (
            'names = {x = "Centroid X µm", y = "Centroid Y µm", label = "Class"}',
            "Centroid X µm,Centroid Y µm,Class\n5,5,m\n",
        ),
        ('names = {x = "x_um", y = "y_um", label = "Class"}', "x_um,y_um,Class\n5,5,m\n"),
        ('skip = 1\ncolumns = ["x", "y", "label"]', "X [mm],Y [mm],Class\n5,5,m\n"),
        ('skip = 2\ncolumns = ["x", "y", "label"]', "# coordinates in microns\nx,y,label\n5,5,m\n"),
        ("", "x,y,label,unit\n5,5,m,µm\n"),
        ('names = {x = "a", y = "b", label = "Class"}', "a,b,Class,Coordinate unit\n5,5,m,micrometer\n"),
        ("", '[{"x": 5, "y": 5, "label": "m", "units": "um"}]'),
        ("", '{"unit": "mm", "points": [{"x": 5, "y": 5, "label": "m"}]}'),
        ('variable = "centroids_um"', '{"centroids_um": [[5, 5, "m"]]}'),
        ("", '{"type": "FeatureCollection", "features": [], "unit": "µm"}'),
        ("", '{"type": "FeatureCollection", "features": [], "metadata": {"coordinate_unit": "micrometer"}}'),
        (
            "",
            '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "Point", '
            '"coordinates": [5, 5]}, "properties": {"classification": {"name": "m"}, "unit": "um"}}]}',
        ),
    ],
)
def test_coordinates_in_a_unit_of_length_are_refused(layout: str, text: str, make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.csv").write_text(text)
    told = str(make(HEAD + f"[layout]\n{layout}\n" + PRESENCE, fails=True))
    assert "coordinates in a unit of length, not in pixels" in told


def test_a_tables_lengths_become_pixels_by_the_resolution_of_each_axis(make: Make, tmp_path: Path) -> None:
    """A pixel is 0.5 um wide and 0.25 um high: (2.5 um, 1.25 um) is pixel (5, 5)."""
    (tmp_path / "source").mkdir()
    pixels = np.full((20, 20, 3), 128, np.uint8)
    scale = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "source/a.tif", pixels, photometric="rgb", **scale)
    layout = (
        '[layout]\nunit = "um"\nlabels = {m = "yes"}\n'
        'names = {x = "Centroid X µm", y = "Centroid Y µm", label = "Class"%s}\n'
    )
    body = "Image,Centroid X µm,Centroid Y µm,Class\na.tif,2.5,1.25,m\na.tif,7.5,1.25,m\n"
    rule = '[rule]\ntype = "crop"\nsize = 4\n'
    for name, text in (("a", layout % ""), ("all", layout % ', image = "Image"')):
        for old in (tmp_path / "source").glob("*.csv"):
            old.unlink()
        (tmp_path / f"source/{name}.csv").write_text(body)
        rows = make(HEAD + text + rule)
        assert {(row["x"], row["y"], row["height"]) for row in rows} == {(3, 1, 8), (13, 1, 8)}


@pytest.mark.parametrize("column", ["Centroid X px", "Centroid X mm", "x_pixels", "x (cm)", "X millimeters"])
def test_a_table_in_another_unit_than_stated_is_refused(column: str, make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    (root / "a.csv").write_text(f"{column},y,label\n3,3,m\n")
    text = HEAD + f'[layout]\nunit = "um"\nnames = {{x = "{column}", y = "y", label = "label"}}\n' + PRESENCE
    told = str(make(text, "--mpp", 0.25, fails=True))
    assert 'coordinates in another unit than `unit = "um"` in [layout]' in told
    assert column in told


def test_lengths_need_the_resolution_of_the_image(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path, "a")
    (root / "a.csv").write_text("x,y,label\n3,3,m\n")
    text = HEAD + '[layout]\nunit = "um"\n' + PRESENCE
    assert 'states no resolution, which coordinates in "um" need; give it with --mpp' in str(make(text, fails=True))
    assert positives(make(text, "--mpp", 0.25)) == {("a.png", 10, 10)}
    (root / "a.csv").rename(root / "a.geojson")
    (root / "a.geojson").write_bytes(POINTS["geojson"].replace(b"5, 5", b"3, 3").replace(b"[15, 5", b"[1, 1"))
    assert positives(make(text, "--mpp", 0.25)) == {("a.png", 10, 10)}
    (root / "a.geojson").rename(root / "a.xml")
    (root / "a.xml").write_bytes(POINTS["xml"])
    assert "of an annotation program, whose coordinates are pixels" in str(make(text, "--mpp", 0.25, fails=True))


def test_points_on_a_slide_with_bounds_say_where_they_start(make: Make, tmp_path: Path) -> None:
    """The slide of 256 x 192 pixels was scanned from (64, 64) on; QuPath counts from there."""
    (tmp_path / "source").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (192, 256, 3), np.uint8)
    write_mirax(tmp_path / "source/a.mrxs", pixels, (slice(64, 192), slice(64, 256)))
    (tmp_path / "source/a.csv").write_text("Centroid X µm,Centroid Y µm\n25,20\n")
    text = (
        HEAD + "[files.images]\npattern = '(?P<name>[^/]+)\\.mrxs$'\n"
        '[layout]\nunit = "um"\nlabel = "yes"\nnames = {x = "Centroid X µm", y = "Centroid Y µm"}\n%s\n'
        '[rule]\ntype = "crop"\nsize = 8\n'
    )
    told = str(make(text % "", fails=True))
    assert "a.csv: on a slide whose pixels start at (64, 64): do its coordinates start there, too?" in told
    for bounds, corner in (("true", (64 + 100 - 4, 64 + 80 - 4)), ("false", (100 - 4, 80 - 4))):
        (row,) = make(text % f"bounds = {bounds}")
        assert (row["x"], row["y"]) == corner


@pytest.mark.parametrize("name", ["xum", "x-um", "Centroid.X.µm", "Centroid X Âµm", "um_x", "xMicrons", "Xµm", "X MM"])
def test_a_unit_is_recognized_however_a_column_is_written(name: str) -> None:
    assert is_length(name)
    assert is_length(name.casefold())


@pytest.mark.parametrize("name", ["x", "x_px", "Centroid X", "maximum_x", "column", "number", "cx", "XMin", "sum"])
def test_other_columns_have_no_unit(name: str) -> None:
    assert not is_length(name)
    assert not is_length(name.casefold())


def test_names_may_rename_the_label_alone(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    for name in "abc":
        (root / f"{name}.csv").write_text("x,y,Class\n5,5,m\n")
    assert positives(make(HEAD + '[layout]\nnames = {label = "Class"}\n' + PRESENCE)) == {
        (f"{name}.png", 0, 0) for name in "abc"
    }
    for name in "abc":
        (root / f"{name}.csv").write_text("left,y,Class\n5,5,m\n")
    assert "the header has no column x" in str(
        make(HEAD + '[layout]\nnames = {label = "Class"}\n' + PRESENCE, fails=True)
    )


def test_a_table_for_all_images_is_not_passed_over_where_absence_means_none(make: Make, tmp_path: Path) -> None:
    root = draw_images(tmp_path)
    (root / "all.csv").write_text("image,x,y,label\na.png,5,5,m\n")
    told = str(make(HEAD + '[layout]\nmissing = "none"\n' + PRESENCE, fails=True))
    assert "all.csv: no file of points belongs to an image; if it is one table for all images" in told
