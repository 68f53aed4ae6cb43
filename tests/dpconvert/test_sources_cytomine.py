"""Sources that are Cytomine projects, and BoneMarrow and BreakHis beside them: labels, groups, splits, errors."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpconvert.annotations.formats import cytomine
from dpconvert.annotations.formats.cytomine import CytomineAnnotation, CytomineImage, Labelled
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.manifest.catalog import find, known, load
from dpconvert.manifest.model import Manifest
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.readers import with_defaults
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Converted, run

Get = Callable[[str], Converted]
PROJECTS = [name for name in known() if find(name).shape == "cytomine"]
REAL = Path(__file__).parents[3] / "shared" / "data" / "breakhis"
SQUARE = "POLYGON ((10 10, 30 10, 30 20, 10 20, 10 10))"


def planned(manifest: Manifest, folder: Path, split: str = "strict", **options: Any) -> Plan:
    chosen = Options.model_validate({"split": split} | options)
    return plan.make(Source.open(folder, manifest), chosen, 1, Reporter(quiet=True))


def project(
    tmp_path: Path, layout: str = "", kind: str = "slide", rule: str = 'type = "crop"', extra: str = ""
) -> Manifest:
    """A source of one's own with this [layout]."""
    path = tmp_path / "mine.toml"
    path.write_text(
        f'task = "Mine"\nshape = "cytomine"\n{extra}\n[group]\nkind = "{kind}"\n[layout]\n{layout}\n[rule]\n{rule}\n'
    )
    return with_defaults(load(path))


def put(folder: Path, annotations: list[dict[str, Any]], slides: dict[int, tuple[int, int]], **terms: int) -> None:
    """Lists, and for each image id a white slide of (width, height) with 10 x 10 px of that grey at its top left."""
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    images = []
    for number, (width, height) in slides.items():
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[:10, :10] = number
        Image.fromarray(pixels).save(folder / "slides" / f"s{number}.png")
        images.append(
            {
                "id": number,
                "baseImage": number + 500,
                "originalFilename": f"s{number}.png",
                "width": width,
                "height": height,
            }
        )
    (folder / "images.json").write_text(json.dumps(images))
    (folder / "terms.json").write_text(json.dumps([{"id": i, "name": name} for name, i in terms.items()]))
    (folder / "annotations.json").write_text(json.dumps(annotations))


def labels_of(made: Plan) -> dict[str, str]:
    """Annotation id -> class."""
    return {row.key.rpartition("_")[2]: made.classes[row.label] for row in made.rows}


# --- lists -----------------------------------------------------------------------------------------------------------

ENTRY = {"id": 7, "image": 3, "term": [5, 6], "location": SQUARE}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps([ENTRY | {"class_": "x", "unknown": {"deep": []}}])),
        ("a.json", "\ufeff \n" + json.dumps({"collection": [ENTRY], "size": 1, "offset": 0, "perPage": 1})),
        ("a.csv", f'id,image,term,location\n7,3,"5,6","{SQUARE}"\n'),
        ("a.CSV", f"id;image;term;location;parentIdent\r\n7;3;[5, 6];{SQUARE};\r\n"),
        ("a.csv", f'location\tterm\timage\tid\n{SQUARE}\t"5;6"\t3\t7\n'),
    ],
)
def test_lists_of_the_client_of_the_server_and_tables_say_the_same(name: str, data: str) -> None:
    (item,) = cytomine.listing(data.encode(), name, CytomineAnnotation)
    assert (item.id, item.image, item.term, item.location, item.parent) == (7, 3, (5, 6), SQUARE, None)


