"""Own slides with annotation files: pairing, labels, rules, resolution, bounds."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.errors import ManifestError, ReadError, SourceError, UserError
from dpconvert.image import Flat, Image, Slide, Spacing, open_image, tissue
from dpconvert.manifest.catalog import load
from dpconvert.manifest.model import Manifest
from dpconvert.plan import grid, placement, plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.readers import with_defaults
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import slides
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage
from tests.dpconvert.conftest import Answer, run
from tests.dpconvert.mirax import write_mirax
from tests.dpconvert.test_formats import FRAME_NM, asap_xml, coco_file, imagescope_xml, ndpa_xml, outline, region
from tests.dpconvert.tiffs import shared_tiles

SIDE = 512
LEFT_HALF = [(0, 0), (256, 0), (256, 512), (0, 512)]
HEAD = """
task = "Own"
shape = "slides"
classes = ["no", "yes"]
[split.strict]
share = [1, 1, 1]
"""
AREA = '[rule]\ntype = "area"\nsize = 128\npositive = ["Tumor"]\nshare = 0.5\n'


class Tree:
    """A source folder, and the manifest that is written beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "source"
        self.manifest("")
        self.fake = FakeTree(self.root, self._manifest)

    def manifest(self, text: str) -> Manifest:
        path = self.folder / "own.toml"
        path.write_text(HEAD + text)
        self._manifest = with_defaults(load(path))
        return self._manifest

    def slide(self, name: str, **options: Any) -> None:
        self.fake.slide(name, self.fake.image(SIDE, SIDE), **({"levels": 2} | options))

    def write(self, name: str, data: bytes | str) -> None:
        self.fake.write(name, data)

    def plan(self, **options: Any) -> Plan:
        chosen = Options.model_validate(options)
        manifest = chosen.applied_to(self._manifest)
        return plan.make(Source.open(self.root, manifest), chosen, 1, Reporter(quiet=True))

    def counts(self, **options: Any) -> dict[str, int]:
        made = self.plan(**options)
        return dict(Counter(made.classes[row.label] for row in made.rows))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def geojson(*features: tuple[str, Any, str]) -> str:
    return json.dumps(
        [
            {
                "type": "Feature",
                "geometry": {"type": kind, "coordinates": places},
                "properties": {"classification": {"name": name}},
            }
            for kind, places, name in features
        ]
    )


TUMOR = geojson(("Polygon", [LEFT_HALF], "Tumor"))
OUTLINES = {
    "a.xml": asap_xml(("Polygon", "Tumor", LEFT_HALF)),
    "a.svs.xml": imagescope_xml(region(1, LEFT_HALF)),
    "a.geojson": TUMOR,
    "a.tif.geojson": TUMOR,
    "a.geojson.gz": gzip.compress(TUMOR.encode()),
    "all.json": coco_file({"bbox": [0, 0, 256, 512]}, file_name="images/a.tif", width=512, height=512).replace(
        b"nucleus", b"Tumor"
    ),
}


@pytest.mark.parametrize("name", OUTLINES)
def test_a_slide_is_paired_with_its_outlines_of_any_format(name: str, tree: Tree) -> None:
    tree.slide("case 1/a.tif")
    tree.write(f"outlines/{name}", OUTLINES[name])
    tree.manifest(AREA)
    assert tree.counts() == {"yes": 8, "no": 8}


def test_a_mask_at_an_eighth_of_the_slide_is_stretched(tree: Tree) -> None:
    tree.slide("a.tif")
    values = np.zeros((64, 64), np.uint8)
    values[:, :32] = 255
    tree.fake.save("a_mask.png", values)
    tree.manifest(
        '[layout]\nvalues = {0 = "none", 255 = "Tumor"}\n' + AREA.replace("]\nshare", ']\nignore = ["none"]\nshare')
    )
    assert tree.counts() == {"yes": 8, "no": 8}


OBJECTS = geojson(
    ("Polygon", [[(10, 10), (40, 10), (40, 30), (10, 30)]], "yes"),
    ("Polygon", [[(300, 300), (340, 300), (340, 360), (300, 360)]], "no"),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('type = "area"\nsize = 128\npositive = ["yes"]\nignore = ["no"]\nshare = 0.03', {"no": 15, "yes": 1}),
        ('type = "centre"\nsize = 64\noverlap = 32\npositive = ["no"]\nignore = ["yes"]', {"no": 223, "yes": 2}),
        ('type = "presence"\nsize = 128\npositive = ["yes"]', {"no": 15, "yes": 1}),
        ('type = "objects"\nsize = 128\npositive = "yes"\nnone = "no"\ncrops = 3', {"no": 15, "yes": 3}),
        ('type = "crop"', {"no": 1, "yes": 1}),
    ],
)
def test_every_rule_that_uses_annotations(rule: str, expected: dict[str, int], tree: Tree) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", OBJECTS)
    tree.manifest(f"[rule]\n{rule}\n")
    assert tree.counts() == expected


