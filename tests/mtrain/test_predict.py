"""Slides and images in, answers out: patches lie on tissue, at the resolution of the training."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dpconvert import convert as convert_files
from dpconvert.errors import ReadError
from dpconvert.image import open_image
from dpconvert.readers.pairing import IMAGE
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.data.task import open_task
from mtrain.errors import UsageError, UserError
from mtrain.model.heads import about, save_heads
from mtrain.model.network import shared_network
from mtrain.model.weight_files.weights import save_weights
from mtrain.predict import Classifier, Patch, files_to_predict, predict
from mtrain.predict.heatmap import colours, overlaid, write_picture, write_pyramid
from mtrain.predict.image_files import SUFFIXES
from mtrain.predict.patch_reading import read_patches
from mtrain.predict.slide import open_slide, patches_of
from mtrain.runs.run_folder import Run
from tests.dpconvert import dicoms
from tests.dpconvert.mirax import write_mirax
from tests.dpconvert.vsis import JPEG_2000, tiles, write_vsi
from tests.mtrain.pools import write_pool

QUIET = Reporter(quiet=True)
RED, PALE = (200, 60, 60), (245, 245, 245)


class Redness(Classifier):
    """Two classes told by the mean of red less green: answers that can be worked out by hand."""

    def answer(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:  # type: ignore[override]
        red = np.array([p[..., 0].mean() - p[..., 1].mean() for p in images]) / 140
        return np.stack([1 - red, red], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("predict")
    tasks = open_pool(write_pool(folder / "pool", ["Alpha", "Beta", "Gamma"])).tasks
    torch.manual_seed(0)
    network, made = shared_network("resnet18", "random"), Run(folder / "run")
    made.path.mkdir()
    config = FitConfig(shards=str(folder / "pool"), backbone="resnet18", size=32)
    made.write("config.json", {"config": config.model_dump(mode="json"), "left_out": []})
    save_heads(made.heads, nn.ModuleDict({task.name: nn.Linear(512, task.num_classes) for task in tasks}), tasks)
    save_weights(network.body, made.weights, "resnet18")
    made.write("state.json", {"state": "finished", "iteration": 1})
    return made


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """1024 x 768 px of 0.5 um: red tissue in the 512 x 256 px from (256, 256) on."""
    pixels = np.full((768, 1024, 3), PALE, np.uint8)
    pixels[256:512, 256:768] = RED
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(256, 256), resolution=(20000, 20000), resolutionunit="CENTIMETER"
    )
    return path


def test_patches_are_laid_over_the_tissue_at_the_resolution_of_the_training(
    run: Run, slide: Path, tmp_path: Path
) -> None:
    (found,) = predict(Redness(run, "Alpha"), [slide], Patch(side=64, mpp=1.0), tmp_path / "out", QUIET)
    assert (found["patches"], found["classes"]) == (8, {"class-0": 0, "class-1": 8})
    features = json.loads(Path(found["geojson"]).read_text())["features"]
    corners = [tuple(feature["geometry"]["coordinates"][0][0]) for feature in features]
    assert corners == [(x, y) for y in (256, 384) for x in (256, 384, 512, 640)]
    for feature in features:
        (x, y), _, far, _, back = feature["geometry"]["coordinates"][0]
        assert (far, back) == ([x + 128, y + 128], [x, y])
        assert feature["properties"]["measurements"] == {"p class-0": 0.0, "p class-1": 1.0}
        assert feature["properties"]["classification"]["name"] == "class-1"


def test_geojson_of_a_slide_with_bounds_starts_at_them_as_coordinates_in_qupath_do(run: Run, tmp_path: Path) -> None:
    """A MIRAX slide of 640 x 512 pixels, scanned from (192, 128) to (448, 384) alone."""
    path = tmp_path / "slide.mrxs"
    write_mirax(path, np.full((512, 640, 3), RED, np.uint8), (slice(128, 384), slice(192, 448)))
    (found,) = predict(Redness(run, "Alpha"), [path], Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
    features = json.loads(Path(found["geojson"]).read_text())["features"]
    corners = [feature["geometry"]["coordinates"][0][0] for feature in features]
    assert corners == [[0, 0], [128, 0], [0, 128], [128, 128]]


def test_a_dicom_series_is_one_slide_in_a_folder_and_named_file_by_file(run: Run, tmp_path: Path) -> None:
    pixels = np.full((256, 256, 3), RED, np.uint8)
    files = [tmp_path / "in" / f"{number}.dcm" for number in range(3)]
    dicoms.slide(files, pixels, "1.2.9", mpp=0.5)
    for paths in ([tmp_path / "in"], files):
        (found,) = predict(Redness(run, "Alpha"), paths, Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
        assert (Path(found["file"]).name, found["patches"]) == ("0.dcm", 16)
        assert Path(found["heatmap"]).name == "in.heatmap.tif"


def test_results_of_dicom_slides_have_the_names_of_the_slides(run: Run, tmp_path: Path) -> None:
    pixels = np.full((128, 128, 3), RED, np.uint8)
    dicoms.slide([tmp_path / "in" / "P1" / f"1.2.{number}.dcm" for number in range(2)], pixels, "1.2.7", mpp=0.5)
    dicoms.slide([tmp_path / "in" / "P2" / f"1.2.{number}.dcm" for number in range(2)], pixels, "1.2.8", mpp=0.5)
    dicoms.slide([tmp_path / "in" / "mixed" / f"a_{number}.dcm" for number in range(2)], pixels, "1.2.9", mpp=0.5)
    dicoms.slide([tmp_path / "in" / "mixed" / f"b_{number}.dcm" for number in range(2)], pixels, "1.2.10", mpp=0.5)
    found = predict(Redness(run, "Alpha"), [tmp_path / "in"], Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
    names = {Path(one["heatmap"]).name.removesuffix(".heatmap.tif") for one in found}
    assert names == {"P1", "P2", "a", "b"}


def test_pixels_that_are_not_square_are_resampled_by_axis(run: Run, tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", np.full((256, 512, 3), RED, np.uint8)
    per_cm = {"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", **per_cm)
    (found,) = predict(Redness(run, "Alpha"), [path], Patch(side=64, mpp=1.0), tmp_path / "out", QUIET)
    assert found["patches"] == 4 * 4  # 256 x 256 um
    frames = patches_of(open_image([path]), Patch(side=64, mpp=1.0), path)[0]
    assert {tuple(frame) for frame in frames[:, 2:].tolist()} == {(128, 64)}
    overridden = Patch(side=64, mpp=1.0, override=1.0)
    (found,) = predict(Redness(run, "Alpha"), [path], overridden, tmp_path / "out", QUIET)
    assert found["patches"] == 8 * 4


def test_a_slide_of_olympus_is_predicted_with_its_folder(run: Run, slide: Path, tmp_path: Path) -> None:
    """Its tiles and a damaged neighbour stand in its way as little as they do in that of any other slide."""
    folder = tmp_path / "in"
    write_vsi(folder / "a.vsi", tifffile.imread(slide), JPEG_2000, mpp=(0.5, 0.5))
    write_vsi(folder / "b.vsi", tifffile.imread(slide))
    tiles(folder / "b.vsi").unlink()
    (of_tiff,) = predict(Redness(run, "Alpha"), [slide], Patch(side=64, mpp=1.0), tmp_path / "tiff", QUIET)
    failed = list[str]()

    def keep(_: Path, error: UserError) -> None:
        failed.append(str(error))

    files, patch = files_to_predict([folder], QUIET), Patch(side=64, mpp=1.0)
    (found,) = predict(Redness(run, "Alpha"), files, patch, tmp_path / "vsi", QUIET, on_failure=keep)
    assert (found["patches"], found["classes"]) == (8, {"class-0": 0, "class-1": 8})
    features = [json.loads(Path(one["geojson"]).read_text())["features"] for one in (of_tiff, found)]
    assert [one["geometry"] for one in features[0]] == [one["geometry"] for one in features[1]]
    assert len(failed) == 1
    assert "b.vsi: the pixels of the largest image (40x, 1024 x 768) are missing" in failed[0]


def test_a_resolution_that_is_given_and_not_used_is_reported(run: Run, slide: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    patch = Patch(side=64, mpp=1.0, given_mpp=0.25)
    predict(Redness(run, "Alpha"), [slide], patch, tmp_path / "out", Reporter(stream=said))
    assert "slide.tif: --mpp 0.25 is not used: the file states 0.5 um per pixel; use --mpp-override" in said.getvalue()


@pytest.mark.parametrize(("mpp", "is_told"), [(0.25, True), (0.4, True), (0.46, False), (1.0, False)])
def test_a_slide_that_is_coarser_than_the_training_images_is_reported(
    mpp: float, is_told: bool, run: Run, slide: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    predict(Redness(run, "Alpha"), [slide], Patch(side=32, mpp=mpp), tmp_path / "out", Reporter(stream=said))
    told = f"slide.tif: its 0.5 um per pixel are coarser than the {mpp} of the training images: its patches are"
    assert (told in said.getvalue()) == is_told


def test_what_is_not_read_of_a_slide_or_an_image_is_reported(run: Run, tmp_path: Path) -> None:
    for name, side in (("slide.tif", 256), ("one.tif", 32), ("two.tif", 32)):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            for edge in (side, side // 2):  # the second is no reduced copy: it has no such mark
                per_cm = {"resolution": (10_000, 10_000), "resolutionunit": "CENTIMETER"}
                writer.write(np.full((edge, edge, 3), RED, np.uint8), photometric="rgb", **per_cm)
    said = io.StringIO()
    for name in ("a.kfb", "b.kfb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), RED).save(tmp_path / name, format="TIFF")
    out = tmp_path / "out"
    found = predict(Redness(run, "Alpha"), [tmp_path], Patch(side=64, mpp=1.0), out, Reporter(stream=said))
    told = said.getvalue()
    assert "slide.tif: the largest page is read; further ones" in told
    assert "2 images: the largest page is read; further ones" in told
    assert "2 slides in a format that is not read (KFBio), the first: a.kfb" in told
    assert Path(found[-1]["file"]).read_text().count(".tif") == 2


def test_the_map_is_a_pyramid_of_known_resolution_that_openslide_opens(run: Run, slide: Path, tmp_path: Path) -> None:
    (found,) = predict(Redness(run, "Alpha"), [slide], Patch(side=64, mpp=1.0), tmp_path / "out", QUIET)
    with openslide.OpenSlide(found["heatmap"]) as opened, openslide.OpenSlide(slide) as whole:
        assert opened.level_dimensions == ((256, 192),)
        ratio = whole.dimensions[0] / opened.dimensions[0]
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5 * ratio, rel=1e-4)
        image = np.asarray(opened.get_thumbnail(opened.dimensions).convert("RGB")).astype(int)
    assert np.abs(image[20, 20] - PALE).max() <= 2  # no patch: the slide itself
    bright = (np.array([252, 255, 164]) + RED) / 2  # the brightest of inferno, half over the tissue
    assert np.abs(image[96, 128] - bright).max() <= 3


def test_a_large_map_has_levels_each_half_as_large(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "map.tif", np.full((700, 1000, 3), 90, np.uint8), (2.0, 2.0))
    with openslide.OpenSlide(tmp_path / "map.tif") as opened:
        assert opened.level_dimensions == ((1000, 700), (500, 350), (250, 175))
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(2.0, rel=1e-4)
        assert opened.read_region((0, 0), 2, (1, 1)).getpixel((0, 0)) == (90, 90, 90, 255)


def test_paint_covers_its_boxes_by_half_and_nothing_else() -> None:
    boxes = np.array([[0, 0, 20, 20], [60, 20, 20, 20]])
    found = overlaid(
        np.full((20, 40, 3), 100, np.uint8), boxes, np.array([[200, 0, 0], [0, 200, 0]], np.uint8), (80, 40)
    )
    assert found[5, 5].tolist() == [150, 50, 50]
    assert found[15, 35].tolist() == [50, 150, 50]
    assert found[5, 15].tolist() == [100, 100, 100]
    assert len(np.unique(colours(10), axis=0)) == 10


def test_images_are_answered_by_rows_of_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.new("RGB", (40, 40), RED).save(tmp_path / "in" / "b.png")
    Image.new("RGB", (50, 30), PALE).save(tmp_path / "in" / "deep" / "a.tif")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (found,) = predict(Redness(run, "Alpha"), [tmp_path / "in"], Patch(32, None), tmp_path / "out", QUIET)
    assert (found["images"], found["classes"]) == (2, {"class-0": 1, "class-1": 1})
    with Path(found["file"]).open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "class", "p class-0", "p class-1"]
    assert [row[1:] for row in rows[1:]] == [["class-1", "0.000000", "1.000000"], ["class-0", "1.000000", "0.000000"]]


def test_images_of_every_kind_that_is_read_are_found_in_folders_and_archives_are_told(run: Run, tmp_path: Path) -> None:
    assert {suffix for suffix in SUFFIXES if not re.fullmatch(IMAGE, suffix[1:])} == set()
    for name in ("a.png", "b.jp2", "c.ppm", "d.gif"):
        Image.new("RGB", (40, 40), RED).save(tmp_path / name)
    (tmp_path / "more.zip").write_bytes(b"PK\5\6" + bytes(18))
    said = io.StringIO()
    found = predict(Redness(run, "Alpha"), [tmp_path], Patch(64, 1.0), tmp_path / "out", Reporter(stream=said))
    assert found[-1]["images"] == 4
    assert "1 archive not read, the first: more.zip" in said.getvalue()


@torch.inference_mode()
def test_answers_are_those_of_the_run_and_its_head(run: Run) -> None:
    classifier = Classifier(run, "gamma")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    network = shared_network("resnet18", run.weights).eval()
    logits = classifier.head(network(network.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))))
    np.testing.assert_allclose(classifier.answer(list(pixels)), torch.softmax(logits, 1), atol=1e-6)
    assert (classifier.label(None), Classifier(run, "Alpha").label(None)) == (None, 1)


def test_mistakes_are_said_in_one_line(run: Run, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this run has several heads.*Alpha, Beta, Gamma"):
        Classifier(run, None)
    classifier = Redness(run, "Alpha")
    with pytest.raises(UsageError, match="no class 'tumour'"):
        predict(classifier, [slide], Patch(64, 1.0), tmp_path, QUIET, "tumour")
    with pytest.raises(UsageError, match="no such file"):
        predict(classifier, [tmp_path / "absent.svs"], Patch(64, 1.0), tmp_path, QUIET)
    with pytest.raises(UsageError, match="does not state the size of its images"):
        Patch.of(classifier.about, None, None)  # the samples of these tests carry no sizes
    tifffile.imwrite(tmp_path / "plain.tif", np.full((600, 600, 3), 100, np.uint8), photometric="rgb", tile=(256, 256))
    with pytest.raises(ReadError, match=r"states no resolution.*; give it with --mpp$"):
        predict(classifier, [tmp_path / "plain.tif"], Patch(64, 1.0), tmp_path, QUIET)


def test_tissue_is_looked_for_by_the_rule_of_the_training(run: Run, tmp_path: Path) -> None:
    """Pale grey tissue, which saturation does not see, with a dark nucleus here and there."""
    pixels = np.full((256, 512, 3), 245, np.uint8)
    pixels[:, :256] = 222
    pixels[::32, :256:32] = (110, 60, 30)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(256, 256))
    alpha = replace(Classifier(run, "Alpha").about, side=64, mpp=None)
    by_glass = Patch.of(replace(alpha, tissue_rule="glass", tissue=0.5), None, None)
    (found,) = predict(Redness(run, "Alpha"), [tmp_path / "a.tif"], by_glass, tmp_path / "out", QUIET)
    assert found["patches"] == 16
    by_saturation = Patch.of(replace(alpha, tissue_rule="saturation", tissue=0.5), None, None)
    with pytest.raises(UsageError, match="no patch of this slide holds enough tissue"):
        predict(Redness(run, "Alpha"), [tmp_path / "a.tif"], by_saturation, tmp_path / "out", QUIET)


def test_the_size_of_patches_is_that_of_the_training_samples(tmp_path: Path) -> None:
    from dpconvert.manifest.catalog import find
    from dpconvert.readers import with_defaults
    from dpconvert.readers.fakes import draw_fake
    from tests.dpconvert.conftest import run as convert

    manifest = with_defaults(find("janowczyk1"))
    draw_fake(manifest, tmp_path)
    convert(manifest, tmp_path / manifest.name, tmp_path / "shards")
    told = about(open_task(tmp_path / "shards" / manifest.task))
    assert (told.side, told.mpp) == (250, 0.25)  # what the manifest asks for
    assert told.licence["name"] == "not stated"


MIXED = """
task = "Mixed"
shape = "slides"
classes = ["a", "b"]