def test_a_term_may_be_absent_null_or_single() -> None:
    entries = [{"id": 1, "image": 1}, {"id": 2, "image": 1, "term": None}, {"id": 3, "image": 1, "term": 9}]
    found = cytomine.listing(json.dumps(entries).encode(), "a.json", CytomineAnnotation)
    assert [item.term for item in found] == [(), (), (9,)]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.json", b"{", "JSON"),
        ("a.json", b'{"collection": 5}', "collection"),
        ("a.json", b'[{"id": 1}]', "image"),
        ("a.json", b'[{"id": "x", "image": 1}]', "id"),
        ("a.csv", b"id,term\n1,2\n", "line 2: image"),
        (
            "a.csv",
            "Id;Area (microns\u00b2);Perimeter (mm);X;Y\n1;2;3;4;5\n".encode(),
            "report.*export the list as JSON",
        ),
        ("a.csv", b'id,image\n"' + b"x" * 10, "line 2|table"),
    ],
)
def test_what_is_no_list_is_one_line(name: str, data: bytes, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        cytomine.listing(data, name, CytomineAnnotation)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["a.json", "a.csv"]))
def test_no_bytes_raise_anything_else(data: bytes, name: str) -> None:
    for kind in (CytomineAnnotation, CytomineImage, cytomine.Term):
        try:
            cytomine.listing(data, name, kind)
        except ReadError:
            continue


def test_reviewed_copies_replace_their_originals_and_pages_may_overlap() -> None:
    found = [CytomineAnnotation(id=i, image=1, parent=p) for i, p in [(3, None), (1, None), (9, 3), (1, None), (5, 5)]]
    kept, dropped = cytomine.current(found)
    assert [item.id for item in kept] == [1, 5, 9]
    assert dropped == {"listed twice": 1, "replaced by a reviewed copy": 1}


@pytest.mark.parametrize(
    ("wkt", "bounds"),
    [
        ("POLYGON ((10 10, 30 10, 30 20, 10 20, 10 10))", (10, 80, 30, 90)),
        ("SRID=0;POLYGON((10 10,30 10,30 20,10 20,10 10))", (10, 80, 30, 90)),
        ("MULTIPOLYGON (((0 0, 5 0, 5 5, 0 0)), ((20 90, 30 90, 30 100, 20 90)))", (0, 0, 30, 100)),
        ("POLYGON ((-10 -10, 30.5 -10, 30.5 20.25, -10 20.25, -10 -10))", (0, 79.75, 30.5, 100)),
        ("POLYGON ((0 0, 10 10, 10 0, 0 10, 0 0))", (0, 90, 10, 100)),
        ("GEOMETRYCOLLECTION (POINT (1 1), POLYGON ((10 10, 30 10, 30 20, 10 10)))", (1, 80, 30, 99)),
        ("POINT (1 1)", None),
        ("LINESTRING (1 1, 50 50)", None),
        ("POLYGON EMPTY", None),
        ("POLYGON ((200 200, 300 200, 300 300, 200 200))", None),
        ("POLYGON ((100 0, 300 0, 300 300, 100 0))", None),
        ("POLYGON ((1 1, 1 1, 1 1, 1 1))", None),
    ],
)
def test_outlines_are_flipped_clipped_and_dropped(wkt: str, bounds: tuple[float, ...] | None) -> None:
    item = CytomineAnnotation(id=4, image=1, location=wkt)
    found = cytomine.shapes([Labelled(item, "a")], (100, 100), "a.json", areas=True)
    assert [shape.geometry.bounds for shape in found.items] == ([bounds] if bounds else [])
    assert sum(found.remarks[what] for what in cytomine.DROPPED) == (bounds is None)


def test_points_stay_where_rules_need_points() -> None:
    found = cytomine.shapes(
        [Labelled(CytomineAnnotation(id=4, image=1, location="POINT (3 10)"), "a")], (100, 100), "a", areas=False
    )
    assert [(p.geometry.x, p.geometry.y) for p in found.items] == [(3, 90)]