def test_objects_of_an_instance_mask_have_the_classes_of_the_table(tree: Tree) -> None:
    tree.slide("a.tif")
    values = np.zeros((SIDE, SIDE), np.uint16)
    values[10:30, 10:40], values[300:360, 300:340] = 7, 300
    tree.fake.save("a_mask.png", values)
    tree.write("a_classes.csv", "id,class\n7,yes\n300,no\n")
    tree.manifest('[layout]\nvalues = {0 = "none"}\ninstances = true\n[rule]\ntype = "crop"\n')
    boxes = {(made.label, made.box) for made in tree.plan().rows}
    assert boxes == {(1, (10, 10, 30, 20)), (0, (300, 300, 40, 60))}


# labels


def test_labels_are_mapped_and_others_refused_by_name(tree: Tree) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor: Positive"), ("Point", (1, 2), "Stroma")))
    rule = AREA.replace('"Tumor"', '"lesion"')
    tree.manifest('[layout]\nlabels = {Tumor = "lesion"}\nskip = ["Stroma"]\n' + rule)
    assert tree.counts() == {"yes": 8, "no": 8}
    tree.manifest('[layout]\nlabels = {Tumor = "lesion"}\n' + rule)
    with pytest.raises(SourceError, match="unknown annotation label 'Stroma'"):
        tree.plan()
    tree.manifest(AREA)
    with pytest.raises(SourceError, match="unknown annotation label 'Stroma'"):
        tree.plan()


# pairing


def test_a_slide_without_annotations_is_an_error_unless_allowed(tree: Tree) -> None:
    tree.slide("a.tif")
    tree.slide("b.tif")
    tree.write("a.geojson", TUMOR)
    tree.write("z.geojson", TUMOR)
    tree.manifest(AREA)
    with pytest.raises(SourceError, match=r"b\.tif.*missing = \"none\".*missing = true"):
        tree.plan()
    tree.manifest('[layout]\nmissing = "none"\n' + AREA)
    assert tree.counts() == {"yes": 8, "no": 24}
    tree.manifest("[layout]\nmissing = true\n" + AREA)
    assert tree.counts() == {"yes": 8, "no": 8}
    assert "left out: 1 slide without annotations, the first b.tif" in tree.plan().notes
    assert "1 file of annotations on no slide here, the first: z.geojson" in tree.plan().notes
    for name in "az":
        (tree.root / f"{name}.geojson").unlink()
    tree.manifest(AREA)
    with pytest.raises(SourceError, match="no annotations for this slide"):
        tree.plan()


def test_two_files_for_one_slide_are_an_error(tree: Tree) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", TUMOR)
    tree.write("a.xml", OUTLINES["a.xml"])
    tree.manifest(AREA)
    with pytest.raises(SourceError, match="two files of annotations"):
        tree.plan()


def test_a_mask_that_the_pattern_of_slides_matches_too_is_no_slide_without_tumour(tree: Tree) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :256] = 1
    tree.slide("a.tif")
    tifffile.imwrite(tree.root / "a_mask.tif", mask)
    slides = "[files.slides]\npattern = '(?P<name>[^/]+){}[.]tif$'\n"
    layout = '[layout]\nmissing = "none"\n'
    tree.manifest(slides.format("") + layout + AREA)
    with pytest.raises(SourceError, match=r"a_mask\.tif: .* both \[files.slides\] and \[files.annotations\]"):
        tree.plan()
    tree.manifest(slides.format("(?<!_mask)") + layout + AREA)
    with pytest.raises(SourceError, match="mask value 0 has no label; expected `values` in the manifest's"):
        tree.plan()
    tree.manifest(slides.format("(?<!_mask)") + layout + 'values = {0 = "other", 1 = "Tumor"}\n' + AREA)
    assert tree.counts() == {"no": 8, "yes": 8}


