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
    return plan.make(manifest, Source.open(folder, manifest), chosen, 1, Reporter(quiet=True))


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