@pytest.mark.parametrize("wkt", ["", "POLYGON", "POLYGON ((0 0, 1 1))", "POINT (nan 1)", "POINT (1e300 1)", "x" * 50])
def test_outlines_that_are_none_are_one_line(wkt: str) -> None:
    with pytest.raises(ReadError, match="annotation 4"):
        cytomine.shapes(
            [Labelled(CytomineAnnotation(id=4, image=1, location=wkt), "a")], (100, 100), "a.json", areas=True
        )


# --- projects --------------------------------------------------------------------------------------------------------


def test_a_crop_holds_the_pixels_under_its_outline(tmp_path: Path) -> None:
    top_left = "POLYGON ((0 40, 10 40, 10 50, 0 50, 0 40))"  # of a slide 50 px high
    put(tmp_path / "s", [{"id": 1, "image": 77, "term": [1], "location": top_left}], {77: (60, 50)}, a=1)
    card = run(project(tmp_path), tmp_path / "s", tmp_path / "out")
    (row,) = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    data = (tmp_path / "out" / "Mine" / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["length"]]
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert card.classes == ["a"]
    assert pixels.shape == (10, 10, 3)
    assert set(pixels.ravel().tolist()) == {77}


SEVERAL = [
    {"id": 1, "image": 3, "term": [20, 10], "location": SQUARE},
    {"id": 2, "image": 3, "term": [10], "location": SQUARE},
    {"id": 3, "image": 4, "term": [30, 10], "location": SQUARE},
    {"id": 4, "image": 4, "location": SQUARE},
]
TERMS = {"beta": 20, "alpha": 10, "gamma": 30, "unused": 5}


@pytest.mark.parametrize(
    ("layout", "labels", "classes"),
    [
        ("", {"1": "beta", "2": "alpha", "3": "gamma"}, ["alpha", "beta", "gamma"]),
        ('several = "skip"', {"2": "alpha"}, ["alpha"]),
        ('labels = {gamma = "C", alpha = "A", beta = "A"}', {"1": "A", "2": "A", "3": "C"}, ["C", "A"]),
        ('labels = {10 = "A", 20 = "A"}\nseveral = "skip"', {"1": "A", "2": "A"}, ["A"]),
        ('labels = {alpha = "A"}', {"2": "A"}, ["A"]),
        ('labels = {alpha = "A"}\nrest = "Z"', {"1": "Z", "2": "A", "3": "Z"}, ["A", "Z"]),
    ],
)
def test_terms_become_classes_as_the_manifest_says(
    tmp_path: Path, layout: str, labels: dict[str, str], classes: list[str]
) -> None:
    put(tmp_path / "s", SEVERAL, {3: (60, 50), 4: (60, 50)}, **TERMS)
    made = planned(project(tmp_path, layout), tmp_path / "s")
    assert labels_of(made) == labels
    assert [label for label in made.classes if label in labels.values()] == classes == made.classes
    assert "annotations left out: 1 without a term" in made.notes
    manifest = project(tmp_path, layout)
    for image, number in [(3, 1), (3, 2), (4, 3), (4, 4)]:
        crop = tmp_path / "s" / "crops" / f"{image}_{number}.png"
        crop.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10)).save(crop)
    shutil.rmtree(tmp_path / "s" / "slides")
    from_crops = planned(manifest, tmp_path / "s")
    assert labels_of(from_crops) == labels
    assert {row.key: row.group for row in from_crops.rows} == {row.key: row.group for row in made.rows}


def test_several_terms_may_be_an_error(tmp_path: Path) -> None:
    put(tmp_path / "s", SEVERAL, {3: (60, 50), 4: (60, 50)}, **TERMS)
    with pytest.raises(SourceError, match=r"annotation 1: .*found beta, alpha"):
        planned(project(tmp_path, 'several = "error"'), tmp_path / "s")