def test_the_table_tells_groups_and_splits(tree: Tree) -> None:
    for name in "abc":
        tree.slide(f"{name}.tif")
        tree.write(f"{name}.geojson", TUMOR)
    tree.write("slides.csv", "slide,patient,set\na.tif,P1,train\nfolder/b.tif,P1,train\nc,P2,test\n")
    layout = '[layout]\ngroup = "patient"\nsplit = "set"\n'
    tree.manifest(layout + AREA)
    groups = {row.source_image: row.group for row in tree.plan().rows}
    assert groups == {"a": "own:P1", "b": "own:P1", "c": "own:P2"}
    tree.manifest(AREA)
    with pytest.raises(ManifestError, match="no column 'group'"):
        tree.plan()
    tree.manifest(layout + AREA)
    tree.write("slides.csv", "slide,patient,set\na,P1,train\nb,P1,train\n")
    with pytest.raises(SourceError, match="no line of the table"):
        tree.plan()
    tree.write("slides.csv", "slide,patient,set\na,P1,train\na.tif,P2,train\n")
    with pytest.raises(SourceError, match="two lines about one slide"):
        tree.plan()


def test_slides_without_a_group_and_names_of_sets_that_none_has_are_reported(tree: Tree) -> None:
    for name in "abc":
        tree.slide(f"{name}.tif")
        tree.write(f"{name}.geojson", TUMOR)
    tree.write("slides.csv", "slide,patient,set\na,P1,A\nb,,A\nc,P2,B\n")
    tree.manifest('[layout]\ngroup = "patient"\nsplit = "set"\nsplits = {a = "train", B = "test", C = "val"}\n' + AREA)
    made = tree.plan()
    assert {row.source_image: row.group for row in made.rows} == {"a": "own:P1", "b": "own:b", "c": "own:P2"}
    assert "1 slide without a group in the table, each a group of its own, the first: b.tif" in made.notes
    assert "not used: 'C' in `splits` under [layout], which no image has" in made.notes


def labelme(image: str) -> str:
    shape = {"label": "Tumor", "points": [[0, 0], [256, 0], [256, 512], [0, 512]], "shape_type": "polygon"}
    return json.dumps({"shapes": [shape], "imagePath": image, "imageHeight": SIDE, "imageWidth": SIDE})


def test_annotations_that_state_another_image_here_are_refused_unless_allowed(tree: Tree) -> None:
    for name in "ab":
        tree.slide(f"{name}.tif")
    tree.write("a.json", labelme("renamed.png"))
    tree.write("b.json", labelme("C:\\old\\A.png"))
    tree.manifest(AREA)
    with pytest.raises(SourceError, match=r"b\.json: states the name of another image that is here; .*found a\.tif"):
        tree.plan()
    tree.manifest('[layout]\nstated_image = "ignore"\n' + AREA)
    assert tree.counts() == {"yes": 16, "no": 16}
    tree.write("b.json", labelme("sub/b.jpg"))
    tree.manifest(AREA)
    assert tree.counts() == {"yes": 16, "no": 16}


# resolution

AT_ONE = AREA.replace("size = 128", "size = 64\nmpp = 1.0")


def test_a_request_in_micrometres_reads_slides_of_any_scale_alike(tree: Tree) -> None:
    for name, mpp in (("a", 0.25), ("b", 0.5)):
        tree.slide(f"{name}.tif", mpp=mpp, levels=3)
        tree.write(f"{name}.geojson", TUMOR)
    manifest = tree.manifest(AT_ONE)
    card = run(manifest, tree.root, tree.folder / "out")
    assert card.samples() == 4 + 16
    for fields, image in members(tree.folder / "out" / "Own"):
        side, finest = (256, 0.25) if fields["picture"] == "a" else (128, 0.5)
        assert (fields["width"], fields["height"]) == (side, side)
        assert image.size == (fields["stored_width"], fields["stored_height"]) == (64, 64)
        assert fields["mpp_requested"] == 1.0
        assert fields["mpp_read"] == fields["mpp_stored"] == pytest.approx(1.0)
        assert fields["mpp_stored"] == pytest.approx(finest * side / 64)


def test_level_zero_pixels_ask_for_no_resolution(tree: Tree) -> None:
    tree.slide("a.tif", mpp=0.25)
    tree.write("a.geojson", TUMOR)
    run(tree.manifest(AREA.replace("share", "stored = 64\nshare")), tree.root, tree.folder / "out")
    fields, image = members(tree.folder / "out" / "Own")[0]
    assert image.size == (64, 64)
    assert (fields["mpp_requested"], fields["mpp_read"], fields["mpp_stored"]) == (None, 0.5, 0.5)


def members(folder: Path) -> list[tuple[dict[str, Any], Pillow.Image]]:
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in data:
            if name.endswith(".json"):
                image = data[name.removesuffix("json") + "png"]
                found.append((json.loads(data[name]), Pillow.open(io.BytesIO(image))))
    return found


