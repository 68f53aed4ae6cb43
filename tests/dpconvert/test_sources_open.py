"""The open sources: what their layouts decide, and what their manifests say of each other."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find, known, load
from dpconvert.manifest.model import Manifest
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.plan.split import set_by_name
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Converted

Get = Callable[[str], Converted]
TCGA = re.compile(r"tcga:TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")


def planned(name: str, folder: Path, **options: Any) -> Plan:
    manifest = find(name)
    chosen = Options.model_validate(options)
    return plan.make(Source.open(folder, manifest), chosen, 1, Reporter(quiet=True))


def rows_of(converted: Converted) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_index(converted.folder / "index.parquet").to_pylist()
    return rows


def manifests() -> dict[str, Manifest]:
    """Task -> manifest of every known source."""
    return {(manifest := load(path)).task: manifest for path in known().values()}


def test_related_tasks_name_each_other() -> None:
    every = manifests()
    one_way = [
        (task, other)
        for task, manifest in every.items()
        for other in manifest.related
        if other not in every or task not in every[other].related
    ]
    assert one_way == []


def test_counts_of_classes_and_sets_add_up_to_the_totals() -> None:
    for manifest in manifests().values():
        expected = manifest.expected
        if expected.classes is not None and expected.total is not None:
            assert sum(expected.classes) == expected.total, manifest.name
            assert len(expected.classes) == len(manifest.classes), manifest.name
        for sets in (expected.strict, expected.paper):
            if len(sets) == 3 and expected.total is not None and manifest.paper is None:
                assert sum(sets.values()) == expected.total, manifest.name


@pytest.mark.parametrize("name", ["nct-crc-he", "nct-crc-he-nonorm"])
def test_the_tiles_of_other_patients_are_the_test_set_and_the_rest_is_divided(name: str, converted: Get) -> None:
    folders = {(row["source"].split("/")[0], row["split"]) for row in rows_of(converted(name))}
    train = "NCT-CRC-HE-100K" + "-NONORM" * name.endswith("nonorm")
    assert folders == {(train, "train"), (train, "val"), ("CRC-VAL-HE-7K.zip", "test")}


def test_a_tile_is_in_one_set_whether_its_colours_are_normalized_or_not() -> None:
    """By the tile's name alone: what the two manifests say decides, whatever files there are."""
    one, other = find("nct-crc-he"), find("nct-crc-he-nonorm")
    assert one.namespace == other.namespace
    for policy in (one.policy("strict"), other.policy("strict")):
        assert (policy.draw, policy.validation, policy.official) == ("hashed", 0.1, True)
    share = {"train": 0.9, "val": 0.1}
    homes = Counter(set_by_name(f"ADI-{n:08}", share, one.namespace) for n in range(1000))  # type: ignore[arg-type]
    assert 60 < homes["val"] < 140


def test_the_normalized_archive_is_not_taken_for_the_other(tmp_path: Path) -> None:
    source = draw_fake(find("nct-crc-he-nonorm"), tmp_path)
    assert {row.split for row in planned("nct-crc-he", source).rows} == {"test"}


def test_centres_of_tolkach_are_sets(converted: Get) -> None:
    homes = {(re.search(r"VALSET\d_\w+", row["source"])[0], row["split"]) for row in rows_of(converted("tolkach-esca"))}  # type: ignore[index]
    assert homes == {
        ("VALSET1_UKK", "val"),
        ("VALSET2_WNS", "train"),
        ("VALSET3_TCGA", "train"),
        ("VALSET4_CHA_FULL", "test"),
    }


@pytest.mark.parametrize("name", ["tcga-ut", "tcga-tils", "tcga-crc-msi"])
def test_groups_of_tcga_are_patients(name: str, converted: Get) -> None:
    assert all(TCGA.fullmatch(row["group"]) for row in rows_of(converted(name)))


def test_patients_that_tasks_of_tcga_draw_by_name_are_in_one_set_of_all() -> None:
    drawn = [m for m in manifests().values() if m.namespace == "tcga" and m.policy("strict").draw == "hashed"]
    assert len(drawn) >= 2
    assert {m.policy("strict").share for m in drawn} == {(65, 15, 20)}


def test_tiles_of_ccrcc_go_by_their_hospital(converted: Get) -> None:
    for row in rows_of(converted("ccrcc-tissue")):
        assert (row["split"] == "test") == ("FIMM" in row["source"])
    groups = {row["group"] for row in rows_of(converted("ccrcc-tissue")) if row["split"] == "test"}
    assert groups == {"tcga:FIMM6_13_ML141210", "tcga:FIMM6_14_ML141211"}