def test_a_project_with_other_terms_says_how_to_map_them(tmp_path: Path) -> None:
    put(tmp_path / "s", SEVERAL, {3: (60, 50), 4: (60, 50)}, **TERMS)
    with pytest.raises(SourceError, match=r"found 10, 20, 30, alpha, beta, gamma; copy the manifest"):
        planned(project(tmp_path, 'labels = {x = "A"}'), tmp_path / "s")


def test_one_slide_in_two_projects_is_one_group(tmp_path: Path) -> None:
    for place, image in (("a", 3), ("b", 30)):
        put(
            tmp_path / "s" / place,
            [{"id": image, "image": image, "term": [1], "location": SQUARE}],
            {image: (60, 50)},
            x=1,
        )
        images = json.loads((tmp_path / "s" / place / "images.json").read_text())
        (tmp_path / "s" / place / "images.json").write_text(json.dumps([images[0] | {"baseImage": 9}]))
    made = planned(project(tmp_path), tmp_path / "s")
    assert {row.key: row.group for row in made.rows} == {"3_3": "mine:9", "30_30": "mine:9"}


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ({"id": 3, "baseImage": 8, "originalFilename": "a.svs"}, "8"),
        ({"id": 3, "originalFilename": "a.svs"}, "a.svs"),
        ({"id": 3, "baseImage": None, "originalFilename": None}, "3"),
    ],
)
def test_a_slide_is_known_by_what_is_the_same_in_all_projects(image: dict[str, Any], key: str) -> None:
    assert CytomineImage.model_validate(image).key == key


def test_patients_come_from_a_table_from_names_or_not_at_all(tmp_path: Path) -> None:
    annotations = [{"id": i, "image": i, "term": [1], "location": SQUARE} for i in (3, 4, 5)]
    put(tmp_path / "s", annotations, dict.fromkeys((3, 4, 5), (60, 50)), x=1)
    manifest, named = project(tmp_path, kind="patient"), project(tmp_path, "group = '^(s[34])'", kind="patient")
    made = planned(project(tmp_path, kind="patient"), tmp_path / "s")
    assert {row.group for row in made.rows} == {"mine:503", "mine:504", "mine:505"}
    assert any("patients are not known" in note for note in made.notes)
    assert {row.group for row in planned(named, tmp_path / "s").rows} == {"mine:s3", "mine:s4", "mine:505"}
    (tmp_path / "s" / "patients.csv").write_text("image;patient\ns3.png;P1\n504;P1\n5;P2\n")
    made = planned(manifest, tmp_path / "s")
    assert Counter(row.group for row in made.rows) == {"mine:P1": 2, "mine:P2": 1}
    assert not any("patients" in note for note in made.notes)
    (tmp_path / "s" / "patients.csv").write_text("image,patient\ns3.png,P1\n")
    with pytest.raises(SourceError, match=r"patients\.csv: an image is not in this table; expected 4 or s4\.png"):
        planned(manifest, tmp_path / "s")
    (tmp_path / "s" / "patients.csv").write_text("slide name,person\ns3.png,P1\n")
    with pytest.raises(ReadError, match="columns image and patient"):
        planned(manifest, tmp_path / "s")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("group = '('", "layout.group: .*regular expression"),
        ("group = 's'", "layout.group: .*parentheses"),
        ('several = "all"', "layout.several"),
        ("label = {}", "layout.label"),
    ],
)
def test_a_layout_that_says_what_it_cannot_is_one_line(tmp_path: Path, layout: str, words: str) -> None:
    put(tmp_path / "s", SEVERAL, {3: (60, 50), 4: (60, 50)}, **TERMS)
    with pytest.raises(ManifestError, match=words):
        planned(project(tmp_path, layout), tmp_path / "s")


