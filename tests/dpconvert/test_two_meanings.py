"""What can be read in two ways is refused or told: labels, members of archives, equal images, channels, planes."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from dpconvert.annotations import Annotation, Annotations, frame
from dpconvert.annotations.formats import qupath
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import open_image
from dpconvert.image.rgb import KindError, to_rgb
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from tests.dpconvert.conftest import run

FOLDERS = 'task = "Mine"\nshape = "folders"\n'
TABLE = 'task = "Mine"\nshape = "table"\nlayout = {file = "{file}", label = "label"}\n'


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def convert(tmp_path: Path) -> Callable[[str, dict[str, bytes]], list[str]]:
    """Convert files, and return the notes."""

    def call(manifest: str, files: dict[str, bytes]) -> list[str]:
        for name, data in files.items():
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (tmp_path / "m.toml").write_text(manifest)
        return run(
            with_defaults(load(tmp_path / "m.toml")),
            tmp_path / "source",
            tmp_path / f"out{len(list(tmp_path.iterdir()))}",
        ).notes

    return call


def table(*labels: str) -> dict[str, bytes]:
    rows = "".join(f"p{number}.png,{label}\n" for number, label in enumerate(labels))
    images = {f"p{number}.png": png(number) for number in range(len(labels))}
    return images | {"labels.csv": f"file,label\n{rows}".encode()}


Convert = Callable[[str, dict[str, bytes]], list[str]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("benign", "Benign"),
        ("in  situ", "in situ"),
        ("benign", "ben\u200bign"),
        ("1", "1.0"),
        ("01", "1"),
        ("1", "True"),
        ("benign", "benign\x07"),
        ("non-small", "non\u2010small"),
    ],
)
def test_labels_that_look_the_same_make_no_classes_by_themselves(convert: Convert, one: str, other: str) -> None:
    with pytest.raises(
        SourceError, match=r"classes that look the same but for case, blanks or decimals: .*; name the task's `cl"
    ):
        convert(TABLE, table(one, other, "a", "a"))


def test_classes_of_the_manifest_need_no_guess(convert: Convert) -> None:
    convert('classes = ["benign", "other"]\n' + TABLE, table("benign", "Benign", "other", "other"))


@pytest.mark.parametrize("label", ["nan", "NaN", "NA", "None", "<NA>", "-", "?", "n.a.", "N/A", "Unknown"])
def test_a_missing_value_makes_no_class_by_itself(convert: Convert, label: str) -> None:
    files = table("benign", label, "other", "other")
    with pytest.raises(
        SourceError, match=f"p1.png: the label '{re.escape(label)}' reads like a missing value; name the task's"
    ):
        convert(TABLE, files)
    convert(f'classes = ["benign", "{label}", "other"]\n' + TABLE, files)


def test_equal_images_of_two_classes_are_reported(convert: Convert) -> None:
    files = {"a/1.png": png(1), "b/2.png": png(1), "a/3.png": png(3), "a/4.png": png(3), "b/5.png": png(5)}
    notes = convert(FOLDERS, files)
    assert "1 image with several labels, equal in every byte, the first: a/1.png and b/2.png" in notes


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            head = tarfile.TarInfo(name)
            head.size = len(data)
            archive.addfile(head, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("ending", "pack"), [("zip", zipped), ("tar", tarred)])
def test_two_members_of_one_name_are_refused(convert: Convert, ending: str, pack: Callable[..., bytes]) -> None:
    packed = pack(("a/1.png", png(1)), ("b/2.png", png(2)), ("a/1.png", png(3)))
    with pytest.raises(ReadError, match=r"two members of one name: a/1\.png; unpack it"):
        convert(FOLDERS, {f"d.{ending}": packed})


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_without_a_meaning_are_refused_and_not_left_out(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8, channels), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ReadError, match=f"{channels} channels, of which {channels - 1} have no known meaning"):
        open_image([path]).read(0, 0, 8, 8)


def test_an_annotation_of_a_later_plane_is_counted() -> None:
    ring = "[[[0, 0], [9, 0], [9, 9], [0, 0]]]"
    text = (
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": %s, "plane": {"c": -1, "z": %d, "t": 0}}}'
    )
    assert qupath.read((text % (ring, 0)).encode(), "a.geojson").remarks == {}
    (told,) = qupath.read((text % (ring, 3)).encode(), "a.geojson").remarks
    assert "later plane" in told


def test_a_second_image_of_a_sample_in_other_shards_is_reported_and_two_fields_of_one_name_are_refused(
    convert: Convert,
) -> None:
    shards = 'task = "Mine"\nshape = "webdataset"\nclasses = ["a", "b"]\n'
    first, second = [("0.png", png(0)), ("0.cls", b"0")], [("1.png", png(1)), ("1.cls", b"1")]
    notes = convert(shards, {"s.tar": tarred(*first, ("0.jpg", png(2)), *second)})
    assert "not used: the field 'jpg' of 1 sample, whose image is 'png' (`image` in [layout])" in notes
    with pytest.raises(SourceError, match=r"two fields of one name in a sample; found s\.tar/0\.PNG"):
        convert(shards, {"s.tar": tarred(*first, ("0.PNG", png(2)), *second)})


@pytest.mark.parametrize("several", ["", 'several = "first"'])
def test_an_annotation_of_cytomine_with_two_classes_is_counted(convert: Convert, several: str) -> None:
    box = "POLYGON ((0 8, 4 8, 4 4, 0 4, 0 8))"
    lists = {
        "annotations": [
            {"id": 5, "image": 3, "term": [1, 2], "location": box},
            {"id": 6, "image": 3, "term": [2], "location": box},
        ],
        "images": [{"id": 3, "width": 8, "height": 8, "originalFilename": "3.png", "instanceFilename": "3.png"}],
        "terms": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }
    files = {f"{name}.json": json.dumps({"collection": listed}).encode() for name, listed in lists.items()}
    manifest = f'task = "Mine"\nshape = "cytomine"\n[layout]\nlabels = {{x = "a", y = "b"}}\n{several}\n'
    notes = convert(manifest + '[rule]\ntype = "crop"\n', files | {"slides/3.png": png(1)})
    assert "annotations: 1 with terms of several classes, of which the first counts (`several` in [layout])" in notes


@pytest.mark.parametrize(("largest", "white"), [(200, 255), (4000, 4095), (70000, 131071)])
def test_the_range_that_is_proposed_for_wide_samples_is_one_that_they_may_have(largest: int, white: int) -> None:
    samples = np.full((4, 4), largest, np.int64)
    with pytest.raises(KindError, match="int64 samples") as refused:
        to_rgb(samples)
    assert f"range = [0, {white}]" in refused.value.remedy


def test_an_area_that_only_touches_the_image_lies_outside_and_a_point_on_its_edge_does_not() -> None:
    above, inside = shapely.box(0, -9, 9, 0), shapely.box(1, 1, 9, 9)
    found = frame.inside(Annotations([Annotation(above, "a"), Annotation(inside, "b")]), (20, 20), "a.xml")
    assert [item.label for item in found.items] == ["b"]
    assert found.remarks == {frame.OUTSIDE: 1}
    with pytest.raises(ReadError, match="the only annotation lies outside the image"):
        frame.inside(Annotations([Annotation(above, "a")]), (20, 20), "a.xml")
    edge = Annotation(shapely.Point(0, 5), "p")
    assert frame.inside(Annotations([edge]), (20, 20), "a.xml").items == [edge]


@pytest.mark.parametrize("rule", ['type = "area"\npositive = ["x"]\nshare = 0.5', 'type = "middle"\nshare = 0.5'])
def test_points_under_a_rule_of_areas_are_counted(convert: Convert, rule: str) -> None:
    ring = [[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]]
    shapes = [{"type": "Polygon", "coordinates": [ring]}, {"type": "Point", "coordinates": [12, 12]}]
    features = [
        {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": "x"}}} for shape in shapes
    ]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16, 3), np.uint8), photometric="rgb")
    files = {"s.tif": buffer.getvalue(), "s.geojson": json.dumps(features).encode()}
    manifest = 'task = "Mine"\nshape = "slides"\nclasses = ["o", "x"]\n[rule]\nsize = 8\n'
    note = "annotations: 1 x point, which covers no area of a patch"
    assert note in convert(manifest + rule + "\n", files)
    kept = '\n[dense.points]\nclasses = ["{0}"]\nlabels = {{"{0}" = "{0}"}}\nradius_px = 2\n'
    assert note not in convert(manifest + rule + kept.format("x"), files)
    assert note in convert(manifest + rule + kept.format("another"), files)