def test_corners_are_rounded_one_by_one() -> None:
    boxes = grid.grid(1000, 130, 64, 0, scale=(128.4 / 64, 128.4 / 64))
    assert boxes[:, 0].tolist() == [0, 128, 257, 385, 514, 642, 770]
    assert set(boxes[:, 2]) == {128}
    assert len(grid.grid(127, 127, 64, 0, (2.0, 2.0))) == 0
    assert grid.grid(128, 128, 64, 0, (2.0, 2.0)).tolist() == [[0, 0, 128, 128]]


def unscaled(tree: Tree, **tags: Any) -> None:
    path = tree.root / "a.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, tree.fake.image(SIDE, SIDE), tile=(256, 256), photometric="rgb", metadata=None, **tags)
    tree.write("a.geojson", TUMOR)


def test_a_slide_without_resolution_is_one_error_that_names_the_flag(
    tree: Tree, dpconvert: Callable[..., Answer]
) -> None:
    unscaled(tree)
    tree.manifest(AT_ONE)
    answer = dpconvert(tree.folder / "own.toml", "--source", tree.root, "--out", tree.folder / "out", "-q")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "a.tif: states no resolution; expected 0.05 to 10.0 um per pixel; give it with --mpp" in answer.err
    told = [tree.folder / "own.toml", "--source", tree.root, "--out", tree.folder / "out", "-q", "--json", "--mpp", 0.5]
    answer = dpconvert(*told)
    assert answer.code == 0
    assert json.loads(answer.out)["options"]["mpp"] == 0.5
    assert tree.counts(mpp=0.5) == {"yes": 8, "no": 8}
    assert dpconvert(*told[:-1], 25).code == 2


def test_an_absurd_resolution_is_shown_and_the_manifest_s_taken_instead(tree: Tree) -> None:
    unscaled(tree, resolution=(72, 72), resolutionunit="INCH")
    tree.manifest(AT_ONE)
    with pytest.raises(SourceError, match=r"absurd resolution.*found 72 pixels per inch"):
        tree.plan()
    tree.manifest(AT_ONE)
    (tree.folder / "own.toml").write_text("mpp = 0.25\n" + (tree.folder / "own.toml").read_text())
    tree._manifest = with_defaults(load(tree.folder / "own.toml"))
    assert sum(tree.counts().values()) == 4
    (tree.folder / "own.toml").write_text("mpp = 250\n" + HEAD)
    with pytest.raises(ManifestError, match="mpp"):
        load(tree.folder / "own.toml")


def test_a_slide_coarser_than_the_request_is_refused(tree: Tree) -> None:
    tree.slide("a.tif", mpp=1.5)
    tree.write("a.geojson", TUMOR)
    tree.manifest(AT_ONE)
    with pytest.raises(SourceError, match="coarser than the rule requires"):
        tree.plan()
    tree.slide("a.tif", mpp=1.05)
    assert sum(tree.counts().values()) == 64


def test_crops_are_stored_at_the_resolution_requested(tree: Tree) -> None:
    tree.slide("a.tif", mpp=0.25)
    tree.write("a.geojson", OBJECTS)
    tree.manifest('[rule]\ntype = "crop"\nmpp = 0.5\n')
    assert {(row.box, row.stored) for row in tree.plan().rows} == {
        ((10, 10, 30, 20), (15, 10)),
        ((300, 300, 40, 60), (20, 30)),
    }


# NDPA, bounds


class Told(Flat):
    """A white image whose file says what a test wants."""

    def __init__(self, width: int, height: int, mpp: float | None = None, **properties: str) -> None:
        super().__init__(image_of(width, height))
        self.properties = {name.replace("__", ".").replace("_", "-"): value for name, value in properties.items()}
        down = self.properties.get("openslide.mpp-y")
        self.spacing = Spacing.of(mpp, float(down) if down and mpp else None, str(mpp))


def image_of(width: int, height: int) -> io.BytesIO:
    buffer = io.BytesIO()
    Pillow.new("RGB", (width, height), "white").save(buffer, "PNG")
    return buffer


HAMAMATSU = {
    "hamamatsu__XOffsetFromSlideCentre": "1000",
    "hamamatsu__YOffsetFromSlideCentre": "-2000",
    "openslide__mpp_y": "0.25",
}


def annotations_of(tree: Tree, name: str, image: Image, text: str = AREA) -> Annotations | LabelMask:
    tree.root.mkdir(parents=True, exist_ok=True)
    source = Source.open(tree.root, tree.manifest(text))
    return slides.read_annotations(source, SourceImage("a", ("a.ndpi",), "a", annotations=(name,)), image)