def test_tils_are_drawn_by_patient_and_the_release_s_sets_are_there_too(converted: Get) -> None:
    made = planned("tcga-tils", converted("tcga-tils").source, split="paper")
    assert all(f"/{row.split}/" in row.files[0] for row in made.rows)
    assert not [row for row in made.rows if "pancancer" in row.files[0]]


def test_hidden_files_are_no_cells(converted: Get) -> None:
    assert {row["source"].rpartition("/")[2][0] for row in rows_of(converted("pbc-acevedo"))} >= {"B", "N"}
    assert not [row for row in rows_of(converted("pbc-acevedo")) if "/.DS_" in row["source"]]


def test_leucocytes_with_an_alpha_channel_become_rgb(converted: Get) -> None:
    of_source = converted("aml-cytomorphology-lmu")
    row = rows_of(of_source)[0]
    with (of_source.folder / row["shard"]).open("rb") as file:
        file.seek(row["offset"])
        stored = np.asarray(Image.open(io.BytesIO(file.read(row["length"]))))
    original = np.asarray(Image.open(of_source.source / row["source"]))
    assert original.shape[2] == 4
    assert (stored == original[..., :3]).all()


def test_slides_of_polyps_are_not_divided_and_both_tables_are_read(converted: Get) -> None:
    rows = rows_of(converted("unitopatho"))
    assert Counter(row["split"] for row in rows)["test"] == 6
    assert {row["group"] for row in rows if "57-B2-HP" in row["source"]} == {"unitopatho:57-B2-HP"}


def test_skin_is_divided_as_its_table_says(converted: Get) -> None:
    for row in rows_of(converted("skin-kriegsmann")):
        slide = int(re.search(r"_ws_(\d+)_", row["source"])[1])  # type: ignore[index]
        assert row["split"] == {40: "train", 41: "val", 42: "test"}[slide]


def test_grades_of_sicap_come_from_its_workbooks(converted: Get, tmp_path: Path) -> None:
    """What pandas reads of the same workbooks decides."""
    made = converted("sicapv2")
    tables = {
        path.relative_to(made.source / "SICAPv2/partition").as_posix(): pd.read_excel(path)
        for path in (made.source / "SICAPv2/partition").rglob("*.xlsx")
    }
    patients = pd.read_excel(made.source / "SICAPv2/wsi_labels.xlsx").set_index("slide_id")["patient_id"]
    sets = {"test": "Test/Test.xlsx", "val": "Validation/Val1/Test.xlsx", "train": "Validation/Val1/Train.xlsx"}
    wanted = {
        (row["image_name"], split, row[["NC", "G3", "G4", "G5"]].astype(int).idxmax())
        for split, name in sets.items()
        for _, row in tables[name].iterrows()
    }
    rows = rows_of(made)
    found = {(row["source"].rpartition("/")[2], row["split"], made.card.classes[row["label"]]) for row in rows}
    assert found == wanted
    for row in rows:
        slide = row["source"].rpartition("/")[2].partition("_Block_")[0]
        assert row["group"] == f"sicapv2:patient {patients[slide]}"


def test_a_patch_of_two_grades_is_refused_by_its_line(tmp_path: Path) -> None:
    source = draw_fake(find("sicapv2"), tmp_path)
    table = source / "SICAPv2/partition/Test/Test.xlsx"
    frame = pd.read_excel(table)
    frame.loc[2, "NC"], frame.loc[2, "G3"] = 1, 1
    frame.to_excel(table, index=False)
    with pytest.raises(SourceError, match=r"partition/Test/Test\.xlsx, line 4: not exactly one grade"):
        planned("sicapv2", source)


def test_patches_of_gleason_bear_the_only_grade_of_their_middle(converted: Get) -> None:
    """The authors' rule, in NumPy on the palette's indices: 750 px every 375 px, the middle of 250 px."""
    made = converted("gleason-arvaniti")
    wanted: dict[tuple[str, int, int], int] = {}
    for path in made.source.rglob("mask*.png"):
        with Image.open(path) as opened:
            assert opened.mode == "P"
            mask = np.asarray(opened)
        name = re.sub(r"^mask1?_", "", path.stem)
        for y in range(0, 751, 375):
            for x in range(0, 751, 375):
                grades = [int(g) for g in np.unique(mask[y + 250 : y + 500, x + 250 : x + 500]) if g < 4]
                if len(grades) == 1:
                    wanted[name, x, y] = grades[0]
    found = {(Path(row["source"]).stem, row["x"], row["y"]): row["label"] for row in rows_of(made)}
    assert found == wanted
    assert 0 < len(wanted) < 8 * 9
    assert {(row["source"][:4], row["split"]) for row in rows_of(made)} == {
        ("ZT11", "train"),
        ("ZT19", "train"),
        ("ZT76", "val"),
        ("ZT80", "test"),
    }
    assert "left out: 1 image without masks" in "; ".join(made.card.notes)