[files.slides]
pattern = '(?P<class>[ab])/(?P<name>[^/]+)\\.tif$'

[rule]
type = "tiles"
size = 32

[split.strict]
share = [1, 0, 0]
"""


def test_the_resolution_of_a_task_is_that_of_most_slides_and_others_are_told(
    run: Run, slide: Path, tmp_path: Path
) -> None:
    """96 patches of the first slide, at 0.25 um per pixel, and 64 of each of two others, at 0.5."""
    for name, mpp, height in (("a/1", 0.25, 384), ("b/2", 0.5, 256), ("b/3", 0.5, 256)):
        path = tmp_path / "in" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        per_cm = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, np.full((height, 256, 3), RED, np.uint8), photometric="rgb", tile=(64, 64), **per_cm)
    (tmp_path / "mixed.toml").write_text(MIXED)
    convert_files(tmp_path / "mixed.toml", tmp_path / "in", tmp_path / "shards")
    told = about(open_task(tmp_path / "shards" / "Mixed"))
    assert (told.mpp, told.mpps) == (0.5, (0.25, 0.5))
    assert told.stated()["mpps"] == (0.25, 0.5)
    assert "mpps" not in Classifier(run, "Alpha").about.stated()
    said = io.StringIO()
    predict(Redness(run, "Alpha"), [slide], Patch.of(told, None, None), tmp_path / "out", Reporter(stream=said))
    several = "slide.tif: the training images have 0.25 to 0.5 um per pixel; the patches of this slide, which has 0.5,"
    assert several in said.getvalue()
    assert "coarser" not in said.getvalue()


class Gradient(Redness):
    """Answers class 1 with the number of the patch over the number of patches of a row, left to right."""

    def answer(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        p = np.arange(len(images), dtype=np.float32) % 4 / 4
        return np.stack([1 - p, p], axis=1)


def test_the_last_row_and_column_reach_the_edges_of_the_slide(run: Run, tmp_path: Path) -> None:
    """300 x 200 px of tissue in patches of 64: the fifth column starts at 236, the fourth row at 136."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((200, 300, 3), RED, np.uint8), photometric="rgb")
    boxes = patches_of(open_image([path]), Patch(side=64, mpp=None), path)[0]
    assert sorted(set(boxes[:, 0].tolist())) == [0, 64, 128, 192, 236]
    assert sorted(set(boxes[:, 1].tolist())) == [0, 64, 128, 136]
    assert boxes.tolist() == sorted(boxes.tolist(), key=lambda box: (box[1], box[0]))
    (found,) = predict(Redness(run, "Alpha"), [path], Patch(side=64, mpp=None), tmp_path / "out", QUIET)
    map_ = tifffile.imread(found["heatmap"], key=0)
    assert np.unique(map_.reshape(-1, 3), axis=0).shape[0] == 1  # all of it is painted, and nothing twice