def test_ndpa_is_placed_by_the_slide_s_own_words(tree: Tree) -> None:
    tree.write("a.ndpi.ndpa", ndpa_xml(outline(FRAME_NM)))
    found = annotations_of(tree, "a.ndpi.ndpa", Told(1000, 800, 0.5, **HAMAMATSU))
    assert isinstance(found, Annotations)
    assert found.items[0].geometry.bounds == (500, 400, 520, 420)
    other = Told(1000, 800, 0.5, **HAMAMATSU)
    other.restate(0.25)  # NDP.view does not know it
    found = annotations_of(tree, "a.ndpi.ndpa", other)
    assert isinstance(found, Annotations)
    assert found.items[0].geometry.bounds == (500, 400, 520, 420)
    with pytest.raises(ReadError, match=r"XOffsetFromSlideCentre"):
        annotations_of(tree, "a.ndpi.ndpa", Told(1000, 800, 0.5))
    with pytest.raises(ReadError, match="--mpp"):
        annotations_of(tree, "a.ndpi.ndpa", Told(1000, 800, None, **HAMAMATSU))


BOUNDS = {
    "openslide__bounds_x": "100",
    "openslide__bounds_y": "50",
    "openslide__bounds_width": "300",
    "openslide__bounds_height": "200",
}


def test_the_grid_lies_inside_the_bounds_and_qupath_counts_from_them(tree: Tree) -> None:
    image = Told(1000, 800, **BOUNDS)
    assert image.bounds == (100, 50, 300, 200)
    boxes = placement.whole_grid(tree.manifest(AREA).rule, (1.0, 1.0), image)  # type: ignore[arg-type]
    assert boxes.tolist() == [[100, 50, 128, 128], [228, 50, 128, 128]]
    tree.write("a.geojson", geojson(("Polygon", [[(0, 0), (10, 0), (10, 10)]], "Tumor")))
    found = annotations_of(tree, "a.geojson", image)
    assert isinstance(found, Annotations)
    assert found.items[0].geometry.bounds == (100, 50, 110, 60)
    found = annotations_of(tree, "a.geojson", image, "[layout]\nbounds = false\n" + AREA)
    assert isinstance(found, Annotations)
    assert found.items[0].geometry.bounds == (0, 0, 10, 10)


@pytest.mark.parametrize("wrong", ["", "x", "-5000"])
def test_bounds_that_make_no_sense_are_not_believed(wrong: str) -> None:
    assert Told(1000, 800, **(BOUNDS | {"openslide__bounds_width": wrong})).bounds == (0, 0, 1000, 800)


# pixels


def test_tiles_that_a_slide_leaves_out_are_background_and_black_ones_no_tissue(tmp_path: Path) -> None:
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[:512] = FakeTree(tmp_path, load_nothing(tmp_path)).image(1024, 512, look=3)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags[325].overwrite([0, *tiff.pages.first.databytecounts[1:]])
    with open_image([path]) as image:
        assert isinstance(image, Slide)
        assert (image.read(0, 0, 256, 256) == 255).all()
        share = tissue(image).share([(0, 0, 256, 256), (256, 0, 256, 256), (0, 512, 1024, 512)])
        assert share[0] == 0
        assert share[1] > 0.9
        assert share[2] < 0.01


def load_nothing(folder: Path) -> Manifest:
    (folder / "own.toml").write_text(HEAD)
    return load(folder / "own.toml")


def test_a_frame_between_the_pixels_of_a_level_is_where_it_should_be(tmp_path: Path) -> None:
    """A ramp along x: the mean of a frame tells where it was read."""
    ramp = np.broadcast_to(np.arange(1024)[None, :, None] / 4, (256, 1024, 3)).astype(np.uint8)
    FakeTree(tmp_path, load_nothing(tmp_path)).slide("a.tif", ramp, levels=3)
    with open_image([tmp_path / "a.tif"]) as image:
        for x in (400, 401, 402, 403, 405):
            for out in (64, 32, 16, 11):
                assert image.read(x, 8, 64, 64, out=(out, out)).mean() == pytest.approx((x + 31.5) / 4, abs=0.7)


def test_a_gigantic_slide_is_planned_in_little_memory(tree: Tree) -> None:
    tile = np.zeros((512, 512, 3), np.uint8) + np.array([200, 120, 180], np.uint8)
    tree.root.mkdir()
    shared_tiles(tree.root / "a.tif", 97_792, 221_184, tile, factors=(1, 16, 64))
    ring = [(0, 0), (48_896, 0), (48_896, 221_184), (0, 221_184)]
    tree.write("a.geojson", geojson(("Polygon", [ring], "Tumor")))
    tree.manifest(AREA.replace("size = 128", "size = 512\nmpp = 0.5\ntissue = 0.5\ncap = 50"))
    made = tree.plan()
    assert Counter(row.label for row in made.rows) == {0: 50, 1: 50}
    assert {row.box[2] for row in made.rows if row.box} == {1024}


