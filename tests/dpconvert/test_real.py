"""Real files, against numbers worked out on another way. The files are other people's, and not part of the project."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.io
import shapely
from PIL import Image

from dpconvert.annotations.formats import asap
from dpconvert.manifest.catalog import find
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import run

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real files of ../shared/data are absent"),
]


def test_warwick_patches_are_positive_where_an_inflammatory_nucleus_lies_strictly_inside(tmp_path: Path) -> None:
    card = run(find("warwick-crc"), DATA / "warwick_crc", tmp_path, samples_per_shard=1000)
    rows = read_index(tmp_path / "WarwickCRC" / "index.parquet").to_pylist()
    made = {(Path(row["source"]).stem, row["x"], row["y"]): row["label"] for row in rows}
    assert len(made) == len(rows) == card.samples() == 1000
    assert {(row["width"], row["height"], row["stored_width"]) for row in rows} == {(100, 100, 100)}
    expected = {
        (folder.name, x, y): int(any(x < px < x + 100 and y < py < y + 100 for px, py in inflammatory(folder)))
        for folder in (DATA / "warwick_crc" / "CRCHistoPhenotypes_2016_04_28" / "Classification").iterdir()
        for x in range(0, 500, 100)
        for y in range(0, 500, 100)
    }
    assert made == expected
    assert sum(expected.values()) > 200


def inflammatory(folder: Path) -> list[tuple[float, float]]:
    table = scipy.io.loadmat(str(folder / f"{folder.name}_inflammatory.mat"))["detection"]
    return [(float(x), float(y)) for x, y in table] if table.size else []


@pytest.mark.stress  # tests/dpconvert/test_sources_public.py has the same counts
def test_umcm_colorectal_is_split_as_in_the_paper(tmp_path: Path) -> None:
    blank = tmp_path / "blank.tif"
    Image.new("RGB", (150, 150)).save(blank, compression="packbits")
    names = (DATA / "kather2016" / "original_file_names.txt").read_text().split()
    source = tmp_path / "Kather_texture_2016_image_tiles_5000"
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(blank, source / name)
    manifest = find("umcm-colorectal")
    made = plan.make(Source.open(tmp_path, manifest), Options(), 1, Reporter(quiet=True))
    counts = Counter((row.split, row.label) for row in made.rows)
    assert [counts["test", label] for label in range(8)] == [217, 270, 230, 131, 337, 199, 232, 35]
    assert [counts["train", label] + counts["test", label] for label in range(8)] == [625] * 8
    assert Counter(row.split for row in made.rows) == {"train": 3349, "test": 1651}
    assert {row.group for row in made.rows if row.split == "test"} == {f"umcm-colorectal:{p:02}" for p in (2, 3, 8, 10)}
    patients = Counter(match[1] for name in names if (match := re.search(r"HE-(\d\d)", name)))
    assert sum(patients[p] for p in ("02", "03", "08", "10")) == 1651


@pytest.mark.parametrize("count", [12, pytest.param(24, marks=pytest.mark.stress)])
def test_real_outlines_of_camelyon16_keep_their_areas(count: int) -> None:
    files = sorted((DATA / "camelyon16" / "lesion_annotations").glob("*.xml"), key=lambda path: path.stat().st_size)
    assert len(files) == 24
    remarks: Counter[str] = Counter()
    for path in files[:count]:  # the smallest
        found = asap.read(path.read_bytes(), path.name, ["Tumor", "_0", "_1", "_2"])
        remarks += found.remarks
        np.testing.assert_allclose(
            [item.geometry.area for item in found.items], [area for area in areas(path) if area], rtol=1e-9
        )
        assert all(item.geometry.is_valid for item in found.items)
    assert remarks["degenerate ring dropped"] == (1 if count == 24 else remarks["degenerate ring dropped"])


def areas(path: Path) -> list[float]:
    """Of every ring: by the shoelace formula where it does not cross itself."""
    found = []
    for annotation in ElementTree.parse(path).getroot().iter("Annotation"):
        ring = np.array([(float(c.get("X", "")), float(c.get("Y", ""))) for c in annotation.iter("Coordinate")])
        x, y = ring.T
        if len(ring) < 3:
            found.append(0.0)
        elif shapely.LinearRing(ring).is_simple:
            found.append(abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2)
        else:
            found.append(float(shapely.make_valid(shapely.Polygon(ring)).area))
    return found
