"""Dense targets of the sources that have geometry, on their fakes and on the real files beside the project."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
from PIL import Image

from dpconvert import card as cards
from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find, known
from dpconvert.readers import with_defaults
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import Converted, run
from tests.dpconvert.test_dense import REAL, masks_of, stored

Get = Callable[[str], Converted]
IN_SHORT = {"camelyon16", "glas", "janowczyk1", "janowczyk2", "midogpp", "mitos-atypia14", "pannuke", "warwick-crc"}
WITH_TARGETS = {name for name in known() if find(name).dense is not None}


def kept(source: Converted) -> Path:
    """The folder of the source's fake, converted with its dense targets: once for all processes of a test run."""
    out = source.folder.parent.with_name("dense")
    folder = out / source.card.task
    with locks.held(out.with_name(f"{source.manifest.name}-dense.lock"), wait=math.inf):
        if not (folder / cards.FILE_NAME).exists():
            run(source.manifest, source.source, out, dense=True)
            assert verify(folder, workers=1, report=Reporter(quiet=True))[1] == []
    return folder


def fields_of(folder: Path) -> dict[str, Any]:
    return {key: json.loads(parts["json"]) for key, parts in stored(folder).items()}


def test_sources_with_geometry_state_dense_targets() -> None:
    assert {
        "bcss",
        "breast1",
        "breast2",
        "camelyon16",
        "glas",
        "gleason-arvaniti",
        "ignite",
        "janowczyk1",
        "janowczyk2",
        "janowczyk3",
        "janowczyk5",
        "lizard",
        "lynsec",
        "lynsec-ihc",
        "lynsec-tumour",
        "midogpp",
        "mitos-atypia14",
        "nuinsseg",
        "ocelot-tissue",
        "pannuke",
        "puma",
        "segpath-endothelium",
        "segpath-epithelium",
        "segpath-leukocytes",
        "segpath-lymphocytes",
        "segpath-myeloid-cells",
        "segpath-plasma-cells",
        "segpath-red-blood-cells",
        "segpath-smooth-muscle",
        "tiger-rois",
        "tnbc",
        "tupac16-mitosis",
        "warwick-crc",
    } == WITH_TARGETS
    assert all(find(name).dense.optional for name in WITH_TARGETS)  # type: ignore[union-attr]


def test_the_page_on_masks_names_all_sources_with_them_and_what_they_keep() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "dense-targets.md").read_text()
    section = page.partition("## Known sources")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    named = {name.strip("`"): (masks, others) for names, masks, others in rows for name in names.split(", ")}
    assert named.keys() == WITH_TARGETS
    for name, (masks, others) in named.items():
        dense = find(name).dense
        assert dense is not None
        assert bool(masks) == (dense.seg is not None), name
        assert bool(others) == any((dense.points, dense.boxes, dense.instances)), name
        assert ("instances" in others) == (dense.instances is not None), name
        assert ("boxes" in others) == (dense.boxes is not None), name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.stress) for name in sorted(WITH_TARGETS)],
)
def test_targets_leave_images_labels_and_sets_as_they_are(name: str, converted: Get) -> None:
    source = converted(name)
    plain, dense = stored(source.folder), stored(kept(source))
    assert [*plain] == [*dense]
    for key, parts in plain.items():
        image = next(kind for kind in parts if kind in ("png", "jpg"))
        assert dense[key][image] == parts[image]
        assert dense[key]["cls"] == parts["cls"]
        fields = json.loads(dense[key]["json"])
        assert {k: v for k, v in fields.items() if k not in ("points", "boxes", "instances")} == json.loads(
            parts["json"]
        )


def test_janowczyk2_keeps_the_crops_of_its_masks(converted: Get) -> None:
    source = converted("janowczyk2")
    folder = kept(source)
    masks = masks_of(folder)
    for key, fields in fields_of(folder).items():
        whole = np.asarray(Image.open(source.source / f"epi/masks/{fields['picture']}_mask.png"))
        crop = whole[fields["y"] : fields["y"] + 200, fields["x"] : fields["x"] + 200]
        assert (masks[key] == (crop > 127)).all()
    assert {*np.unique(np.stack([*masks.values()]))} == {0, 1}


