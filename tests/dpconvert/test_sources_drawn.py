"""Open sources with masks, outlines, points or boxes: what other libraries read in the fakes' own files decides."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import shapely
import tifffile
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Converted
from tests.dpconvert.test_dense import masks_of, stored
from tests.dpconvert.test_dense_sources import kept

Get = Callable[[str], Converted]


def planned(name: str, folder: Path, **options: Any) -> Plan:
    manifest = find(name)
    chosen = Options.model_validate(options)
    dense = chosen.with_targets(manifest)
    return plan.make(Source.open(folder, dense), chosen, 1, Reporter(quiet=True))


def rows_of(converted: Converted) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_index(converted.folder / "index.parquet").to_pylist()
    return rows


def with_targets(source: Converted) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Key -> mask, and key -> fields, of the fake converted with its dense targets."""
    folder = kept(source)
    fields = {key: json.loads(parts["json"]) for key, parts in stored(folder).items()}
    return (masks_of(folder) if source.manifest.dense and source.manifest.dense.seg else {}), fields


def unpacked(folder: Path, out: Path) -> Path:
    """What a user has who unpacks the archives of a source."""
    for archive in folder.rglob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(out)
    return out


def box_of(mask: Any) -> list[float]:
    """Left, top, right and bottom of what a mask marks."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# --- GlaS


def test_grades_and_patients_of_glas_are_those_of_its_table(converted: Get, tmp_path: Path) -> None:
    source = converted("glas")
    (table,) = unpacked(source.source, tmp_path).rglob("Grade.csv")
    told = pd.read_csv(table, skipinitialspace=True).set_index("name")
    rows = rows_of(source)
    assert len(rows) == len(told)
    for row in rows:
        of_it = told.loc[Path(row["source"]).stem]
        assert source.card.classes[row["label"]] == of_it["grade (GlaS)"]
        assert row["group"] == f"glas:{of_it['patient ID']}"


def test_the_challenge_s_own_parts_of_glas_are_a_split_by_image(converted: Get) -> None:
    made = planned("glas", converted("glas").source, split="paper")
    sets = Counter((Path(row.files[0]).name.partition("_")[0], row.split) for row in made.rows)
    assert {part for part, split in sets if split == "test"} == {"testA", "testB"}
    assert {split for part, split in sets if part == "train"} == {"train", "val"}


def test_glands_of_glas_are_kept_as_they_are_numbered(converted: Get, tmp_path: Path) -> None:
    source = converted("glas")
    masks, fields = with_targets(source)
    drawn = {path.stem: np.asarray(Image.open(path)) for path in unpacked(source.source, tmp_path).rglob("*_anno.bmp")}
    assert len(fields) == len(drawn) == 18
    for key, of_it in fields.items():
        mask = drawn[f"{of_it['picture']}_anno"]
        assert (masks[key] == (mask > 0)).all()
        assert sorted(of_it["boxes"]) == sorted([*box_of(mask == number), 0] for number in range(1, mask.max() + 1))


def test_an_image_of_glas_without_a_line_in_the_table_is_refused(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("glas"), tmp_path), tmp_path / "unpacked")
    (table,) = folder.rglob("Grade.csv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("train_2,")))
    with pytest.raises(SourceError, match=r"train_2\.bmp: the table has no row for this image"):
        planned("glas", folder)


# --- Lizard

KINDS = ["background", "neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective"]


def lizard(folder: Path) -> dict[str, Any]:
    """Region -> the number of the kind of each pixel, 0 outside nuclei, by SciPy."""
    kinds = {}
    for path in folder.rglob("*.mat"):
        of_it = scipy.io.loadmat(path)
        kind_of = dict(zip(of_it["id"].ravel().tolist(), of_it["class"].ravel().tolist(), strict=True))
        kinds[path.stem] = np.vectorize(lambda number, of=kind_of: of.get(number, 0))(of_it["inst_map"])
    return kinds


def test_nuclei_of_lizard_have_the_kinds_that_scipy_reads(converted: Get, tmp_path: Path) -> None:
    source = converted("lizard")
    kinds = lizard(unpacked(source.source, tmp_path))
    wanted = {}
    for name, kind in kinds.items():
        for y in range(0, 129, 32):
            for x in range(0, 129, 32):
                middle = np.bincount(kind[y + 60 : y + 68, x + 60 : x + 68].ravel(), minlength=7)[1:]
                if middle.max() > 32:
                    wanted[name, x, y] = KINDS[1 + middle.argmax()]
    del kinds["dpath_58"]
    wanted = {place: kind for place, kind in wanted.items() if place[0] in kinds}
    rows = rows_of(source)
    assert wanted == {(Path(row["source"]).stem, row["x"], row["y"]): source.card.classes[row["label"]] for row in rows}
    assert len(wanted) == 8 * 25


def test_masks_and_points_of_lizard_are_those_of_its_nuclei(converted: Get, tmp_path: Path) -> None:
    source = converted("lizard")
    masks, fields = with_targets(source)
    folder = unpacked(source.source, tmp_path)
    kinds = lizard(folder)
    for key in [*fields][::23]:
        of_it = fields[key]
        x, y = of_it["x"], of_it["y"]
        assert (masks[key] == kinds[of_it["picture"]][y : y + 128, x : x + 128]).all()
        (path,) = folder.rglob(f"{of_it['picture']}.mat")
        told = scipy.io.loadmat(path)
        centres, numbers = told["centroid"] + 0.5, told["class"].ravel()  # of 19 px about the middle of a pixel
        inside = ((centres >= (x, y)) & (centres < (x + 128, y + 128))).all(1)
        truth = [[*(at - (x, y)), kind - 1] for at, kind in zip(centres[inside], numbers[inside], strict=True)]
        assert sorted(of_it["points"]) == sorted(truth)


def test_regions_of_one_slide_of_lizard_are_one_group_and_folds_are_the_sets(converted: Get) -> None:
    rows = rows_of(converted("lizard"))
    groups = {Path(row["source"]).stem: (row["group"], row["split"]) for row in rows}
    assert groups == {
        "consep_1": ("lizard:consep_1", "test"),
        "pannuke_2": ("lizard:pannuke_2", "test"),
        "glas_6": ("lizard:glas_6", "train"),
        "crag_64": ("lizard:crag_64", "val"),
        "dpath_4": ("lizard:2019-07501", "train"),
        "dpath_34": ("lizard:2019-07501", "train"),
        "dpath_6": ("lizard:2019-06-10 23_05_58", "val"),
        "dpath_48": ("lizard:18-13347A", "test"),
    }


def test_two_folds_of_one_slide_of_lizard_are_refused_without_the_erratum(converted: Get) -> None:
    with pytest.raises(SourceError, match="18-13347A"):
        planned("lizard", converted("lizard").source, errata="none")


def test_a_nucleus_of_lizard_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("lizard"), tmp_path), tmp_path / "unpacked")
    (path,) = folder.rglob("crag_64.mat")
    told = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    scipy.io.savemat(path, told | {"id": told["id"][1:], "class": told["class"][1:]}, do_compression=True)
    with pytest.raises(SourceError, match=r"crag_64\.mat: `inst_map` holds a nucleus that `id` does not list"):
        planned("lizard", folder)


# --- BCSS

GROUPED = {
    "tumor": {1, 19, 20},
    "stroma": {2},
    "inflammatory": {3, 10, 11},
    "necrosis": {4},
    "other": {5, 6, 8, 9, 12, 13, 14, 16, 17, 18, 21},
}


def bcss(folder: Path) -> dict[str, Any]:
    """Region -> the values of its mask, by Pillow."""
    return {path.stem: np.asarray(Image.open(path)) for path in folder.rglob("masks/*.png")}


def test_patches_of_bcss_bear_the_class_of_more_than_half_of_their_mask(converted: Get) -> None:
    source = converted("bcss")
    wanted = {}
    for name, mask in bcss(source.source).items():
        for y, x in ((y, x) for y in range(0, mask.shape[0] - 447, 448) for x in range(0, mask.shape[1] - 447, 448)):
            part = mask[y : y + 448, x : x + 448]
            share = {label: np.isin(part, list(values)).mean() for label, values in GROUPED.items()}
            if max(share.values()) > 0.5:
                wanted[name, x, y] = max(share, key=lambda label, of=share: of[label])
    rows = rows_of(source)
    found = {(Path(row["source"]).stem, row["x"], row["y"]): source.card.classes[row["label"]] for row in rows}
    assert found == wanted
    assert {row["stored_width"] for row in rows} == {224}
    assert Counter(wanted.values())["other"] == 6  # five regions' own, and one of more blood than necrosis


def test_hospitals_of_the_publication_are_the_test_set_of_bcss(converted: Get) -> None:
    rows = rows_of(converted("bcss"))
    assert {row["group"][10:12] for row in rows if row["split"] == "test"} == {"E2", "GM"}
    assert {row["split"] for row in rows if row["group"][10:12] not in {"E2", "GM"}} == {"train", "val"}
    assert all(row["group"] == f"tcga:{Path(row['source']).name[:12]}" for row in rows)


def test_a_pixel_of_a_mask_of_bcss_is_what_most_of_its_four_are(converted: Get, tmp_path: Path) -> None:
    source = converted("bcss")
    masks, fields = with_targets(source)
    drawn = bcss(source.source)
    for key, of_it in fields.items():
        part = drawn[of_it["picture"]][of_it["y"] : of_it["y"] + 448, of_it["x"] : of_it["x"] + 448]
        of_class = np.full(part.shape, 255)
        for number, values in enumerate(GROUPED.values()):
            of_class[np.isin(part, list(values))] = number
        assert (masks[key] == of_class[::2, ::2]).all()  # the borders of the fake lie on even pixels
    assert {*np.unique(np.stack([*masks.values()]))} == {0, 1, 2, 3, 4, 255}


def test_files_of_bcss_at_another_resolution_are_not_read(tmp_path: Path) -> None:
    folder = draw_fake(find("bcss"), tmp_path)
    for path in folder.rglob("TCGA-*.png"):
        path.rename(path.with_name(path.name.replace("0.2500", "0.2300")))
    with pytest.raises(SourceError, match=r"images of regions at 0\.25 um per pixel"):
        planned("bcss", folder)


# --- TIGER


def tiger(folder: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The unpacked source, and (folder/region) -> the values of its mask, by Pillow."""
    out = unpacked(folder, tmp_path) / "roi-level-annotations"
    return out, {f"{path.parts[-3]}/{path.stem}": np.asarray(Image.open(path)) for path in out.rglob("masks/*.png")}


