"""The sets of the benchmark kaiko-eva, against its own statement of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dpconvert.errors import ManifestError
from dpconvert.manifest.catalog import find
from dpconvert.manifest.model import Manifest
from dpconvert.plan import plan, plan_rows
from dpconvert.plan.options import Options
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Answer, Converted

VAL_RANGES = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))  # kaiko-eva 0.4.5, bach.py


def test_the_patients_of_bach_are_eva_s_ranges_of_its_sorted_files() -> None:
    manifest = find("bach18-micro")
    files = sorted(
        f"Photos/{label}/{letters}{number:03}.tif"
        for label, letters in (("Benign", "b"), ("InSitu", "is"), ("Invasive", "iv"), ("Normal", "n"))
        for number in range(1, 101)
    )
    theirs = {Path(name).stem for first, end in VAL_RANGES for name in files[first:end]}
    patient_of = {photo: patient for patient, photos in manifest.layout["patients"].items() for photo in photos}
    named = manifest.policy("eva").named()
    ours = {photo for photo in (Path(name).stem for name in files) if named.get(patient_of.get(photo, photo)) == "val"}
    assert ours == theirs
    assert len(ours) == manifest.under("eva").expected.eva["val"] == 132


def test_eva_s_bach_is_whole_photos_and_another_task(converted: Callable[[str], Converted]) -> None:
    manifest, rows = planned(find("bach18-micro"), converted("bach18-micro").source)
    assert (manifest.task, manifest.related[-1]) == ("BACH18Photos", find("bach18-micro").task)
    assert [row.box for row in rows] == [None] * 20
    val = {row.source_image for row in rows if row.split == "val"}
    assert val == {"b042", "b052", "is040", "is055", "is056", "is057", "iv041", "iv053", "n046", "n050", "n058"}


def test_eva_s_breakhis_is_four_types_at_40x_by_patient_with_letters(
    converted: Callable[[str], Converted], tmp_path: Path
) -> None:
    source = shutil.copytree(converted("breakhis").source, tmp_path / "source")
    renamed(source, "F_14-14134E", "F-14-14134E", "18842D")
    renamed(source, "DC_14-2523", "DC-14-2523", "18842")
    manifest, rows = planned(find("breakhis"), source)
    assert manifest.task == "BreakHisTypes"
    assert {row.attributes["magnification"] for row in rows} == {"40X"}
    assert {(row.group, row.split) for row in rows if "18842" in row.group} == {
        ("breakhis:14-18842D", "val"),
        ("breakhis:14-18842", "train"),
    }
    made = Counter((manifest.classes[row.label], row.split) for row in rows)
    assert made == {
        ("TA", "train"): 2,
        ("MC", "train"): 1,
        ("F", "train"): 2,
        ("F", "val"): 1,
        ("DC", "train"): 3,
    }


def test_eva_s_breakhis_has_its_patients_with_letters() -> None:
    named = find("breakhis").policy("eva").named()
    assert len(named) == 14
    assert set(named.values()) == {"val"}
    assert "14-16184CD" in named


def test_both_tasks_of_a_source_convert_side_by_side(
    converted: Callable[[str], Converted], dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    source = converted("mhist").source
    for split in ("strict", "eva"):
        answer = dpconvert("mhist", "--source", source, "--out", tmp_path / split, "--split", split, "--workers", 1)
        assert answer.code == 0, answer.err
    answer = dpconvert("check", "nct-crc-he", "--source", converted("nct-crc-he").source, "--split", "eva")
    assert "val" in answer.out


def test_a_source_without_eva_s_sets_says_which_it_has(
    converted: Callable[[str], Converted], dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = dpconvert(
        "umcm-colorectal", "--source", converted("umcm-colorectal").source, "--out", tmp_path, "--split", "eva"
    )
    assert answer.code != 0
    assert "no split policy 'eva'" in answer.err


def planned(manifest: Manifest, source: Path) -> tuple[Manifest, list[plan_rows.PlanRow]]:
    """The manifest under eva's split, and the rows of its plan."""
    options = Options(split="eva")
    manifest = options.applied_to(manifest)
    made = plan.make(Source.open(source, manifest), options, 1, Reporter(quiet=True))
    return manifest, made.rows


def renamed(source: Path, folder: str, name: str, slide: str) -> None:
    """Give a slide of BreaKHis another number, in the names of its folder and files."""
    (found,) = source.rglob(f"SOB_?_{folder}")
    for file in [*found.rglob("*.png")]:
        file.rename(file.with_name(file.name.replace(name, f"{name.rsplit('-', 1)[0]}-{slide}")))
    found.rename(found.with_name(found.name.replace(folder, f"{folder.rsplit('-', 1)[0]}-{slide}")))


def test_changes_of_a_split_that_do_not_fit_together_are_an_error_of_the_manifest(tmp_path: Path) -> None:
    text = 'task = "Own"\nshape = "folders"\nclasses = ["a", "b"]\n[files.images]\npattern = "(?P<class>[ab])/.*png"\n'
    path = tmp_path / "own.toml"
    path.write_text(text + '[split.strict]\n[split.eva]\n[split.eva.changes]\nclasses = ["a", "a"]\n')
    with pytest.raises(ManifestError, match="a class is named twice"):
        find(str(path))


def test_a_split_may_change_the_classes_of_a_manifest_of_one_s_own(
    dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    for label in "abc":
        for number in range(3):
            (tmp_path / "source" / label).mkdir(parents=True, exist_ok=True)
            grey = Image.new("L", (8, 8), 20 * number + 60 * "abc".index(label))
            grey.save(tmp_path / "source" / label / f"{label}{number}.png")
    (tmp_path / "own.toml").write_text("""
        task = "Own"
        shape = "folders"
        [split.strict]
        [split.eva]
        val = ["a/a0.png", "c/c1.png"]
        [split.eva.changes]
        task = "OwnTwo"
        classes = ["rest", "c"]
        layout = {labels = {a = "rest", b = "rest", c = "c"}}
    """)
    options = ("--source", tmp_path / "source", "--out", tmp_path / "shards", "--split", "eva", "--json")
    card = json.loads(dpconvert(tmp_path / "own.toml", *options).out)
    assert (card["task"], card["classes"], card["related"]) == ("OwnTwo", ["rest", "c"], ["Own"])
    counts = {split: of["classes"] for split, of in card["splits"].items()}
    assert counts == {"train": [5, 2], "val": [1, 1]}