def test_faults_of_an_export_are_one_line_each(tmp_path: Path) -> None:
    folder, manifest = tmp_path / "s", project(tmp_path)
    folder.mkdir()
    with pytest.raises(SourceError, match="neither lists of annotations nor crops"):
        planned(manifest, folder)
    put(folder, SEVERAL, {3: (60, 50), 4: (60, 50)}, **TERMS)
    (folder / "slides" / "s4.png").rename(folder / "4.png")
    assert len(planned(manifest, folder).rows) == 3  # by image id
    (folder / "4.png").unlink()
    with pytest.raises(SourceError, match=r"1 of 2 annotated slides are missing; expected s4\.png"):
        planned(manifest, folder)
    Image.new("RGB", (61, 50)).save(folder / "s4.png")
    with pytest.raises(SourceError, match=r"slide of another size.*expected 60 x 50; found 61 x 50"):
        planned(manifest, folder)
    shutil.copy(folder / "slides" / "s3.png", folder)
    with pytest.raises(SourceError, match=r"two files of one slide's name.*name them by image id"):
        planned(manifest, folder)
    (folder / "images.json").write_text(json.dumps([{"id": 3}]))
    with pytest.raises(SourceError, match=r"images\.json: 1 annotated images are not listed"):
        planned(manifest, folder)


def test_crops_of_the_pool_keep_its_sets_and_several_folders_are_several_terms(tmp_path: Path) -> None:
    names = [
        "train/pool_9/1_1",
        "val/pool_9/2_2",
        "test/pool_10/3_3",
        "train/pool_10/1_4",
        "train/pool_9/1_4",
        "other/10/7_5_5",
    ]
    for name in names:
        path = tmp_path / "s" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)
    manifest = project(tmp_path, 'pool = "pool"', extra="[split.strict]\nofficial = true")
    made = planned(manifest, tmp_path / "s")
    assert made.classes == ["9", "10"]
    assert {row.key: (row.split, made.classes[row.label], row.group) for row in made.rows} == {
        "1_1": ("train", "9", "mine:1"),
        "1_4": ("train", "9", "mine:1"),
        "2_2": ("val", "9", "mine:2"),
        "3_3": ("test", "10", "mine:3"),
        "7_5_5": ("train", "10", "mine:7"),
    }
    skipping = project(tmp_path, 'pool = "pool"\nseveral = "skip"')
    assert "crops left out: 1 with terms of several classes" in planned(skipping, tmp_path / "s").notes


# --- the sources themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROJECTS)
def test_the_manifest_names_owner_way_and_published_sizes(name: str) -> None:
    manifest = find(name)
    assert manifest.licence.name == "on request"
    assert "owned by" in manifest.licence.note
    assert f"dpconvert fetch {name} --host URL --project ID" in manifest.obtain.text
    assert manifest.paper is not None
    assert manifest.paper.total == manifest.paper.train + manifest.paper.val + manifest.paper.test
    assert manifest.expected.total == manifest.paper.total
    assert set(manifest.split) == {"strict", "paper"}


@pytest.mark.parametrize(("one", "other"), [("cell-inclusion", "proliferative-pattern"), ("breast1", "breast2")])
def test_related_tasks_share_groups_and_agree_on_their_splits(one: str, other: str, converted: Get) -> None:
    a, b = converted(one), converted(other)
    assert a.manifest.related == [b.manifest.task]
    assert b.manifest.related == [a.manifest.task]
    assert a.manifest.namespace == b.manifest.namespace
    homes = [{row.group: row.split for row in planned(side.manifest, side.source).rows} for side in (a, b)]
    shared = homes[0].keys() & homes[1].keys()
    assert len(shared) > 5
    assert {group: homes[0][group] for group in shared} == {group: homes[1][group] for group in shared}
    assert set(homes[0].values()) == {"train", "val", "test"}


def test_breast1_labels_the_centre_of_each_patch(converted: Get) -> None:
    outlines, heights = positive_outlines(converted("breast1"))
    made = planned(converted("breast1").manifest, converted("breast1").source)
    wrong = []
    for row in made.rows:
        assert row.box is not None
        centre = shapely.Point(row.box.x + 192, heights[row.source_image] - (row.box.y + 192))
        wrong += [row.key] * (outlines[row.source_image].contains(centre) != bool(row.label))
    assert wrong == []
    assert {row.label for row in made.rows} == {0, 1}