def test_patches_of_tiger_bear_the_class_of_more_than_half_of_their_mask(converted: Get, tmp_path: Path) -> None:
    source = converted("tiger-rois")
    wanted = {}
    for name, mask in tiger(source.source, tmp_path)[1].items():
        for y, x in ((y, x) for y in range(0, mask.shape[0] - 127, 128) for x in range(0, mask.shape[1] - 127, 128)):
            counts = np.bincount(mask[y : y + 128, x : x + 128].ravel(), minlength=8)[1:]
            if counts.max() > 128 * 64:
                wanted[name, x, y] = source.card.classes[counts.argmax()]
    rows = rows_of(source)
    found = {
        ("/".join((Path(row["source"]).parts[-3], Path(row["source"]).stem)), row["x"], row["y"]): source.card.classes[
            row["label"]
        ]
        for row in rows
    }
    assert found == wanted
    assert 60 < len(wanted) < 8 * 13


def test_groups_of_tiger_are_patients_of_tcga_and_slides_of_the_others(converted: Get) -> None:
    groups = {row["group"] for row in rows_of(converted("tiger-rois"))}
    assert {group for group in groups if "TCGA" not in group} == {
        "tcga:100B",
        "tcga:114S",
        "tcga:TC_S01_P000003_C0001_B101",
    }
    assert all(len(group) == len("tcga:TCGA-A2-A0CM") for group in groups if "TCGA" in group)


