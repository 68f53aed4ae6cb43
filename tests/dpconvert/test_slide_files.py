"""Slides of several files: one slide each, whatever folders and names, with what belongs to it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from dpconvert.errors import ReadError, SourceError
from dpconvert.image import open_image
from dpconvert.image.pyramid import OPTICAL_PATHS
from dpconvert.image.unread import EXTRAS
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.source.files import Source
from dpconvert.source.slides.dicom_identity import instance
from tests.dpconvert import dicoms
from tests.dpconvert.conftest import run
from tests.dpconvert.mirax import write_mirax
from tests.dpconvert.test_resolution import samples
from tests.dpconvert.test_shape_slides import AREA, Tree, geojson
from tests.dpconvert.test_tiff_layout import in_file, ome, ome_image

SIDE = 256
RULE = AREA.replace("size = 128", "size = 64")
MISSING = "[layout]\nmissing = true\n"
WHOLE_SLIDES = """
task = "Whole"
shape = "folders"
classes = ["a"]
[files.images]
pattern = '(?P<class>a)/(?P<name>[^/]+)[.]mrxs$'
[split.strict]
share = [1, 0, 0]
"""
LEFT = geojson(("Polygon", [[(0, 0), (128, 0), (128, 256), (0, 256)]], "Tumor"))
LAYOUTS: dict[str, Callable[[int, int], str]] = {
    "one folder per slide": lambda slide, file: f"case/slide{slide}/{file}.dcm",
    "one folder, words": lambda slide, file: f"slide{slide}_level-{file}.dcm",
    "one folder, UIDs": lambda slide, file: f"1.2.9.{slide}.7{file}.dcm",
    "no endings": lambda slide, file: f"all/1.2.9.{slide}.7{file}",
    "one folder per level": lambda slide, file: f"level{file}/slide{slide}.dcm",
    "folders per level, words": lambda slide, file: f"level{file}/slide{slide}_{file}.dcm",
    "folders per level in one of the slide": lambda slide, file: f"slide{slide}/level{file}/image.dcm",
    "other endings": lambda slide, file: f"slide{slide}/IM{file}.DICOM",
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.root.mkdir()
    return tree


def drawn(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def series(tree: Tree, number: int, name: Callable[[int, int], str], container: str = "") -> None:
    files = [tree.root / name(number, file) for file in range(3)]
    dicoms.slide(files, drawn(number), f"1.2.9.{number}", container=container)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dicom_series_is_one_slide_whatever_its_folders_and_names(layout: str, tree: Tree) -> None:
    for number in range(3):
        series(tree, number, LAYOUTS[layout], container=f"S{number}")
    card = run(tree.manifest(RULE + MISSING), tree.root, tree.folder / "out")
    assert [split.groups for split in card.splits.values()] == [1, 1, 1]
    found = samples(tree.folder / "out" / "Own")
    assert len(found) == 3 * 16
    whole = {"".join(map(str, drawn(number)[0, 0])): drawn(number) for number in range(3)}
    corners = {told["picture"]: "".join(map(str, image[0, 0])) for told, image in found if told["x"] == told["y"] == 0}
    assert sorted(corners.values()) == sorted(whole)
    for told, image in found:
        x, y = told["x"], told["y"]
        assert (image == whole[corners[told["picture"]]][y : y + 64, x : x + 64]).all()
        assert told["mpp_read"] == 0.5


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("one folder per slide", "slide1"),
        ("one folder, words", "slide1"),
        ("one folder, UIDs", "S1"),
        ("no endings", "S1"),
        ("other endings", "slide1"),
        ("folders per level, words", "slide1"),
        ("folders per level in one of the slide", "slide1"),
    ],
)
def test_a_slide_has_the_name_that_people_give_it(layout: str, name: str, tree: Tree) -> None:
    for number in range(2):
        series(tree, number, LAYOUTS[layout], container=f"S{number}")
    tree.manifest(RULE + MISSING)
    assert name in {row.source_image for row in tree.plan().rows}


@pytest.mark.parametrize("called", ["slide1", "1.2.9.1", "S1", "2", "1.dcm"])
def test_annotations_and_tables_may_call_a_slide_by_any_of_its_names(called: str, tree: Tree) -> None:
    series(tree, 1, LAYOUTS["one folder per slide"], container="S1")
    tree.write(f"{called}.geojson", LEFT)
    tree.write("slides.csv", f"slide,group\n{called},patient 1\n")
    tree.manifest(RULE)
    assert tree.counts() == {"no": 8, "yes": 8}
    assert {row.group for row in tree.plan().rows} == {"own:patient 1"}


def test_a_pattern_of_the_manifest_meets_the_slide_by_its_real_files_too(tree: Tree) -> None:
    for number in range(3):
        series(tree, number, LAYOUTS["one folder per slide"])
    tree.manifest(RULE + MISSING + "[files.slides]\npattern = '^(?P<group>case)/(?P<name>slide[02])/0\\.dcm$'\n")
    rows = tree.plan().rows
    assert {row.source_image for row in rows} == {"slide0", "slide2"}
    assert {row.group for row in rows} == {"own:case"}
    assert len(rows) == 2 * 16


@pytest.mark.parametrize("is_there", [True, False])
def test_a_dicom_slide_without_its_image_of_full_resolution_is_noted(is_there: bool, tree: Tree) -> None:
    if is_there:
        dicoms.write(tree.root / "a/0.dcm", drawn(0), "1.2.9.1", 0)
    coarser = np.ascontiguousarray(drawn(0)[::2, ::2])
    dicoms.write(tree.root / "a/1.dcm", coarser, "1.2.9.1", 1, mpp=1.0, resampling="RESAMPLED")
    dicoms.write(tree.root / "a/2.dcm", coarser[:64, :64], "1.2.9.1", 2, mpp=1.0, flavor="LABEL")
    tree.manifest(RULE + MISSING)
    noted = [note for note in tree.plan().notes if "without an image of full resolution, the first: a/1.dcm" in note]
    assert len(noted) == (0 if is_there else 1)


def test_files_that_lie_there_twice_are_read_once(tree: Tree) -> None:
    series(tree, 0, LAYOUTS["one folder per slide"])
    shutil.copytree(tree.root / "case", tree.root / "copy of case")
    tree.manifest(RULE + MISSING)
    made = tree.plan()
    assert len(made.rows) == 16
    assert "read once: 3 DICOM files with the same SOPInstanceUID as another" in made.notes


def test_a_copy_of_a_file_in_its_folder_leaves_the_slide_its_name_and_is_reported_once(tree: Tree) -> None:
    series(tree, 0, LAYOUTS["one folder per slide"])
    folder = tree.root / "case" / "slide0"
    shutil.copy(folder / "0.dcm", folder / "0 copy.dcm")
    tree.manifest(RULE + MISSING + "[files.slides]\npattern = '^case/(?P<name>slide0)[.]dcm$'\n")
    made = tree.plan()
    assert {row.source_image for row in made.rows} == {"slide0"}
    assert len(made.rows) == 16
    assert not [note for note in made.notes if note.startswith("not used")]


@pytest.mark.parametrize(("modality", "what"), [("SEG", "segmentation"), ("ANN", "file of annotations")])
def test_dicom_annotations_of_a_slide_without_others_are_refused(modality: str, what: str, tree: Tree) -> None:
    for number in range(2):
        series(tree, number, LAYOUTS["one folder per slide"])
        tree.write(f"slide{number}.geojson", LEFT)
    about = Dataset()
    about.SeriesInstanceUID = "1.2.9.1"
    seg = dicoms.write(tree.root / "x.dcm", np.ascontiguousarray(drawn(1)[:64, :64]), "1.2.8", 0, modality=modality)
    data = dcmread(seg)
    data.ReferencedSeriesSequence = [about]
    data.save_as(seg)
    tree.manifest(RULE + '[layout]\nmissing = "none"\n')
    assert len(tree.plan().rows) == 2 * 16
    (tree.root / "slide1.geojson").unlink()
    told = f"x.dcm: a DICOM {what} .{modality}. of a slide without other annotations, which is not read; write a mask"
    with pytest.raises(SourceError, match=told):
        tree.plan()


def test_dicom_files_that_are_no_slide_are_left_out_and_counted(tree: Tree) -> None:
    series(tree, 0, LAYOUTS["one folder per slide"])
    pixels = np.ascontiguousarray(drawn(1)[:64, :64])
    dicoms.write(tree.root / "seg.dcm", pixels, "1.2.8", 0, modality="SEG")
    dicoms.write(tree.root / "label" / "1.dcm", pixels, "1.2.7", 0, flavor="LABEL")
    tree.manifest(RULE + MISSING)
    made = tree.plan()
    assert len(made.rows) == 16
    assert "2 DICOM files without a slide's pixels (SM) left out, the first: label/1.dcm" in made.notes


def test_a_changed_level_makes_the_shards_anew(tree: Tree) -> None:
    series(tree, 0, LAYOUTS["one folder, words"])
    manifest = tree.manifest(RULE + MISSING)
    source = Source.open(tree.root, manifest)
    (slide,) = source.match("slides")
    assert source.slides.files_of(slide.name) == tuple(f"slide0_level-{file}.dcm" for file in range(3))
    before = source.digest()
    with (tree.root / "slide0_level-1.dcm").open("ab") as file:
        file.write(b"\0\0")
    assert Source.open(tree.root, manifest).digest() != before


def test_links_go_when_the_source_does(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for number in range(2):
        series(tree, number, LAYOUTS["one folder per level"])
    source = Source.open(tree.root, tree.manifest(RULE))
    for slide in source.match("slides"):
        assert source.open_image((slide.name,), 1).width == SIDE
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del source
    assert not list((tmp_path / "temporary").iterdir())


def test_damaged_dicom_files_are_reported_by_whoever_reads_them(tree: Tree) -> None:
    series(tree, 0, LAYOUTS["one folder per slide"])
    (tree.root / "cut.dcm").write_bytes((tree.root / "case/slide0/0.dcm").read_bytes()[:200])
    (tree.root / "empty.dcm").write_bytes(b"")
    tree.manifest(RULE + MISSING)
    assert {failure.key for failure in tree.plan(skip_failed=True).failures} == {"cut", "empty"}


def test_no_damage_of_a_dicom_file_ends_in_a_traceback(tmp_path: Path) -> None:
    path = dicoms.write(tmp_path / "a.dcm", np.zeros((64, 64, 3), np.uint8), "1.2.9", 0, container="S")
    good, rng = path.read_bytes()[:2000], np.random.default_rng(0)
    found = set()
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(128, 900, rng.integers(1, 6)):
            data[at] = int(rng.integers(256))
        path.write_bytes(data[: rng.integers(140, 2000)] if rng.random() < 0.2 else data)
        found.add(instance(tmp_path, "a.dcm") is None)
    assert found == {True, False}


@pytest.mark.parametrize(("tag", "stream"), [("RGB", "YCbCr"), ("YBR_FULL_422", "RGB")])
def test_jpeg_frames_in_other_colours_than_the_tags_state_are_refused(tag: str, stream: str, tmp_path: Path) -> None:
    """OpenSlide decodes by the tags: it shows other colours than the frames have."""
    pixels = np.full((SIDE, SIDE, 3), (200, 90, 40), np.uint8)
    path = dicoms.write(tmp_path / "a.dcm", pixels, "1.2.9.1", 0)
    frame = imagecodecs.jpeg8_encode(pixels[: dicoms.TILE, : dicoms.TILE], level=95, outcolorspace=stream)
    told = f"a.dcm: JPEG frames in other colours than PhotometricInterpretation states; expected {tag}; found {stream}"
    for stated in ("RGB" if stream == "RGB" else "YBR_FULL_422", tag):
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID, data.PhotometricInterpretation = JPEGBaseline8Bit, stated
        data.PixelData = encapsulate([frame] * data.NumberOfFrames)
        data["PixelData"].is_undefined_length = True
        data.save_as(path, enforce_file_format=True)
        if stated == tag:
            with pytest.raises(ReadError, match=told):
                open_image([path])
        else:
            with open_image([path]) as image:
                assert abs(image.read(0, 0, SIDE, SIDE).astype(int) - pixels).max() < 4


def test_further_optical_paths_of_a_dicom_slide_are_reported(tmp_path: Path) -> None:
    path = dicoms.write(tmp_path / "a.dcm", drawn(1), "1.2.9.1", 0)
    data = dcmread(path)
    data.NumberOfOpticalPaths, data.NumberOfFrames, data.PixelData = 2, 2 * data.NumberOfFrames, 2 * data.PixelData
    data.save_as(path, enforce_file_format=True)
    with open_image([path]) as image:
        assert image.notes == (OPTICAL_PATHS,)
        assert (image.read(0, 0, SIDE, SIDE) == drawn(1)).all()


@pytest.mark.parametrize("ending", [".ome.tif", ".tif", ".TIFF"])
def test_an_ome_image_in_three_files_is_one_slide_whatever_its_ending(ending: str, tree: Tree) -> None:
    rgb = drawn(3)
    ids = [f"urn:uuid:{number}" for number in range(3)]
    data = "".join(
        in_file(f"glass_c{number}{ending}", name).replace("IFD", f'FirstC="{number}" IFD')
        for number, name in enumerate(ids)
    )
    for number, name in enumerate(ids):
        text = ome(ome_image(0, SIDE, data).replace(' SamplesPerPixel="3"', ""), uuid=name)
        tifffile.imwrite(
            tree.root / f"glass_c{number}{ending}", rgb[:, :, number].copy(), description=text, metadata=None
        )
    tree.write("glass.geojson", LEFT)
    card = run(tree.manifest(RULE), tree.root, tree.folder / "out")
    assert card.samples() == 16
    assert sum(split.classes[1] for split in card.splits.values()) == 8
    for told, image in samples(tree.folder / "out" / "Own"):
        assert (image == rgb[told["y"] : told["y"] + 64, told["x"] : told["x"] + 64]).all()


def test_a_stack_in_several_files_is_one_slide(tree: Tree) -> None:
    ids = [f"urn:uuid:{number}" for number in range(3)]
    data = "".join(
        in_file(f"z{number}.ome.tif", name).replace("IFD", f'FirstZ="{number}" IFD') for number, name in enumerate(ids)
    )
    for number, name in enumerate(ids):
        text = ome(ome_image(0, SIDE, data).replace('SizeZ="1"', 'SizeZ="3"'), uuid=name)
        options = {"photometric": "rgb", "description": text, "metadata": None}
        tifffile.imwrite(tree.root / f"z{number}.ome.tif", drawn(number), **options)
    tree.manifest(RULE + MISSING)
    made = tree.plan()
    assert {row.files for row in made.rows} == {("z0.ome.tif",)}
    assert len(made.rows) == 16


def test_a_mirax_slide_has_its_folder_and_misses_it(tree: Tree) -> None:
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "a/notes.txt", "b.mrxs"):
        tree.write(name, name)
    source = Source.open(tree.root, tree.manifest(RULE))
    assert [found.name for found in source.match("slides")] == ["a.mrxs", "b.mrxs"]
    assert source.slides.files_of("a.mrxs") == ("a.mrxs", "a/Data0000.dat", "a/Slidedat.ini")
    with pytest.raises(ReadError, match=r"b\.mrxs: a slide without the folder of its data; expected b/ beside it"):
        open_image([tree.root / "b.mrxs"])


PREVIEW = np.full((48, 64, 3), 200, np.uint8)


def mirax_with_preview(path: Path) -> None:
    """A .mrxs file is the preview of its slide, in JPEG."""
    path.parent.mkdir(exist_ok=True)
    write_mirax(path, drawn(1)[:128, :192])
    Image.fromarray(PREVIEW).save(path, "JPEG")


def test_the_preview_of_a_mirax_slide_is_never_the_slide(tmp_path: Path) -> None:
    for name, told in (
        ("capitals", r"capitals\.MRXS: a slide whose suffix is in capitals; rename it to capitals\.mrxs"),
        ("no-ini", r"no-ini\.mrxs: a slide without its data; expected no-ini/Slidedat\.ini"),
        ("empty", r"empty\.mrxs: a slide without its data; expected empty/Slidedat\.ini"),
    ):
        path = tmp_path / f"{name}.mrxs"
        mirax_with_preview(path)
        if name == "capitals":
            path = path.rename(path.with_suffix(".MRXS"))
        else:
            for file in (tmp_path / name).glob("*" if name == "empty" else "*.ini"):
                file.unlink()
        with pytest.raises(ReadError, match=told):
            open_image([path])


def test_a_whole_mirax_slide_is_stored_and_not_its_preview(tree: Tree) -> None:
    mirax_with_preview(tree.root / "a" / "1.mrxs")
    (tree.root / "m.toml").write_text(WHOLE_SLIDES)
    manifest = with_defaults(load(tree.root / "m.toml"))
    run(manifest, tree.root, tree.root / "out")
    with tarfile.open(tree.root / "out" / "Whole" / "train-000000.tar") as tar:
        member = tar.extractfile(tar.getmembers()[0])
        assert member is not None
        stored = np.asarray(Image.open(io.BytesIO(member.read())))
    assert np.array_equal(stored, drawn(1)[:128, :192])


def test_a_hamamatsu_set_has_the_files_that_it_names(tree: Tree) -> None:
    tree.write("s/a.vms", "[Virtual Microscope Specimen]\nImageFile=a.jpg\nMapFile=a_map2.jpg\nNoLayers=1\n")
    for name in ("s/a.jpg", "s/a_map2.jpg", "s/other.jpg"):
        tree.write(name, name)
    source = Source.open(tree.root, tree.manifest(RULE))
    assert source.slides.files_of("s/a.vms") == ("s/a.vms", "s/a.jpg", "s/a_map2.jpg")


@pytest.mark.parametrize("where", ["", "packed.zip/"])
def test_the_pixels_of_an_olympus_slide_are_no_images_of_their_own(
    tree: Tree, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slide of its head, a folder of pixels in tiles or TIFFs, and a thumbnail; of others the head is missing."""
    monkeypatch.setitem(EXTRAS, ".vsi", EXTRAS[".vsi"]._replace(module="not_installed"))
    folder = tree.root / "b" if where else tree.root
    for name in ("b.vsi", "_b_/stack1/frame_t.tif", "_b_/label.png", "c/_d_/stack10001/frame_t_0.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(folder / name, format="PNG" if name.endswith("png") else "TIFF")
    for number in (1, 10000):
        (folder / f"_b_/stack{number}").mkdir(exist_ok=True)
        (folder / f"_b_/stack{number}/frame_t.ets").write_bytes(b"x")
    if where:
        (folder / "b.vsi").unlink()
        shutil.make_archive(str(tree.root / "packed"), "zip", folder)
        shutil.rmtree(folder)
    tree.slide("a.tif")
    tree.manifest(RULE + MISSING)
    made = tree.plan()
    assert {row.source_image for row in made.rows} == {"a"}
    told = [note for note in made.notes if "Olympus" in note]
    install = "install its reader: pip install 'dpconvert[vsi]'"
    if where:
        assert told == [f"not read: 2 slides of Olympus VSI without the file {where}b.vsi, its head"]
    else:
        assert told == [
            f"1 slide in a format that is not read (Olympus VSI), the first: b.vsi; {install}",
            "not read: 1 slide of Olympus VSI without the file c/d.vsi, its head",
        ]
    assert not any("frame_t" in note or "label.png" in note for note in made.notes)


def test_formats_that_are_not_read_are_named_and_never_taken_for_their_thumbnail(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, ".zarr", EXTRAS[".zarr"]._replace(module="not_installed"))
    tree.slide("a.tif")
    thumbnail = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(tree.root / "b.kfb", thumbnail, photometric="rgb")
    for chunk in range(3):
        tree.write(f"c.ome.zarr/0/{chunk}/0", b"x")
    tree.write("c.ome.zarr/.zattrs", json.dumps({}))
    tree.manifest(RULE + MISSING)
    made = tree.plan()
    assert {row.source_image for row in made.rows} == {"a"}
    notes = [note.partition(";")[0] for note in made.notes if "format" in note]
    assert notes == [
        "1 slide in a format that is not read (KFBio), the first: b.kfb",
        "1 slide in a format that is not read (OME-Zarr), the first: c.ome.zarr",
    ]
    with pytest.raises(ReadError, match=r"format that is not read \(KFBio\).*convert"):
        open_image([tree.root / "b.kfb"])
    (tree.root / "a.tif").unlink()
    with pytest.raises(SourceError, match=r"no matching slides here.*KFBio.*convert"):
        tree.plan()