def test_every_mistake_is_a_user_s_error(tree: Tree) -> None:
    tree.slide("a.tif")
    for name in ("a.xml", "a.geojson", "a.ndpi.ndpa"):
        tree.write(name, b"<nothing/>")
        tree.manifest(AREA)
        with pytest.raises(UserError):
            tree.plan()
        (tree.root / name).unlink()


DENSE = """
[dense.seg]
classes = ["tumour", "rest"]
labels = {Tumor = "tumour"}
ignore = ["Unsure"]
skip = ["Pen"]
unannotated = "rest"
"""


@pytest.mark.parametrize(
    ("skip", "rule", "said"),
    [
        ("Unsure", AREA + DENSE, r"`skip` leaves out 'Unsure', which \[dense\] needs"),
        ("Tumor", AREA, r"`skip` leaves out 'Tumor', which \[rule\] needs"),
        ("Vessel", AREA + 'cut = ["Vessel"]\n', r"'Vessel', which \[rule\] needs"),
        ("yes", '[rule]\ntype = "objects"\nsize = 64\npositive = "yes"\nnone = "no"\n', r"'yes', which \[rule\]"),
        ("yes", '[rule]\ntype = "middle"\nsize = 64\n', r"'yes', which"),
    ],
)
def test_labels_that_are_left_out_and_needed_are_refused(tree: Tree, skip: str, rule: str, said: str) -> None:
    tree.manifest(f'[layout]\nmissing = "none"\nskip = ["{skip}"]\n' + rule)
    tree.slide("P1.tif")
    with pytest.raises(ManifestError, match=said):
        tree.plan()


def test_labels_may_be_left_out_of_the_file_and_of_masks(tree: Tree) -> None:
    """Also where another label takes the name of one that is left out."""
    tree.manifest('[layout]\nlabels = {T = "Tumor"}\nskip = ["Pen", "Tumor"]\n' + AREA + DENSE)
    tree.slide("P1.tif")
    right = [(256, 0), (512, 0), (512, 512), (256, 512)]
    tree.write("P1.geojson", geojson(("Polygon", [LEFT_HALF], "T"), ("Polygon", [right], "Tumor")))
    assert tree.counts() == {"no": 8, "yes": 8}


LAYERS = """
[files.annotations]
pattern = '(?P<name>[^/_]+)_(?P<label>[^/_]+)\\.(?:geojson|png)$'
"""
BARE = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [LEFT_HALF]}, "properties": {}}]


def test_files_of_one_label_each_are_the_annotations_of_one_slide(tree: Tree) -> None:
    """The label of a file is that of its outlines, unless they have their own."""
    tree.slide("a.tif")
    right = [[(x + 256, y) for x, y in LEFT_HALF]]
    tree.write("a_tumor.geojson", json.dumps(BARE))  # in another case than the manifest has it
    tree.write("a_other.geojson", geojson(("Polygon", right, "Tumor"), ("Polygon", [LEFT_HALF], "Stroma")))
    tree.manifest(AREA + '[layout]\nskip = ["Stroma", "other"]\n' + LAYERS)
    assert tree.counts() == {"yes": 16}
    tree.write("a_other.geojson", geojson(("Polygon", right, "Stroma")))
    assert tree.counts() == {"yes": 8, "no": 8}
    tree.write("a_tumor.geojson", geojson(("Polygon", right, "unknown")))
    with pytest.raises(SourceError, match="unknown annotation label 'unknown'"):
        tree.plan()


@pytest.mark.parametrize(("missing", "counts"), [("skip", {"yes": 8, "no": 8}), ("none", {"yes": 8, "no": 24})])
def test_a_slide_without_a_file_that_others_have_is_one_without_annotations(
    tree: Tree, missing: str, counts: dict[str, int]
) -> None:
    for name in "ab":
        tree.slide(f"{name}.tif")
        tree.write(f"{name}_Stroma.geojson", json.dumps(BARE))
    tree.write("a_Tumor.geojson", json.dumps(BARE))
    layout = '[layout]\nskip = ["Stroma"]\n'
    tree.manifest(AREA + layout + LAYERS)
    with pytest.raises(SourceError, match=r"b\.tif: no file of 'Tumor' for this slide"):
        tree.plan()
    tree.manifest(AREA + layout + f'missing = "{missing}"\n' + LAYERS)
    assert tree.counts() == counts