def test_low_probabilities_let_the_slide_show_through(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((256, 256, 3), RED, np.uint8), photometric="rgb")
    (found,) = predict(Gradient(run, "Alpha"), [path], Patch(side=64, mpp=None), tmp_path / "out", QUIET)
    row = tifffile.imread(found["heatmap"], key=0)[32, 32::64].astype(int)
    assert row[0].tolist() == list(RED)  # probability 0
    inferno = np.array([[87, 16, 110], [188, 55, 84], [249, 142, 9]])  # at 0.25, 0.5 and 0.75
    share = np.array([[0.5 * 0.15 / 0.4], [0.5], [0.5]])
    assert np.abs(row[1:] - (inferno * share + np.array(RED) * (1 - share))).max() <= 2


@pytest.mark.parametrize("shown", [1, None])
def test_a_png_with_a_colour_bar_or_a_legend_lies_beside_the_pyramid(tmp_path: Path, shown: int | None) -> None:
    pixels = np.full((300, 400, 3), (40, 90, 200), np.uint8)
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, pixels, "slide_$1.svs", ["normal", "tumour_$x"], shown)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as opened:
        picture = np.asarray(opened.convert("RGB")).astype(int)
    assert (np.abs(picture - (40, 90, 200)).max(axis=2) <= 2).mean() > 0.4  # the map itself
    beside = picture[:, int(picture.shape[1] * 0.85) :].reshape(-1, 3)
    assert len(np.unique(beside, axis=0)) > (100 if shown else 2)


