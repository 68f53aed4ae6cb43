"""What lies in a source twice, in an archive and beside it, in two archives, or in a folder and a copy of it."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpconvert.card import TaskCard
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import run

FOLDERS = 'task = "Mine"\nshape = "folders"\n'
NAMES = [f"{label}/{number}.png" for label in ("benign", "malignant") for number in range(6)]


def noise(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FILES = {name: noise(seed) for seed, name in enumerate(NAMES)}


def folder(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def zipped(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def tarred(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def converted(tmp_path: Path, manifest: str = FOLDERS) -> tuple[TaskCard, list[str]]:
    """The card and the files of the samples."""
    (tmp_path / "my.toml").write_text(manifest)
    card = run(with_defaults(load(tmp_path / "my.toml")), tmp_path / "source", tmp_path / "out")
    return card, sorted(row["source"] for row in read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist())


def told(card: TaskCard) -> list[str]:
    return [note for note in card.notes if "twice" in note or "equal" in note]


LAYOUTS = {
    "an archive and its files elsewhere": lambda root: (zipped(root / "data.zip", FILES), folder(root / "x/y", FILES)),
    "a tar and its files elsewhere": lambda root: (tarred(root / "data.tar", FILES), folder(root / "x", FILES)),
    "one archive under two names": lambda root: (zipped(root / "a.zip", FILES), zipped(root / "b/a (1).zip", FILES)),
    "a zip and a tar": lambda root: (zipped(root / "a.zip", FILES), tarred(root / "b.tar", FILES)),
    "an archive with a folder of its own": lambda root: (
        zipped(root / "a.zip", {f"deep/er/{name}": data for name, data in FILES.items()}),
        folder(root / "x", FILES),
    ),
    "a folder and its copy": lambda root: (folder(root / "data", FILES), folder(root / "data copy", FILES)),
    "a folder in itself": lambda root: (folder(root / "data", FILES), folder(root / "data/data", FILES)),
    "three": lambda root: (zipped(root / "a.zip", FILES), tarred(root / "b.tar", FILES), folder(root / "c", FILES)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_that_lies_twice_is_one_sample(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path / "source")
    card, files = converted(tmp_path)
    assert len(files) == 12
    assert len({name.rpartition("/")[0].rpartition("/")[2] + name.rpartition("/")[2] for name in files}) == 12
    assert told(card)
    assert re.search(r"(12|24) files lie here twice", told(card)[0])


def test_files_of_their_own_are_read_before_those_of_archives(tmp_path: Path) -> None:
    zipped(tmp_path / "source/data.zip", FILES)
    folder(tmp_path / "source/x", FILES)
    card, files = converted(tmp_path)
    assert files == sorted(f"x/{name}" for name in NAMES)
    assert told(card) == [
        "12 files lie here twice, and are read once: those in data.zip are those in x; the first: "
        "data.zip/benign/0.png is x/benign/0.png"
    ]


def test_of_an_archive_of_which_a_part_is_unpacked_the_rest_is_read(tmp_path: Path) -> None:
    zipped(tmp_path / "source/data.zip", FILES)
    folder(tmp_path / "source/x", {name: FILES[name] for name in NAMES[:8]})
    _, files = converted(tmp_path)
    assert files == sorted([f"x/{name}" for name in NAMES[:8]] + [f"data.zip/{name}" for name in NAMES[8:]])


def test_files_of_equal_names_and_sizes_but_other_content_are_no_copies(tmp_path: Path) -> None:
    bitmaps = {name: uncompressed(seed) for seed, name in enumerate(NAMES)}
    others = {name: uncompressed(seed + 50) for seed, name in enumerate(NAMES)}
    zipped(tmp_path / "source/a.zip", {name.replace("png", "bmp"): data for name, data in bitmaps.items()})
    folder(tmp_path / "source/b", {name.replace("png", "bmp"): data for name, data in others.items()})
    card, files = converted(tmp_path)
    assert len(files) == 24
    assert not told(card)


def uncompressed(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "BMP")
    return file.getvalue()


def test_equal_images_of_two_patients_are_both_read(tmp_path: Path) -> None:
    """Blank tiles lie at the same place of two slides, and empty masks bear the names of other images' masks."""
    blank = noise(99)
    for patient in ("p1", "p2"):
        tiles = {f"{patient}/benign/{n}.png": noise(n + 10 * (patient == "p2")) for n in range(5)}
        folder(tmp_path / "source", tiles | {f"{patient}/malignant/9.png": blank})
    card, files = converted(tmp_path)
    assert len(files) == 12
    assert not told(card)


def test_a_mask_that_equals_another_images_is_no_copy(tmp_path: Path) -> None:
    empty = io.BytesIO()
    Image.new("L", (8, 8)).save(empty, "PNG")
    for at, part in enumerate(("train", "test")):
        images = {f"images/{n}.png": noise(10 * at + n) for n in range(3)}
        zipped(tmp_path / f"source/{part}.zip", images | {f"masks/{n}.png": empty.getvalue() for n in range(3)})
    folders = FOLDERS + "[files.images]\npattern = '(?P<class>images|masks)/\\w+\\.png'\n"
    card, files = converted(tmp_path, folders)
    assert len(files) == 12
    assert not told(card)


def test_a_copy_in_another_set_or_class_is_kept_and_named(tmp_path: Path) -> None:
    files = {f"benign/{n}.png": noise(n) for n in range(4)} | {f"malignant/{n}.png": noise(n + 9) for n in range(4)}
    zipped(tmp_path / "source/train.zip", files)
    zipped(tmp_path / "source/test.zip", files)
    manifest = FOLDERS + "[files.images]\npattern = '(?P<split>train|test).zip/(?P<class>\\w+)/\\w+\\.png'\n"
    card, read = converted(tmp_path, manifest + "[split.strict]\nofficial = true\n")
    assert len(read) == 16
    assert told(card) == [
        "8 pairs of equal files, in archives too, of one name but of another class, group or split; all are read; "
        "the first: test.zip/benign/0.png and train.zip/benign/0.png"
    ]


def test_a_copy_that_no_pattern_matches_leaves_the_other_alone(tmp_path: Path) -> None:
    zipped(tmp_path / "source/data.zip", FILES)
    folder(tmp_path / "source/x", FILES)
    _, files = converted(tmp_path, FOLDERS + "[files.images]\npattern = '^data.zip/(?P<class>\\w+)/\\w+\\.png'\n")
    assert files == sorted(f"data.zip/{name}" for name in NAMES)


def test_the_digest_of_a_source_does_not_depend_on_copies_being_there(tmp_path: Path) -> None:
    folder(tmp_path / "source/x", FILES)
    first, _ = converted(tmp_path)
    shutil.rmtree(tmp_path / "out")
    zipped(tmp_path / "source/z.zip", FILES)
    second, _ = converted(tmp_path)
    assert second.digest == first.digest


def test_large_files_are_compared_in_parts_and_with_archives_as_a_whole(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    changed = large.copy()
    changed[200, 0] ^= 1  # in none of the parts
    for name, pixels in (("p/benign/1.bmp", large), ("q/benign/1.bmp", changed), ("q/benign/2.bmp", large)):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "source" / name)
    zipped(tmp_path / "source/a.zip", {"benign/1.bmp": (tmp_path / "source/p/benign/1.bmp").read_bytes()})
    _, files = converted(tmp_path)
    assert files == ["p/benign/1.bmp", "q/benign/1.bmp", "q/benign/2.bmp"]
