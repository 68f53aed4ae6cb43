"""Open sources with masks: labels, sets, groups and targets, computed again from the fakes' own files with NumPy."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.dpconvert.conftest import Converted
from tests.dpconvert.test_dense import masks_of, stored
from tests.dpconvert.test_dense_sources import fields_of, kept
from tests.dpconvert.test_sources_open import planned

Get = Callable[[str], Converted]
Place = tuple[str, int, int]


def lynsec_arrays(folder: Path, part: str) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(folder / "lynsec.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith(part)]
        return {Path(name).stem: np.load(io.BytesIO(archive.read(name))) for name in names}


def unmixed(mask: NDArray[Any], size: int, step: int, centre: int) -> dict[tuple[int, int], int]:
    """The corner of each patch whose central square has one value, and that value."""
    height, width = mask.shape
    margin = (size - centre) // 2
    found = {}
    for y in range(0, height - size + 1, step):
        for x in range(0, width - size + 1, step):
            values = np.unique(mask[y + margin : y + margin + centre, x + margin : x + margin + centre])
            if len(values) == 1:
                found[x, y] = int(values[0])
    return found


def labels_of(made: Converted) -> dict[Place, int]:
    return {(f["picture"], f["x"], f["y"]): f["label"] for f in fields_of(made.folder).values()}


def every_place(masks: dict[str, NDArray[Any]], size: int, step: int, centre: int) -> dict[Place, int]:
    of_each = {name: unmixed(mask, size, step, centre) for name, mask in masks.items()}
    return {(name, x, y): value for name, found in of_each.items() for (x, y), value in found.items()}


def test_patches_of_lynsec_are_all_nucleus_or_none_in_their_centre(converted: Get) -> None:
    made = converted("lynsec")
    arrays = lynsec_arrays(made.source, "lynsec 2") | lynsec_arrays(made.source, "lynsec 3")
    assert arrays.pop("3_l2") is not None  # the erratum
    wanted = every_place({name: (array[..., 3] > 0).astype(int) for name, array in arrays.items()}, 64, 32, 8)
    assert labels_of(made) == wanted
    assert set(wanted.values()) == {0, 1}


def test_the_erratum_of_lynsec_can_be_turned_off(converted: Get) -> None:
    rows = planned("lynsec", converted("lynsec").source, errata="none").rows
    assert [row for row in rows if "/3_l2.npy" in row.files[0]]


def test_colours_of_lynsec_are_the_first_three_channels(converted: Get) -> None:
    made = converted("lynsec-ihc")
    arrays = lynsec_arrays(made.source, "lynsec 1")
    for key, parts in stored(made.folder).items():
        f = fields_of(made.folder)[key]
        pixels = np.asarray(Image.open(io.BytesIO(parts["png"])))
        whole = arrays[f["picture"]][..., :3]
        assert (pixels == whole[f["y"] : f["y"] + 64, f["x"] : f["x"] + 64]).all()


@pytest.mark.parametrize(("name", "part"), [("lynsec-tumour", "lynsec 3"), ("lynsec-ihc", "lynsec 1")])
def test_each_nucleus_of_lynsec_bears_its_kind(name: str, part: str, converted: Get) -> None:
    made = converted(name)
    wanted: Counter[Any] = Counter()
    for stem, array in lynsec_arrays(made.source, part).items():
        for number in range(1, 10):
            y, x = np.argwhere(array[..., 3] == number).mean(0)
            kind = int(array[int(y), int(x), 4]) - 1
            left, top = (int(np.clip(np.floor(at + 1) - 32, 0, 192 - 64)) for at in (x, y))
            wanted[stem, left, top, kind] += 1
    assert Counter((*place, label) for place, label in labels_of(made).items()) == wanted


def test_lynsec_keeps_nuclei_as_masks_and_points(converted: Get) -> None:
    folder = kept(converted("lynsec-tumour"))
    arrays = lynsec_arrays(converted("lynsec-tumour").source, "lynsec 3")
    masks, fields = masks_of(folder), fields_of(folder)
    for key, f in fields.items():
        window = np.s_[f["y"] : f["y"] + 64, f["x"] : f["x"] + 64]
        numbers, kinds = arrays[f["picture"]][..., 3][window], arrays[f["picture"]][..., 4][window]
        assert (masks[key] == np.where(numbers > 0, kinds, 0)).all()
        assert all(masks[key][int(y), int(x)] == kind + 1 for x, y, kind in f["points"])
        assert f["points"]


def test_a_nucleus_without_a_kind_is_left_out_and_counted(tmp_path: Path) -> None:
    source = draw_fake(find("lynsec-ihc"), tmp_path)
    with zipfile.ZipFile(source / "lynsec.zip") as archive:
        archive.extractall(source)
    (source / "lynsec.zip").unlink()
    path = source / "lynsec 1/0_l1.npy"
    array = np.load(path)
    array[array[..., 3] == 5, 4] = 0
    np.save(path, array)
    made = planned("lynsec-ihc", source)
    assert len(made.rows) == 6 * 9 - 1
    assert "1 x nucleus without a kind" in "; ".join(made.notes)


def test_patches_of_tubules_bear_the_only_class_of_their_centre(converted: Get) -> None:
    made = converted("janowczyk3")
    masks = {
        path.stem.removesuffix("_anno"): (np.asarray(Image.open(path)) > 0).astype(int)
        for path in made.source.glob("*_anno.bmp")
    }
    assert labels_of(made) == every_place(masks, 128, 64, 32)
    benign = (made.source / "benign.txt").read_text().split()
    for key, f in fields_of(made.folder).items():
        assert f["attributes"]["tissue"] == ("benign" if f"{f['picture']}.bmp" in benign else "malignant"), key
        assert f["group"] == "janowczyk3:" + "-".join(f["picture"].split("-")[:2])


def test_mihic_is_drawn_by_patient_and_its_own_sets_are_there_too(converted: Get) -> None:
    made = converted("mihic")
    for f in fields_of(made.folder).values():
        _, label, name = f["picture"].split("/")
        assert f["label_name"] == label
        assert f["group"] == f"mihic:{name.split('-')[0]}"
        assert f["attributes"]["marker"] in name
    assert {f["attributes"]["marker"] for f in fields_of(made.folder).values()} == {"CD3", "cyclin-D1", "ki67"}
    own = planned("mihic", made.source, split="paper").rows
    assert all(f"/{row.split}/" in row.files[0] for row in own)
    homes = {(row.group, row.split) for row in own}
    assert len(homes) > len({group for group, _ in homes})  # why they are not the default


def ignite_masks(source: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(source / "annotations.zip") as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r".*/he/patient\d+_he_roi\d+\.png", name)]
        return {Path(name).stem: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names}


def test_patches_of_ignite_bear_the_only_tissue_of_their_centre(converted: Get) -> None:
    made = converted("ignite")
    wanted = every_place(ignite_masks(made.source), 256, 128, 64)
    assert labels_of(made) == {place: value - 1 for place, value in wanted.items() if value}
    lines = (made.source / "data_overview.csv").read_text().splitlines()
    table = {Path(row["image_path"]).stem: row for row in csv.DictReader(lines)}
    for f in fields_of(made.folder).values():
        row = table[f["picture"]]
        assert (f["split"] == "test") == (row["split"] == "test")
        assert f["group"] == f"tcga:{row['original_tcga_id'][:12] or f['picture'].split('_')[0]}"
        assert f["attributes"]["source"] == row["source"]


def test_unannotated_tissue_of_ignite_is_unknown_in_masks(converted: Get) -> None:
    made = converted("ignite")
    folder, whole = kept(made), ignite_masks(made.source)
    masks = masks_of(folder)
    for key, f in fields_of(folder).items():
        crop = whole[f["picture"]][f["y"] : f["y"] + 256, f["x"] : f["x"] + 256].astype(int)
        assert (masks[key] == np.where(crop == 0, 255, crop - 1)).all()
    assert 255 in {value for mask in masks.values() for value in np.unique(mask).tolist()}


def test_the_table_of_ignite_may_be_packed(converted: Get, tmp_path: Path) -> None:
    source = draw_fake(find("ignite"), tmp_path)
    table = source / "data_overview.csv"
    table.write_bytes(gzip.compress(table.read_bytes()))
    assert [row.split for row in planned("ignite", source).rows] == [
        row.split for row in planned("ignite", converted("ignite").source).rows
    ]


@pytest.mark.parametrize("name", ["segpath-epithelium", "segpath-lymphocytes", "segpath-red-blood-cells"])
def test_segpath_keeps_its_sets_and_labels_by_the_centre(name: str, converted: Get) -> None:
    made = converted(name)
    masks = {p.name.removesuffix("_mask.png"): np.asarray(Image.open(p)) for p in made.source.rglob("*_mask.png")}
    assert labels_of(made) == every_place(masks, 256, 256, 32)
    table = next(made.source.glob("*_fileinfo.csv"))
    sets = {row["filename"]: row["train_val_test"] for row in csv.DictReader(table.read_text().splitlines())}
    for f in fields_of(made.folder).values():
        assert f["split"] == sets[f"{f['picture']}_HE.png"]
        assert f["group"] == f"{name}:{f['picture'].split('_')[2]}"


def test_a_slide_of_segpath_in_two_sets_is_refused_unless_images_are_divided(tmp_path: Path) -> None:
    source = draw_fake(find("segpath-epithelium"), tmp_path)
    table = source / "panCK_fileinfo.csv"
    lines = table.read_text().splitlines()
    lines[1:3] = [line.replace(",train", ",test") for line in lines[1:3]]  # of an image and its mask
    table.write_text("\n".join([*lines[:-2], ""]))  # and one image in no line
    with pytest.raises(SourceError, match="000: one group in several official sets"):
        planned("segpath-epithelium", source)
    made = planned("segpath-epithelium", source, split="paper")
    assert {row.split for row in made.rows if "_000_000000_" in row.files[0]} == {"test"}
    assert "left out: 1 image in no table" in "; ".join(made.notes)