def test_files_of_one_label_each_may_name_the_slides(tree: Tree) -> None:
    """The left half of both slides is tumour, the right one of b stroma."""
    boxes = {"Tumor": {"a.tif": 0, "b.tif": 0}, "Stroma": {"a.tif": None, "b.tif": 256}}
    for label, of_slide in boxes.items():
        images = [{"id": at, "file_name": name, "width": SIDE, "height": SIDE} for at, name in enumerate(of_slide)]
        drawn = [
            {"id": at, "image_id": at, "category_id": 1, "bbox": [left, 0, 256, 512]}
            for at, left in enumerate(of_slide.values())
            if left is not None
        ]
        content = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": label}]}
        tree.write(f"coco_{label}.json", json.dumps(content))
    for name in "ab":
        tree.slide(f"{name}.tif")
    text = AREA.replace('["Tumor"]', '["Tumor", "Stroma"]') + "[files.annotations]\npattern = '%s'\n"
    tree.manifest(text % r"coco_(?P<label>[^/_]+)\.json$")
    assert tree.counts() == {"yes": 24, "no": 8}
    tree.manifest(text % r"coco_[^/_]+\.json$")
    with pytest.raises(SourceError, match=r"two files of annotations for one slide.*if each is about one label"):
        tree.plan()


def test_layers_that_are_masks_or_have_one_label_are_refused(tree: Tree) -> None:
    tree.slide("a.tif")
    for name in ("a_Tumor.geojson", "more/a_tumor.geojson"):
        tree.write(name, json.dumps(BARE))
    tree.manifest(AREA + LAYERS)
    with pytest.raises(SourceError, match="two files of annotations for one slide"):
        tree.plan()
    (tree.root / "more/a_tumor.geojson").unlink()
    Pillow.new("L", (SIDE, SIDE)).save(tree.root / "a_Stroma.png")
    tree.manifest(AREA + '[layout]\nskip = ["Stroma"]\nvalues = {0 = "Stroma"}\n' + LAYERS)
    with pytest.raises(SourceError, match="a mask whose name states a label, which only outlines take; found Stroma"):
        tree.plan()


def coco_of(label: str, outline: list[tuple[int, int]], *images: str) -> str:
    """A COCO file of one category, with an outline on each of these images."""
    listed = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, name in enumerate(images)]
    flat = [number for place in outline for number in place]
    drawn = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [flat]} for n in range(len(images))]
    return json.dumps({"images": listed, "categories": [{"id": 1, "name": label}], "annotations": drawn})


def test_files_about_all_slides_may_be_of_one_label_each(tree: Tree) -> None:
    for name in "ab":
        tree.slide(f"{name}.tif")
    right = [(x + 256, y) for x, y in LEFT_HALF]
    tree.write("tumor.json", coco_of("Tumor", LEFT_HALF, "a.tif", "b.tif"))
    tree.write("stroma.json", coco_of("Stroma", right, "a.tif", "b.tif"))
    layout = '[layout]\nskip = ["Stroma"]\n[files.annotations]\npattern = '
    tree.manifest(AREA + layout + "'[.]json$'\n")
    with pytest.raises(SourceError, match=r"two files of .*name it in the pattern of .*'\(\?P<label>\[\^/_\]\+\)"):
        tree.plan()
    tree.manifest(AREA + layout + "'(?P<label>[^/]+)[.]json$'\n")
    assert tree.counts() == {"yes": 16, "no": 16}
    tree.manifest(AREA.replace("Tumor", "Stroma") + layout.replace("Stroma", "Tumor") + "'(?P<label>[^/]+)[.]json$'\n")
    assert tree.counts() == {"yes": 16, "no": 16}
    tree.write("tumor.json", coco_of("Tumor", LEFT_HALF, "a.tif"))
    tree.manifest(AREA + layout + "'(?P<label>[^/]+)[.]json$'\n")
    with pytest.raises(SourceError, match=r"b\.tif: no file of 'tumor' for this slide"):
        tree.plan()


ASAP = """<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="0" Type="Polygon" PartOfGroup="None">
<Coordinates><Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="256" Y="0"/>
<Coordinate Order="2" X="256" Y="512"/><Coordinate Order="3" X="0" Y="512"/></Coordinates></Annotation></Annotations>
</ASAP_Annotations>"""
IMAGESCOPE = """<Annotations><Annotation Id="1" Name="" LineColor="65280"><Regions><Region Id="1" Type="0"><Vertices>
<Vertex X="0" Y="0"/><Vertex X="256" Y="0"/><Vertex X="256" Y="512"/><Vertex X="0" Y="512"/></Vertices></Region>
</Regions></Annotation></Annotations>"""