def test_breast2_needs_more_than_a_tenth_of_each_patch(converted: Get) -> None:
    outlines, heights = positive_outlines(converted("breast2"))
    made = planned(converted("breast2").manifest, converted("breast2").source)
    for row in made.rows:
        assert row.box is not None
        x, y = row.box.x, heights[row.source_image] - row.box.y
        share = outlines[row.source_image].intersection(shapely.box(x, y - 250, x + 250, y)).area / 250**2
        assert (share > 0.10) == bool(row.label)
        assert (row.box.x % 125, row.box.y % 125) == (0, 0)


def positive_outlines(source: Converted) -> tuple[dict[str, Any], dict[str, int]]:
    """Image -> the union of carcinoma, y up, and the slide's height, read by plain JSON."""
    entries = [
        e for p in sorted(source.source.glob("annotations*.json")) for e in json.loads(p.read_text())["collection"]
    ]
    terms = {t["id"]: t["name"] for t in json.loads((source.source / "terms.json").read_text())["collection"]}
    outlines: dict[str, Any] = defaultdict(shapely.Polygon)
    for entry in entries:
        if [terms[t] for t in entry["term"]][:1] in (["InSitu"], ["Infiltration"]):
            shape = shapely.make_valid(shapely.from_wkt(entry["location"]))
            outlines[str(entry["image"])] = outlines[str(entry["image"])].union(shape.buffer(0))
    images = json.loads((source.source / "images.json").read_text())["collection"]
    return outlines, {str(image["id"]): image["height"] for image in images}


def test_slides_without_carcinoma_count_as_annotated(converted: Get) -> None:
    made = planned(converted("breast1").manifest, converted("breast1").source)
    of_slide: dict[str, set[int]] = defaultdict(set)
    for row in made.rows:
        of_slide[row.source_image].add(row.label)
    assert {0} in of_slide.values()


def test_the_paper_s_split_takes_the_sets_that_crops_come_in(converted: Get) -> None:
    for name in ("necrosis", "glomeruli"):
        source = converted(name)
        for row in planned(source.manifest, source.source, "paper").rows:
            assert row.files[0].split("/")[0] == row.split


def test_samples_carry_slide_image_and_resolution(converted: Get) -> None:
    made = planned(converted("lung").manifest, converted("lung").source)
    assert {tuple(row.attributes) for row in made.rows} == {("slide", "image", "mpp")}
    assert all(row.group == f"lung:{row.attributes['slide']}" for row in made.rows)


# --- BoneMarrow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["strict", "paper"])
def test_bone_marrow_has_the_published_sets(tmp_path: Path, split: str) -> None:
    """1 291 numbered images in classes of the published copy's sizes, test ones last."""
    first = np.repeat(np.arange(8), [34, 48, 34, 47, 95, 184, 104, 106])
    last = np.repeat(np.arange(8), [31, 49, 30, 47, 88, 185, 108, 101])
    labels = [*np.random.default_rng(0).permutation(first), *last]
    for number, label in enumerate(labels, start=1):
        path = tmp_path / str(label) / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    made = planned(find("bone-marrow"), tmp_path, split)
    assert Counter(row.split for row in made.rows) == {"train": 522, "val": 130, "test": 639}
    assert {row.split for row in made.rows if int(row.key) > 652} == {"test"}
    assert {(row.split, row.label) for row in made.rows} == {(s, c) for s in ("train", "val", "test") for c in range(8)}