def test_janowczyk1_knows_nothing_far_from_outlined_nuclei(converted: Get) -> None:
    source = converted("janowczyk1")
    folder = kept(source)
    masks = masks_of(folder)
    seen: set[int] = set()
    for key, fields in fields_of(folder).items():
        whole = np.asarray(Image.open(source.source / f"nuclei/{fields['picture']}_mask.png")) > 0
        window = np.s_[fields["y"] : fields["y"] + 250, fields["x"] : fields["x"] + 250]
        assert ((masks[key] == 1) == whole[window]).all()
        rows, columns = np.nonzero(whole)
        other = np.argwhere(masks[key] == 0)[::97] + np.array([fields["y"], fields["x"]])
        near = np.array([np.hypot(rows - y, columns - x).min() for y, x in other])
        assert (near <= 10).all()
        seen |= {*np.unique(masks[key]).tolist()}
    assert seen == {0, 1, 255}


def test_camelyon16_outlines_are_drawn_with_their_holes(converted: Get) -> None:
    """The fake's tumour: x 768 to 2304, y 768 to 1536, less a hole, in patches of 768 px stored as 384."""
    folder = kept(converted("camelyon16"))
    masks, fields = masks_of(folder), fields_of(folder)
    by_place = {(f["picture"], f["x"], f["y"]): masks[key] for key, f in fields.items()}
    left, right = by_place["tumor_001", 768, 768], by_place["tumor_001", 1536, 768]
    assert left.shape == (384, 384)
    assert (left[1:] == 1).all()  # the slanted left border leaves half a pixel or less
    hole = np.zeros((384, 384), bool)
    hole[16:216, 32:232] = True  # 1600 to 2000 and 800 to 1200, from 1536 and 768, by two
    assert ((right == 0) == hole).all()
    assert all((mask == 0).all() for (name, _, _), mask in by_place.items() if name.startswith("normal"))


def test_a_camelyon16_slide_that_is_not_annotated_exhaustively_has_no_normal_pixel(
    converted: Get, tmp_path: Path
) -> None:
    """The errata name tumor_010: what is outlined there is tumour, what is not may be tumour, too."""
    source = converted("camelyon16")
    doubtful = source.manifest.model_copy(
        update={
            "errata": [
                e.model_copy(update={"pictures": "^tumor_003$"})
                for e in source.manifest.errata
                if e.drops == "negatives"
            ],
        }
    )
    folder = tmp_path / run(doubtful, source.source, tmp_path, dense=True).task
    masks, fields = masks_of(folder), fields_of(folder)
    values = {
        name: {*np.unique(np.stack([masks[k] for k, f in fields.items() if f["picture"] == name])).tolist()}
        for name in ("tumor_003", "tumor_004")
    }
    assert values == {"tumor_003": {0, 1, 255}, "tumor_004": {0, 1}}  # 0: the hole, which is outlined as such


def test_warwick_keeps_four_kinds_of_nuclei(converted: Get) -> None:
    source = converted("warwick-crc")
    folder = kept(source)
    kinds = ("epithelial", "fibroblast", "inflammatory", "others")
    fields = fields_of(folder)
    for number in (1, 7):
        base = next(source.source.rglob(f"img{number}.bmp")).parent
        for kind, name in enumerate(kinds):
            points = scipy.io.loadmat(base / f"img{number}_{name}.mat")["detection"].reshape(-1, 2)
            found = [
                (f["x"] + x, f["y"] + y)
                for f in fields.values()
                if f["picture"] == f"img{number}"
                for x, y, label in f["points"]
                if label == kind
            ]
            assert np.array(sorted(found)).reshape(-1, 2) == pytest.approx(
                np.array(sorted(points.tolist())).reshape(-1, 2), abs=0.011
            )
    card = cards.load(folder)
    assert card.dense is not None
    assert card.dense.points == cards.PointsCard(classes=[*kinds], radius_um=3, radius_px=6, exhaustive=False)