@pytest.mark.parametrize("text", [ASAP, IMAGESCOPE])
def test_outlines_of_asap_and_imagescope_without_a_label_have_that_of_their_file(tree: Tree, text: str) -> None:
    """ASAP writes the group None, and ImageScope only a colour."""
    tree.slide("a.tif")
    layers = LAYERS.replace("geojson|png", "xml")
    tree.write("a_Tumor.xml", text)
    tree.manifest(AREA + layers)
    assert tree.counts() == {"yes": 8, "no": 8}
    presence = '[rule]\ntype = "presence"\npositive = ["Tumor"]\nsize = 512\n'
    tree.manifest(presence + layers)
    assert tree.counts() == {"yes": 1}


def test_a_mask_of_one_label_alone_is_refused(tree: Tree) -> None:
    """It would be read by its values, whatever label its name states."""
    tree.slide("a.tif")
    Pillow.new("L", (SIDE, SIDE), 255).save(tree.root / "a_Stroma.png")
    tree.manifest(AREA + '[layout]\nvalues = {255 = "Tumor"}\n' + LAYERS)
    with pytest.raises(SourceError, match="a mask whose name states a label, which only outlines take; found Stroma"):
        tree.plan()


def test_a_slide_may_lack_the_file_of_a_label_that_is_skipped(tree: Tree) -> None:
    """A file without a label in its name may be about all."""
    for name in "ab":
        tree.slide(f"{name}.tif")
    tree.write("a_Tumor.geojson", json.dumps(BARE))
    tree.write("a_Stroma.geojson", json.dumps(BARE))
    tree.write("b_Tumor.geojson", json.dumps(BARE))
    tree.manifest(AREA + '[layout]\nskip = ["stroma"]\n' + LAYERS)
    assert tree.counts() == {"yes": 16, "no": 16}
    (tree.root / "b_Tumor.geojson").unlink()
    tree.write("b.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor")))
    tree.manifest(
        AREA + '[layout]\nskip = ["stroma"]\n' + LAYERS.replace("_(?P<label>[^/_]+)", "(?:_(?P<label>[^/_]+))?")
    )
    assert tree.counts() == {"yes": 16, "no": 16}


def test_a_mask_that_may_cover_the_bounds_of_a_slide_alone_is_refused(tree: Tree) -> None:
    """The left half of a slide of 512 x 512 pixels, or of its scanned 256 x 256 from (256, 128) on."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    write_mirax(tree.root / "a.mrxs", pixels, (slice(128, 384), slice(256, 512)))
    Pillow.fromarray(np.repeat([[1, 0]], [128, 128], axis=1).repeat(256, axis=0).astype(np.uint8)).save(
        tree.root / "a_mask.png"
    )
    text = AREA + '[layout]\nvalues = {0 = "none", 1 = "Tumor"}\n'
    tree.manifest(text)
    with pytest.raises(SourceError, match=r"a_mask\.png: a mask of 256 x 256, which may cover .* at \(256, 128\)"):
        tree.plan()
    tree.manifest(text + "bounds = false\n")
    assert tree.counts() == {"no": 4}
    mask = Pillow.open(tree.root / "a_mask.png")
    mask.resize((100, 100), Pillow.Resampling.NEAREST).save(tree.root / "a_mask.png")
    tree.manifest(text)
    with pytest.raises(SourceError, match=r"a_mask\.png: a mask of 100 x 100, which may cover"):
        tree.plan()


@pytest.mark.parametrize("stated", [{}, {"unit": "µm"}, {"metadata": {"coordinate_unit": "micrometer"}}])
def test_geojson_in_micrometres_is_placed_by_the_resolution_of_each_axis(stated: dict[str, Any], tree: Tree) -> None:
    """A pixel is 0.5 um wide and 0.25 um high: 128 x 128 um are 256 x 512 pixels, the left half of the slide."""
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    tree.root.mkdir()
    scale = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tree.root / "a.tif", pixels, photometric="rgb", **scale)
    square = json.loads(geojson(("Polygon", [[(0, 0), (128, 0), (128, 128), (0, 128)]], "Tumor")))
    tree.write("a.geojson", json.dumps({"type": "FeatureCollection", "features": square, **stated}))
    tree.manifest(AREA + '[layout]\nunit = "um"\n')
    assert tree.counts() == {"yes": 4, "no": 4}
    note = 'coordinates in "um" become pixels by the given 0.5 um per pixel, not by what files state'
    assert any(told.startswith(note) for told in tree.plan(mpp_override=0.5).notes)
    assert not any(told.startswith('coordinates in "um"') for told in tree.plan().notes)


def test_a_unit_of_length_is_refused_for_formats_in_pixels(tree: Tree) -> None:
    tree.slide("a.tif", mpp=0.5)
    tree.write("a.xml", asap_xml())
    tree.manifest(AREA + '[layout]\nunit = "um"\n')
    with pytest.raises(SourceError, match='leave `unit = "um"` out'):
        tree.plan()
