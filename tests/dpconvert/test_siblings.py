"""Files that bear a slide's name are read, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpconvert.errors import SourceError
from tests.dpconvert.test_shape_slides import AREA, TUMOR, Tree
from tests.dpconvert.test_whole_annotations import HALO, halo

MISSING = "[layout]\nmissing = true\n" + AREA
LEFT_HALF = [(0, 0), (256, 0), (256, 512), (0, 512)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.slide("a.tif")
    return tree


def test_annotations_of_halo_beside_a_slide_are_read(tree: Tree) -> None:
    tree.write("a.annotations", HALO.format(halo("Polygon", LEFT_HALF)))
    tree.manifest(MISSING)
    assert tree.counts() == {"yes": 8, "no": 8}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.qpdata", b"\xac\xed\x00\x05sr", "QuPath's own data"),
        ("a_labels.json", b'{"objects": [], "size": {"height": 1, "width": 1}}', "a file of Supervisely"),
        ("a.txt", b"0 0.5 0.5 0.25 0.1\n", r"annotations \(yolo\)"),
        ("a.txt", b"0 0.1 0.1 0.5 0.1 0.5 0.625\n1 0 0.5 1 0.5 2.5e-05 0.9\n", r"annotations \(yolo\)"),
        ("a_cp_outlines.txt", b"70,60,300,90,260,310\n1,2,3,4,5,6\n", r"a file of Cellpose \(outlines\)"),
        ("a.csv", b"index,shape-type,vertex-index,axis-0,axis-1\n0,polygon,0,60.5,70.3\n", "a file of napari"),
        ("a.csv", b"index,axis-0,axis-1\n0,60.5,70.3\n", "a file of napari"),
        ("a.csv", b"ROI_name,X_base,Y_base\nTumor,1,2\n", "a file of Slideflow"),
        (
            "a.tsv",
            b"Image\tName\tClass\tParent\tROI\na.tif\tx\tTumor\tRoot\tPolygon\n",
            "a file of QuPath's measurements",
        ),
        (
            "a.svg",
            b'<svg xmlns="http://www.w3.org/2000/svg"><polygon points="1,1 2,2 3,1"/></svg>',
            "a file of a drawing",
        ),
        ("a_x.json", b'{"1": {"box": [1], "centroid": [2], "contour": [[1, 2]], "type": 1}}', "a file of TIAToolbox"),
        ("a.annotation", TUMOR.encode(), r"annotations \(qupath\)"),
        ("a_annotations.geojson", TUMOR.encode(), r"annotations \(qupath\)"),
        ("a.tif.session.xml", HALO.format("").encode(), r"annotations \(imagescope\)"),
    ],
)
def test_annotations_beside_a_slide_that_is_without_any_are_never_ignored(
    name: str, data: bytes, told: str, tree: Tree
) -> None:
    tree.write(name, data)
    tree.manifest(MISSING)
    with pytest.raises(SourceError, match=rf"{name}: this file beside a slide without annotations is not read: {told}"):
        tree.plan()


def test_other_files_beside_a_slide_are_named(tree: Tree) -> None:
    for name in ("a.csv", "a.tif.md5", "a_thumbnail.jpg", "a.tif.txt", "b.txt", "ab.txt"):
        tree.write(name, b"1,2\n")
    tree.write("a.geojson", TUMOR)
    tree.write("a_labels.json", json.dumps({"shapes": [], "imagePath": "a.tif"}))
    tree.manifest(MISSING)
    assert tree.counts() == {"yes": 8, "no": 8}
    told = "5 files named like slides and not read: a.csv, a.tif.md5, a.tif.txt and 2 more"
    assert [note for note in tree.plan().notes if "named like" in note] == [told]


def test_a_longer_name_of_another_slide_is_none_of_the_shorter(tree: Tree) -> None:
    tree.slide("a-b.tif")
    tree.write("a-b.geojson", TUMOR)
    tree.manifest(MISSING.replace("missing = true", 'missing = "none"'))
    assert tree.counts() == {"yes": 8, "no": 24}
    tree.write("a-2.geojson", TUMOR)
    assert "1 file of annotations on no slide here, the first: a-2.geojson" in tree.plan().notes


def test_slides_without_any_annotations_are_no_negatives_unless_allowed(tree: Tree) -> None:
    tree.manifest(AREA)
    with pytest.raises(SourceError, match=r"a\.tif: no annotations for this slide; .*missing = true"):
        tree.plan()
    tree.manifest(MISSING)
    assert tree.counts() == {"no": 16}
