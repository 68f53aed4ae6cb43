"""Open sources with masks, outlines, points or boxes: what other libraries read in the fakes' own files decides."""

from __future__ import annotations

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
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan import Plan
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.tar import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Converted, run
from tests.dpconvert.test_dense import masks_of, stored

Get = Callable[[str], Converted]


def planned(name: str, folder: Path, **options: Any) -> Plan:
    manifest = find(name)
    chosen = Options.model_validate(options)
    kept = chosen.with_targets(manifest)
    return plan.make(kept, Source.open(folder, kept), chosen, 1, Reporter(quiet=True))


def rows_of(converted: Converted) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_index(converted.folder / "index.parquet").to_pylist()
    return rows


def with_targets(source: Converted, tmp_path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Key -> mask, and key -> fields, of the fake converted with its dense targets."""
    folder = tmp_path / run(source.manifest, source.source, tmp_path, dense=True).task
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
    masks, fields = with_targets(source, tmp_path / "shards")
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
    with pytest.raises(SourceError, match=r"train_2\.bmp: no line of the table is about this image"):
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
    assert wanted == {
        (Path(row["source"]).stem, row["x"], row["y"]): source.card.classes[row["label"]] for row in rows
    }  # fmt: skip
    assert len(wanted) == 8 * 25


def test_masks_and_points_of_lizard_are_those_of_its_nuclei(converted: Get, tmp_path: Path) -> None:
    source = converted("lizard")
    masks, fields = with_targets(source, tmp_path / "shards")
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
        "consep_1": ("lizard:consep_1", "test"), "pannuke_2": ("lizard:pannuke_2", "test"),
        "glas_6": ("lizard:glas_6", "train"), "crag_64": ("lizard:crag_64", "val"),
        "dpath_4": ("lizard:2019-07501", "train"), "dpath_34": ("lizard:2019-07501", "train"),
        "dpath_6": ("lizard:2019-06-10 23_05_58", "val"), "dpath_48": ("lizard:18-13347A", "test"),
    }  # fmt: skip


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
    "tumor": {1, 19, 20}, "stroma": {2}, "inflammatory": {3, 10, 11}, "necrosis": {4},
    "other": {5, 6, 8, 9, 12, 13, 14, 16, 17, 18, 21},
}  # fmt: skip


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
    masks, fields = with_targets(source, tmp_path)
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
    with pytest.raises(SourceError, match="images of regions at 0.25 um per pixel"):
        planned("bcss", folder)


# --- TIGER


def tiger(folder: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The unpacked source, and (folder/region) -> the values of its mask, by Pillow."""
    out = unpacked(folder, tmp_path) / "roi-level-annotations"
    return out, {
        f"{path.parts[-3]}/{path.stem}": np.asarray(Image.open(path)) for path in out.rglob("masks/*.png")
    }  # fmt: skip


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
        "tcga:100B", "tcga:114S", "tcga:TC_S01_P000003_C0001_B101",
    }  # fmt: skip
    assert all(len(group) == len("tcga:TCGA-A2-A0CM") for group in groups if "TCGA" in group)


def test_cells_of_tiger_are_the_centres_of_the_boxes_of_its_coco_file(converted: Get, tmp_path: Path) -> None:
    source = converted("tiger-rois")
    masks, fields = with_targets(source, tmp_path / "shards")
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
        assert of_it["points"] == [[*at, 0] for at in centres if 0 <= min(at) and max(at) < 128]
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


def test_images_that_the_list_of_tiger_s_cells_lacks_are_told(tmp_path: Path) -> None:
    folder = unpacked(draw_fake(find("tiger-rois"), tmp_path), tmp_path / "unpacked")
    (listing,) = folder.rglob("tiger-coco.json")
    told = json.loads(listing.read_text())
    gone = told["images"].pop()["id"]
    told["annotations"] = [of_it for of_it in told["annotations"] if of_it["image_id"] != gone]
    listing.write_text(json.dumps(told))
    made = planned("tiger-rois", folder, dense=True)
    assert [note for note in made.notes if "1 image that" in note and "tiger-coco.json does not list" in note]