def test_cells_of_tiger_are_the_centres_of_the_boxes_of_its_coco_file(converted: Get, tmp_path: Path) -> None:
    source = converted("tiger-rois")
    masks, fields = with_targets(source)
    folder, drawn = tiger(source.source, tmp_path)
    told = json.loads((folder / "tissue-cells/tiger-coco.json").read_text())
    file_of = {image["id"]: Path(image["file_name"]).stem for image in told["images"]}
    boxes = pd.DataFrame(
        [[file_of[of_it["image_id"]], *of_it["bbox"]] for of_it in told["annotations"]], columns=[*"fxywh"]
    ).set_index("f")
    for key, of_it in fields.items():
        file = Path(of_it["files"][0])
        x, y = of_it["x"], of_it["y"]
        cells = boxes.loc[file.stem] if file.parts[-3] == "tissue-cells" else boxes[:0]
        centres = (cells[["x", "y"]].to_numpy() + cells[["w", "h"]].to_numpy() / 2 - (x, y)).tolist()
        assert of_it["points"] == [[*at, 0] for at in centres if min(at) >= 0 and max(at) < 128]
        values = drawn["/".join((file.parts[-3], file.stem))][y : y + 128, x : x + 128].astype(int)
        assert (masks[key] == np.where(values == 0, 255, values - 1)).all()
    assert sum(len(of_it["points"]) for of_it in fields.values()) >= 10