def test_mitoses_are_points_of_their_patches(converted: Get) -> None:
    """(100, 120) in frame Aa and (170.5, 10) in frame Ac, which stands a row of 165 px lower; two resolutions."""
    folder = kept(converted("mitos-atypia14"))
    fields = fields_of(folder)
    places = {
        (f["picture"], round(f["x"] + x, 2), round(f["y"] + y, 2)) for f in fields.values() for x, y, _ in f["points"]
    }
    assert {place[1:] for place in places if place[0] == "A03_00"} == {(100, 120), (170.5, 175)}
    assert all(f["points"] for f in fields.values() if f["label_name"] == "Mitosis")
    assert not any(f["points"] for f in fields.values() if f["label_name"] != "Mitosis")
    card = cards.load(folder)
    assert card.dense is not None
    assert card.dense.points is not None
    assert (card.dense.points.radius_um, card.dense.points.radius_px) == (8, None)  # two resolutions


@pytest.mark.parametrize("name", ["tupac16-mitosis", "janowczyk5"])
def test_patches_with_a_mitosis_have_its_point(name: str, converted: Get) -> None:
    fields = fields_of(kept(converted(name)))
    positive = [f for f in fields.values() if f["label_name"] == "Mitosis"]
    inside = [any(0 < x < 250 and 0 < y < 250 for x, y, _ in f["points"]) for f in positive]
    assert sum(inside) >= 0.7 * len(inside)  # the others are crops at the border of the image, whose point is on it
    others = [point for f in fields.values() if f["label_name"] != "Mitosis" for point in f["points"]]
    assert all(0 in (x, y) for x, y, _ in others)  # on the border of a patch, which is not inside by the rule


def test_pannuke_keeps_the_kinds_of_its_nuclei(converted: Get) -> None:
    source = converted("pannuke")
    folder = kept(source)
    masks, fields = masks_of(folder), fields_of(folder)
    key = next(key for key, f in fields.items() if f["picture"] == "fold1_1")
    assert {*np.unique(masks[key]).tolist()} == {0, 1}  # background and neoplastic, by the fake
    assert (masks[key] == 1).sum() <= 3 * 64
    for x, y, kind in fields[key]["points"]:
        assert kind == 0
        assert masks[key][int(y), int(x)] == 1
    other = next(key for key, f in fields.items() if f["picture"] == "fold1_0")
    assert {*np.unique(masks[other]).tolist()} == {0, 3}  # connective
    assert {kind for _, _, kind in fields[other]["points"]} == {2}


def test_nuinsseg_knows_nothing_of_vague_areas(converted: Get) -> None:
    """The fake's first image of each organ is vague at the top right: 40 px high, from x = 216."""
    folder = kept(converted("nuinsseg"))
    masks, fields = masks_of(folder), fields_of(folder)
    seen: set[str] = set()
    for key, f in fields.items():
        rows, columns = np.mgrid[f["y"] : f["y"] + 64, f["x"] : f["x"] + 64]
        vague = (rows < 40) & (columns >= 216) & f["picture"].endswith("_01")
        assert ((masks[key] == 255) == vague).all()
        seen |= {f["picture"]} if vague.any() else set()
    assert seen == {"human_bladder_01", "mouse_liver_01"}