def test_bone_marrow_keeps_the_sets_of_its_folders(tmp_path: Path) -> None:
    for name in ("val/ulg_bonemarrow_4/0001", "train/ulg_bonemarrow_4/0002", "test/ulg_bonemarrow_4/0700"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    made = planned(find("bone-marrow"), tmp_path)
    assert {row.key: row.split for row in made.rows} == {"0001": "val", "0002": "train", "0700": "test"}


# --- BreakHis --------------------------------------------------------------------------------------------------------


def test_breakhis_tells_magnification_type_and_folds(converted: Get) -> None:
    source = converted("breakhis")
    made = planned(source.manifest, source.source)
    row = next(row for row in made.rows if row.source_image == "SOB_B_A-14-22549AB-40-001")
    assert row.attributes["magnification"] == "40X"
    assert row.attributes["tumour_type"] == "adenosis"
    assert row.attributes["patient"] == "14-22549AB"
    assert row.group == "breakhis:14-22549"
    folds = [[row.attributes[f"fold{k}"] for row in made.rows] for k in range(1, 6)]
    assert all(set(fold) == {"train", "test"} for fold in folds)
    tested = Counter(row.key for row in made.rows for k in range(1, 6) if row.attributes[f"fold{k}"] == "test")
    assert set(tested.values()) == {1}
    assert len(tested) == len(made.rows)
    assert Counter(row.attributes["magnification"] for row in made.rows) == dict.fromkeys(
        ["40X", "100X", "200X", "400X"], 14
    )


def test_breakhis_13412_is_there_once_unless_requested(converted: Get) -> None:
    source = converted("breakhis")
    for errata, types in (("default", {"DC"}), ("none", {"DC", "LC"})):
        made = planned(source.manifest, source.source, errata=errata)
        twice = [row.source_image for row in made.rows if "-13412-" in row.source_image]
        assert {name.split("_")[2].split("-")[0] for name in twice} == types
        assert len({row.group for row in made.rows if "-13412-" in row.source_image}) == 1


def test_breakhis_without_folds_says_so_and_damaged_ones_are_one_line(converted: Get, tmp_path: Path) -> None:
    source = converted("breakhis")
    folder = tmp_path / "b"
    shutil.copytree(source.source, folder)
    fold = folder / "mkfold" / "dsfold2.txt"
    lines = fold.read_text().splitlines()
    fold.write_text("\n".join([*lines[:3], lines[4].replace("|2|", "|3|")]))
    with pytest.raises(ReadError, match=r"dsfold2\.txt: line 4 is not a line of fold 2"):
        planned(source.manifest, folder)
    shutil.rmtree(folder / "mkfold")
    made = planned(source.manifest, folder)
    assert any("unpack mkfold.tar.gz" in note for note in made.notes)
    assert not any(key.startswith("fold") for row in made.rows for key in row.attributes)


def test_breakhis_counts_are_those_of_the_release() -> None:
    manifest = find("breakhis")
    by_magnification = [manifest.files[f"at_{m}"].expected for m in (40, 100, 200, 400)]
    assert by_magnification == [1995, 2081, 2013, 1820]
    assert (
        sum(filter(None, by_magnification)) == manifest.expected.total == sum(manifest.expected.classes or []) == 7909
    )


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real BreakHis images in ../shared/data")
def test_real_breakhis_images_keep_their_bytes(tmp_path: Path) -> None:
    made = planned(find("breakhis"), REAL)
    assert len(made.rows) == 12  # those in the release's tree; reduced copies beside them are none
    assert Counter(row.attributes["tumour_type"] for row in made.rows) == {
        "fibroadenoma": 5,
        "ductal_carcinoma": 1,
        "lobular_carcinoma": 1,
        "mucinous_carcinoma": 1,
        "papillary_carcinoma": 1,
        "adenosis": 1,
        "tubular_adenoma": 1,
        "phyllodes_tumor": 1,
    }
    assert {row.group for row in made.rows} >= {"breakhis:14-22549", "breakhis:14-3411", "breakhis:14-21998"}
    assert all(re.search(r"/\d+X/", row.files[0]) for row in made.rows)