def test_tiger_without_its_list_of_cells_converts_without_points_only(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("tiger-rois"), tmp_path), tmp_path / "unpacked")
    (listing,) = folder.rglob("tiger-coco.json")
    listing.unlink()
    assert planned("tiger-rois", folder).rows
    with pytest.raises(SourceError, match=r"no list of cells.*convert without --dense"):
        planned("tiger-rois", folder, dense=True)


def test_images_that_the_list_of_tiger_s_cells_lacks_are_reported(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("tiger-rois"), tmp_path), tmp_path / "unpacked")
    (listing,) = folder.rglob("tiger-coco.json")
    told = json.loads(listing.read_text())
    gone = told["images"].pop()["id"]
    told["annotations"] = [of_it for of_it in told["annotations"] if of_it["image_id"] != gone]
    listing.write_text(json.dumps(told))
    made = planned("tiger-rois", folder, dense=True)
    assert [note for note in made.notes if "1 image that" in note and "tiger-coco.json does not list" in note]


# --- MIDOG++


def midogpp(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of the release's list, with the centres of their boxes; and its table of cases."""
    told = json.loads((folder / "databases/MIDOG++.json").read_text())
    corners = np.array([of_it["bbox"] for of_it in told["annotations"]])
    cells = pd.DataFrame(told["annotations"]).assign(
        x=corners[:, [0, 2]].mean(1), y=corners[:, [1, 3]].mean(1), corners=corners.tolist()
    )
    return cells, pd.read_csv(folder / "datasets_xvalidation.csv", sep=";").set_index("Slide")


def test_a_sample_of_midogpp_is_a_square_around_a_cell_and_has_its_label(converted: Get) -> None:
    source = converted("midogpp")
    cells, table = midogpp(source.source)
    rows = {int(row["key"].rpartition("_")[2]): row for row in rows_of(source)}
    assert rows.keys() == {*cells["id"]}
    for of_it in cells.itertuples():
        row = rows[of_it.id]
        with tifffile.TiffFile(source.source / row["source"]) as tiff:
            height, width = tiff.pages.first.shape[:2]
        assert row["source"] == f"images/{of_it.image_id:03}.tiff"
        assert source.card.classes[row["label"]] == {1: "mitotic figure", 2: "not mitotic figure"}[of_it.category_id]
        assert abs(row["x"] - np.clip(of_it.x - 32, 0, width - 64)) <= 0.5
        assert abs(row["y"] - np.clip(of_it.y - 32, 0, height - 64)) <= 0.5
        assert (row["split"] == "test") == (table.loc[of_it.image_id, "Dataset"] == "test")
        assert row["group"] == f"midogpp:{of_it.image_id:03}"


def test_pixels_of_midogpp_come_from_all_forms_of_its_files(converted: Get) -> None:
    """RGBA and RGB of one page, and a pyramid in LZW: tifffile's first page, without alpha, is the truth."""
    source = converted("midogpp")
    images = stored(source.folder)
    for row in rows_of(source):
        page = tifffile.imread(source.source / row["source"], key=0)[..., :3]
        crop = page[row["y"] : row["y"] + 64, row["x"] : row["x"] + 64]
        assert (np.asarray(Image.open(io.BytesIO(images[row["key"]]["png"]))) == crop).all()
    fields = [json.loads(parts["json"]) for parts in images.values()]
    assert {(of_it["picture"] == "505", of_it["mpp_stored"]) for of_it in fields} == {(False, 0.25), (True, 0.23)}
    assert {of_it["attributes"]["scanner"] for of_it in fields} == {"Hamamatsu XR"}


def test_points_and_boxes_of_midogpp_are_those_inside_each_square(converted: Get, tmp_path: Path) -> None:
    source = converted("midogpp")
    cells, _ = midogpp(source.source)
    _, fields = with_targets(source)
    for of_it in fields.values():
        corner = np.array([of_it["x"], of_it["y"]])
        here = cells[cells["image_id"] == int(of_it["picture"])]
        at = here[["x", "y"]].to_numpy() - corner
        here, at = here[((at >= 0) & (at < 64)).all(1)], at[((at >= 0) & (at < 64)).all(1)]
        mitoses = at[(here["category_id"] == 1).to_numpy()].tolist()
        assert sorted(of_it["points"]) == sorted([*xy, 0] for xy in mitoses)
        boxes = np.array(here["corners"].tolist()).reshape(-1, 2, 2) - corner
        clipped = boxes.clip(0, 64).reshape(-1, 4).tolist()
        classes = (2 - here["category_id"]).tolist()
        width = 260 + int(of_it["picture"]) % 7  # where the image ends, so do boxes
        assert sorted(of_it["boxes"]) == sorted(
            [*box[:2], min(box[2], width - of_it["x"]), box[3], c] for box, c in zip(clipped, classes, strict=True)
        )


def test_images_without_a_line_in_midogpp_s_table_are_left_out_and_reported(converted: Get) -> None:
    notes = "; ".join(converted("midogpp").card.notes)
    assert "left out: 1 image without a row in the table, the first images/151.tiff" in notes


# --- PUMA


def puma(folder: Path, what: str) -> dict[str, list[tuple[Any, str]]]:
    """Region -> its outlines of tissue or nuclei and their names, by the standard library and Shapely."""
    return {
        path.stem.removesuffix(f"_{what}"): [
            (shapely.geometry.shape(of_it["geometry"]), of_it["properties"]["classification"]["name"])
            for of_it in json.loads(path.read_text())["features"]
        ]
        for path in folder.rglob(f"*_{what}.geojson")
    }


def test_patches_of_puma_bear_the_tissue_of_most_of_their_middle(converted: Get, tmp_path: Path) -> None:
    source = converted("puma")
    wanted = {}
    for name, tissue in puma(unpacked(source.source, tmp_path), "tissue").items():
        for y, x in ((y, x) for y in (0, 128, 256) for x in (0, 128, 256)):
            middle = shapely.box(x + 96, y + 96, x + 160, y + 160)
            shares: Counter[str] = Counter()
            for area, label in tissue:
                shares[label] += area.intersection(middle).area / 64**2
            label, most = shares.most_common(1)[0]
            if most > 0.5 and label != "tissue_white_background":
                wanted[name, x, y] = label.removeprefix("tissue_").replace("_", " ")
    rows = rows_of(source)
    found = {(Path(row["source"]).stem, row["x"], row["y"]): source.card.classes[row["label"]] for row in rows}
    assert found == wanted
    assert len(wanted) == 8 * 9 - 11  # of which the middle is white


def test_masks_and_points_of_puma_are_its_outlines(converted: Get, tmp_path: Path) -> None:
    source = converted("puma")
    masks, fields = with_targets(source)
    folder = unpacked(source.source, tmp_path)
    tissue, nuclei = puma(folder, "tissue"), puma(folder, "nuclei")
    dense = source.manifest.dense
    assert dense is not None
    assert dense.seg is not None
    assert dense.points is not None
    for key in [*fields][::5]:
        of_it = fields[key]
        x, y, name = of_it["x"], of_it["y"], of_it["picture"]
        mask = np.full((512, 512), 255)
        for area, label in tissue[name]:  # of the fake: squares on whole pixels that do not overlap
            for left, top, right, bottom in (map(int, part.bounds) for part in shapely.get_parts(area)):
                number = dense.seg.classes.index(label.removeprefix("tissue_").replace("_", " "))
                mask[top:bottom, left:right] = number
        assert (masks[key] == mask[y : y + 256, x : x + 256]).all()
        here = [(area.centroid.x - x, area.centroid.y - y, label) for area, label in nuclei[name]]
        assert sorted(of_it["points"]) == sorted(
            [left, top, dense.points.classes.index(label.removeprefix("nuclei_").replace("_", " "))]
            for left, top, label in here
            if min(left, top) >= 0 and max(left, top) < 256
        )


def test_an_unknown_tissue_of_puma_is_refused(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("puma"), tmp_path), tmp_path / "unpacked")
    path = next(folder.rglob("*primary_roi_002_tissue.geojson"))
    path.write_text(path.read_text().replace("tissue_stroma", "tissue_muscle"))
    with pytest.raises(SourceError, match="tissue_muscle"):
        planned("puma", folder)


def test_nuclei_of_puma_are_needed_for_targets_only(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("puma"), tmp_path), tmp_path / "unpacked")
    for path in folder.rglob("*_nuclei.geojson"):
        path.unlink()
    assert planned("puma", folder).rows
    with pytest.raises(SourceError, match=r"roi_\d+\.tif: no outlines of nuclei.*convert without --dense"):
        planned("puma", folder, dense=True)


def test_the_region_of_puma_that_old_versions_have_wrong_can_be_left_out(converted: Get) -> None:
    found = {errata: planned("puma", converted("puma").source, errata=errata) for errata in ("default", "roi-103")}
    regions = {errata: {row.source_image for row in made.rows} for errata, made in found.items()}
    assert regions["default"] - regions["roi-103"] == {"training_set_metastatic_roi_103"}