def test_patches_are_read_by_processes_as_by_this_one(slide: Path) -> None:
    """Also where the last block is smaller than the others."""
    patch = Patch(side=64, mpp=1.0)
    with open_image([slide]) as image:
        boxes = patches_of(image, patch, slide)[0]
        expected = [image.read(*box, (64, 64)) for box in boxes.tolist()]
    opener = partial(open_slide, slide, patch, QUIET)
    for workers in (0, 2):
        read = [(rows, np.array(some)) for rows, some in read_patches(opener, boxes, 64, batch=3, workers=workers)]
        assert [rows for rows, _ in read] == [slice(0, 3), slice(3, 6), slice(6, 8)]
        assert np.array_equal(np.concatenate([some for _, some in read]), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slide_that_is_gone_when_its_patches_are_read_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    opener = partial(open_slide, tmp_path / "gone.tif", Patch(side=64, mpp=1.0), QUIET)
    with pytest.raises(UserError, match=r"gone\.tif") as caught:
        list(read_patches(opener, np.array([[0, 0, 64, 64]]), 64, batch=3, workers=workers))
    assert "\n" not in str(caught.value)


def test_features_of_patches_are_written_as_slide_level_tools_read_them(run: Run, slide: Path, tmp_path: Path) -> None:
    classifier = Classifier(run, "Alpha")
    patch = Patch(side=64, mpp=1.0)
    (found,) = predict(classifier, [slide], patch, tmp_path / "with", QUIET, features=True, workers=2)
    (plain,) = predict(classifier, [slide], patch, tmp_path / "without", QUIET)
    assert (plain["features"], plain["classes"]) == (None, found["classes"])
    with h5py.File(found["features"]) as file:
        features, coords, about = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
    with open_image([slide]) as image:
        boxes = patches_of(image, patch, slide)[0]
        pixels = [image.read(*box, (64, 64)) for box in boxes.tolist()]
    assert features.shape == (8, 512)
    assert coords.tolist() == boxes[:, :2].tolist()
    assert np.allclose(features, classifier.features(pixels), atol=1e-5)
    assert about == {
        "patch_size": 64,
        "patch_size_level0": 128,
        "overlap": 0,
        "name": "slide",
        "level0_width": 1024,
        "level0_height": 768,
        "level0_magnification": 20.0,
        "target_magnification": 10.0,
    }


def test_what_cannot_be_predicted_is_left_to_the_caller_and_the_rest_follows(
    run: Run, slide: Path, tmp_path: Path
) -> None:
    """Of four slides, one is no TIFF, one has no tissue; of three images, two are damaged."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.tif").write_bytes(b"II*\x00 and no more")
    tifffile.imwrite(folder / "b.tif", np.full((256, 256, 3), PALE, np.uint8), photometric="rgb")
    for name in ("c.tif", "deep/c-2.tif", "deep/c.tif"):
        (folder / name).write_bytes(slide.read_bytes())
    Image.new("RGB", (40, 40), RED).save(folder / "x.png")
    for name in ("w.png", "y.jpg"):
        (folder / name).write_bytes(b"damaged")
    failed: dict[str, str] = {}
    found = predict(
        Redness(run, "Alpha"),
        [folder],
        Patch(side=64, mpp=None),
        tmp_path / "out",
        QUIET,
        on_failure=lambda path, error: failed.update({path.name: str(error)}),
    )
    assert sorted(failed) == ["a.tif", "b.tif", "w.png", "y.jpg"]
    assert "no patch of this slide holds enough tissue" in failed["b.tif"]
    assert [Path(one["file"]).name for one in found] == ["c.tif", "c-2.tif", "c.tif", "images.csv"]
    assert len({one["heatmap"] for one in found[:3]}) == 3  # no file of one slide replaces that of another
    assert found[-1]["images"] == 1
    with Path(found[-1]["file"]).open() as file:
        assert [Path(row[0]).name for row in csv.reader(file)] == ["file", "x.png"]
    with pytest.raises(ReadError):
        predict(Redness(run, "Alpha"), [folder / "w.png"], Patch(64, None), tmp_path / "none", QUIET)
    assert not (tmp_path / "none").exists()