def test_numbers_of_other_nuclei_are_refused(converted: Get, tmp_path: Path) -> None:
    source = converted("nuinsseg")
    with zipfile.ZipFile(next(source.source.glob("*.zip"))) as archive:
        archive.extractall(tmp_path / "in")
    folder = tmp_path / "in/human bladder/label masks modify"
    (folder / "human_bladder_01.tif").write_bytes((folder / "human_bladder_02.tif").read_bytes())
    with pytest.raises(SourceError, match=r"its nuclei are not those of the mask.*human_bladder_01.png"):
        run(source.manifest, tmp_path / "in", tmp_path / "out", dense=True)
    (folder / "human_bladder_01.tif").unlink()
    with pytest.raises(SourceError, match="no masks of numbered nuclei for this image"):
        run(source.manifest, tmp_path / "in", tmp_path / "out", dense=True)


def test_connected_areas_of_tnbc_are_its_instances(converted: Get) -> None:
    folder = kept(converted("tnbc"))
    masks = masks_of(folder)
    for key, f in fields_of(folder).items():
        pixels = sum(length for *runs, _ in f["instances"] for length in runs[1::2])
        assert pixels == (masks[key] == 1).sum()
        assert len(f["instances"]) <= scipy.ndimage.label(masks[key] == 1, np.ones((3, 3)))[1]


@pytest.mark.parametrize("name", ["breast1", "breast2"])
def test_carcinoma_of_breast_is_drawn(name: str, converted: Get) -> None:
    folder = kept(converted(name))
    masks, fields = masks_of(folder), fields_of(folder)
    for key, f in fields.items():
        share = (masks[key] == 1).mean()
        if name == "breast2":
            assert (share > 0.1) == (f["label"] == 1)
        else:
            middle = masks[key].shape[0] // 2
            around = masks[key][middle - 1 : middle + 1, middle - 1 : middle + 1]  # the centre is their corner
            assert len(np.unique(around)) == 2 or (around == f["label"]).all()


# --- real files


def real(folder: str) -> Path:
    """A folder of real files beside the project."""
    found = REAL / folder
    if not found.is_dir():
        pytest.skip(f"real data are not beside the project: {found}")
    return found


def test_the_real_points_of_warwick_are_kept(tmp_path: Path) -> None:
    """Image 12: all nuclei of the four tables, as MATLAB's own reader gives them."""
    base = real("warwick_crc")
    source = tmp_path / "source" / "Classification"
    for number in (12, 13, 14):
        folder = next(base.rglob(f"Classification/img{number}"))
        shutil.copytree(folder, source / f"img{number}")
    manifest = with_defaults(find("warwick-crc"))
    card = run(manifest, tmp_path / "source", tmp_path / "out", dense=True)
    fields = fields_of(tmp_path / "out" / card.task)
    kept_points = sorted(
        (round(f["x"] + x, 2), round(f["y"] + y, 2), kind)
        for f in fields.values()
        if f["picture"] == "img12"
        for x, y, kind in f["points"]
    )
    names = ("epithelial", "fibroblast", "inflammatory", "others")
    tables = [scipy.io.loadmat(source / "img12" / f"img12_{name}.mat")["detection"] for name in names]
    told = sorted(
        (round(x, 2), round(y, 2), kind) for kind, t in enumerate(tables) for x, y in t.reshape(-1, 2).tolist()
    )
    assert len(told) > 20
    assert np.array(kept_points) == pytest.approx(np.array(told), abs=0.011)


def test_the_real_mask_of_janowczyk2_is_kept(tmp_path: Path) -> None:
    base = real("janowczyk")
    (image,) = [path for path in base.rglob("*.tif*") if "mask" not in path.name]
    (mask,) = base.rglob("*_mask.png")
    for path in (image, mask):
        shutil.copy(path, tmp_path)
    card = run(with_defaults(find("janowczyk2")), tmp_path, tmp_path / "out", dense=True)
    masks, fields = masks_of(tmp_path / "out" / card.task), fields_of(tmp_path / "out" / card.task)
    whole = np.asarray(Image.open(mask).convert("L")) > 127
    assert len(masks) == 81
    for key, f in fields.items():
        assert (masks[key] == whole[f["y"] : f["y"] + 200, f["x"] : f["x"] + 200]).all()
