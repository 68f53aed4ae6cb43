"""A user's own data: a manifest and files in, shards out, by the command line."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpconvert import card as cards
from tests.dpconvert.conftest import Answer, Workplace

Make = Callable[..., list[dict[str, Any]]]
HEAD = 'task = "Mine"\nclasses = ["no", "yes"]\n'


def draw_image(path: Path, size: tuple[int, int] = (20, 20), value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


@pytest.fixture
def make(tmp_path: Path, workplace: Workplace) -> Make:
    """`make(text, *options)` writes my.toml, converts what is in tmp_path/source, and gives the rows of the index."""

    def made(text: str, *options: object, fails: bool = False) -> Any:
        if fails:
            return workplace.refusal(HEAD + text, *options)
        rows = workplace.convert(HEAD + text, *options)
        return sorted(rows, key=lambda row: (row["source"], row["y"], row["x"], row["key"]))

    return made


def groups(rows: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    """Group -> its sets."""
    homes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        homes[row["group"]].add(row["split"])
    return dict(homes)


def splits(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {row["source"]: row["split"] for row in rows}


# --- one folder per class


def test_folders_give_one_sample_a_file_labelled_by_its_folder(make: Make, tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "source" / ("yes" if number % 3 else "no") / f"{number}.{'png' if number % 2 else 'jpg'}")
    rows = make('shape = "folders"\n')
    assert [(row["source"], row["label"], row["format"]) for row in rows] == [
        ("no/0.jpg", 0, "jpg"),
        ("no/3.png", 0, "png"),
        ("yes/1.png", 1, "png"),
        ("yes/2.jpg", 1, "jpg"),
        ("yes/4.jpg", 1, "jpg"),
        ("yes/5.png", 1, "png"),
    ]
    assert len(groups(rows)) == 6
    assert rows[0]["group"] == "my:no/0.jpg"


def test_a_manifest_of_one_s_own_may_be_called_as_a_known_source(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    """Its shape reads it, and not the module of that source."""
    for number in range(4):
        draw_image(tmp_path / "source" / ("yes" if number % 2 else "no") / f"{number}.png", value=number)
    (tmp_path / "warwick-crc.toml").write_text(HEAD + 'shape = "folders"\n')
    given = tmp_path / "warwick-crc.toml", "--source", tmp_path / "source", "--out", tmp_path / "out", "-q"
    assert "Mine: 4 samples" in dpconvert(*given, "--workers", 1).out


def test_whole_png_and_jpeg_files_keep_their_bytes_and_others_become_png(make: Make, tmp_path: Path) -> None:
    for name in ("no/0.png", "yes/1.jpg", "no/2.bmp", "yes/3.tif"):
        draw_image(tmp_path / "source" / name)
    rows = {row["source"]: row for row in make('shape = "folders"\n')}
    for name in ("no/0.png", "yes/1.jpg"):
        shard = (tmp_path / "out" / "Mine" / rows[name]["shard"]).read_bytes()
        start = rows[name]["offset"]
        assert shard[start : start + rows[name]["length"]] == (tmp_path / "source" / name).read_bytes()
    assert (rows["no/2.bmp"]["format"], rows["yes/3.tif"]["format"]) == ("png", "png")
    again = {row["source"]: row["format"] for row in make('shape = "folders"\n', "--image-format", "jpeg")}
    assert again == {"no/0.png": "png", "yes/1.jpg": "jpg", "no/2.bmp": "jpg", "yes/3.tif": "jpg"}


def test_a_group_from_a_pattern_is_never_divided(make: Make, tmp_path: Path) -> None:
    for number in range(40):
        draw_image(tmp_path / "source" / ("yes" if number % 2 else "no") / f"p{number // 4}_{number}.png")
    rows = make(
        'shape = "folders"\n[group]\nkind = "patient"\nnamespace = "lab"\n[files.images]\n'
        "pattern = '(?P<class>\\w+)/(?P<group>p\\d+)_\\d+\\.png$'\n[split.strict]\nshare = [0.6, 0.2, 0.2]\n"
    )
    homes = groups(rows)
    assert homes.keys() == {f"lab:p{n}" for n in range(10)}
    assert sorted(len(of) for of in homes.values()) == [1] * 10
    assert {split: sum(of == {split} for of in homes.values()) for split in ("train", "val", "test")} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }


def test_sets_in_the_path_are_kept_where_the_policy_takes_them(make: Make, tmp_path: Path) -> None:
    names = ("train/no/0.png", "train/yes/1.png", "val/no/2.png", "val/yes/3.png", "test/no/4.png", "test/yes/5.png")
    for name in names:
        draw_image(tmp_path / "source" / name)
    rows = make('shape = "folders"\n[split.strict]\nofficial = true\n')
    assert splits(rows) == {name: name.partition("/")[0] for name in names}


HALVES = """shape = "folders"
[files.images]
pattern = '(?P<split>HE-100K|VAL-7K)/(?P<class>no|yes)/(?P<name>[^/]+)[.]png$'
[layout.splits]
"HE-100K" = "train"
"VAL-7K" = "test"
[split.strict]
official = true
val = 0.5
"""


def test_sets_are_called_what_the_manifest_says(make: Make, tmp_path: Path) -> None:
    for number in range(4):
        for label in ("no", "yes"):
            draw_image(tmp_path / "source" / "HE-100K" / label / f"{label}{number}.png")
            draw_image(tmp_path / "source" / "VAL-7K" / label / f"{label}v{number}.png")
    rows = make(HALVES)
    assert {row["split"] for row in rows if "VAL-7K" in row["source"]} == {"test"}
    assert Counter(row["split"] for row in rows if "HE-100K" in row["source"]) == {"train": 4, "val": 4}


def test_sets_that_are_named_and_not_used_are_reported(make: Make, tmp_path: Path) -> None:
    for number in range(4):
        for label in ("no", "yes"):
            draw_image(tmp_path / "source" / "HE-100K" / label / f"{label}{number}.png")
    make(HALVES.replace("official = true\nval = 0.5", "share = [0.5, 0, 0.5]"))
    card = json.loads((tmp_path / "out" / "Mine" / "task.json").read_text())
    [note] = [note for note in card["notes"] if "official" in note]
    assert "`official = true` under [split.strict] keeps to them" in note


def test_a_set_that_nothing_names_is_reported_with_what_to_say(make: Make, tmp_path: Path) -> None:
    draw_image(tmp_path / "source" / "VAL-7K" / "no" / "a.png")
    told = make(HALVES.replace('"VAL-7K" = "test"\n', ""), fails=True)
    assert "unknown split; expected train, val or test or HE-100K; found 'VAL-7K'" in told
    assert 'splits = {"VAL-7K" = "train"}' in told


def test_labels_are_mapped_and_zip_archives_read_in_place(make: Make, tmp_path: Path) -> None:
    import zipfile

    for name in ("0/a.png", "1/b.png"):
        draw_image(tmp_path / name)
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source" / "tiles.zip", "w") as archive:
        for name in ("0/a.png", "1/b.png"):
            archive.write(tmp_path / name, name)
    rows = make('shape = "folders"\n[layout.labels]\n0 = "no"\n1 = "yes"\n')
    assert [(row["source"], row["label"]) for row in rows] == [("tiles.zip/0/a.png", 0), ("tiles.zip/1/b.png", 1)]


# --- a table of files and labels


TABLE = 'shape = "table"\n[layout]\nfile = "{slide}/{uid:0>3}.png"\nlabel = "kind"\ngroup = "slide"\n'


def test_a_table_names_images_labels_groups_and_sets(make: Make, tmp_path: Path) -> None:
    for name in ("s1/001", "s1/002", "s2/001", "s3/010"):
        draw_image(tmp_path / "source" / "pictures" / f"{name}.png")
    (tmp_path / "source" / "labels.csv").write_text(
        "slide;uid;kind;set\ns1;1;A;train\ns1;2;B;train\ns2;1;B;validation\ns3;10;A;Test\ns9;9;dropped;train\n"
    )
    rows = make(
        TABLE + 'split = "set"\nskip = ["dropped"]\nlabels = {A = "no", B = "yes"}\n[split.strict]\nofficial = true\n'
    )
    assert [(row["source"], row["label"], row["group"], row["split"]) for row in rows] == [
        ("pictures/s1/001.png", 0, "my:s1", "train"),
        ("pictures/s1/002.png", 1, "my:s1", "train"),
        ("pictures/s2/001.png", 1, "my:s2", "val"),
        ("pictures/s3/010.png", 0, "my:s3", "test"),
    ]


def test_a_table_s_own_name_and_those_of_images_tell_sets_and_groups(make: Make, tmp_path: Path) -> None:
    for name in ("p1_a", "p1_b", "p2_a", "p3_a"):
        draw_image(tmp_path / "source" / f"{name}.png")
    (tmp_path / "source" / "learn.csv").write_text("image,kind\np1_a,no\np1_b,yes\np2_a,yes\n")
    (tmp_path / "source" / "test.csv").write_text("image,kind\np3_a,no\n")
    text = """shape = "table"
[files.table]
pattern = '(?P<split>learn|test)[.]csv$'
[files.images]
pattern = '(?P<group>p[0-9])_[ab][.]png$'
[layout]
file = "{image}.png"
label = "kind"
splits = {learn = "train"}
[split.strict]
official = true
"""
    rows = make(text)
    assert [(row["source"], row["group"], row["split"]) for row in rows] == [
        ("p1_a.png", "my:p1", "train"),
        ("p1_b.png", "my:p1", "train"),
        ("p2_a.png", "my:p2", "train"),
        ("p3_a.png", "my:p3", "test"),
    ]


def test_faults_of_a_table_are_reported_with_their_line(make: Make, tmp_path: Path) -> None:
    draw_image(tmp_path / "source" / "s1" / "001.png")
    table = tmp_path / "source" / "labels.csv"
    table.write_text("slide,uid,kind\ns1,1,no\ns1,2,yes\n")
    assert "labels.csv, line 3: no image of this name; expected s1/002.png" in str(make(TABLE, fails=True))
    table.write_text("slide,uid,kind\ns1,1,maybe\n")
    assert "labels.csv, line 2: label not in `layout.labels`; expected 'no'; found 'maybe'" in str(
        make(TABLE + 'labels = {no = "no"}\n', fails=True)
    )
    table.write_text("slide,uid\ns1,1\n")
    assert "labels.csv, line 2: no column 'kind'; found slide, uid" in str(make(TABLE, fails=True))
    draw_image(tmp_path / "source" / "copy" / "s1" / "001.png")
    table.write_text("slide,uid,kind\ns1,1,no\n")
    assert "several images of this name" in str(make(TABLE, fails=True))


def test_rows_without_an_image_are_counted_where_that_is_allowed(make: Make, tmp_path: Path) -> None:
    for number in (1, 2):
        draw_image(tmp_path / "source" / "s1" / f"00{number}.png")
    (tmp_path / "source" / "labels.csv").write_text("slide,uid,kind\ns1,1,no\ns1,2,yes\ns1,3,yes\n")
    assert len(make(TABLE + "missing = true\n")) == 2
    notes = cards.load(tmp_path / "out" / "Mine").notes
    assert "1 row of labels.csv without an image here" in notes


# --- points on images


POINTS = 'shape = "points"\n[files.images]\npattern = "(?P<name>(?P<group>[a-z])\\\\d)\\\\.png$"\n'
PRESENCE = '[rule]\ntype = "presence"\nsize = 10\npositive = ["m"]\n'


def test_points_beside_images(make: Make, tmp_path: Path) -> None:
    for name in ("a1", "a2", "b1"):
        draw_image(tmp_path / "source" / f"{name}.png")
    (tmp_path / "source" / "a1.csv").write_text("5,5,m\n10,15,m\n15,15,other\n")
    (tmp_path / "source" / "b1.csv").write_text("")
    rows = make(POINTS + '[layout]\nmissing = "none"\n' + PRESENCE)
    assert {(r["source"], r["x"], r["y"]) for r in rows if r["label"]} == {("a1.png", 0, 0)}
    assert len(rows) == 12
    assert all(len(of) == 1 for of in groups(rows).values())
    assert groups(rows).keys() == {"my:a", "my:b"}
    (tmp_path / "source" / "z9.csv").write_text("5,5,m\n")
    assert {row["source"] for row in make(POINTS + "[layout]\nmissing = true\n" + PRESENCE)} == {"a1.png", "b1.png"}
    notes = cards.load(tmp_path / "out" / "Mine").notes
    assert "left out: 1 image without files of points, the first a2.png" in notes
    assert "not used: z9.csv, one of the files of points, of no image here" in notes
    assert "a2.png: no files of points for this image" in str(make(POINTS + PRESENCE, fails=True))


def test_labels_of_points_are_mapped(make: Make, tmp_path: Path) -> None:
    for name in ("a1", "b1", "c1"):
        draw_image(tmp_path / "source" / f"{name}.png")
        (tmp_path / "source" / f"{name}.txt").write_text("head\n5 5 1\n15 15 2\n")
    layout = '[layout]\ndelimiter = ""\nskip = 1\nlabels = {1 = "m", 2 = "other"}\n'
    assert {(r["x"], r["y"]) for r in make(POINTS + layout + PRESENCE) if r["label"]} == {(0, 0)}
    told = make(POINTS + layout.replace(', 2 = "other"', "") + PRESENCE, fails=True)
    assert "a1.txt: label '2' is not in `layout.labels`" in str(told)


# --- masks beside images


def test_masks_beside_images(make: Make, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw_image(tmp_path / "source" / "images" / f"{name}.png")
        mask = np.zeros((20, 20), np.uint8)
        mask[:10, :10] = 255
        (tmp_path / "source" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "source" / "masks" / f"{name}_mask.png")
    masks = 'shape = "masks"\n[layout]\nvalues = {0 = "glass", 255 = "tumour"}\n'
    rule = '[rule]\ntype = "area"\nsize = 10\nshare = 0.5\npositive = ["tumour"]\n'
    rows = make(masks + rule)
    assert len(rows) == 12
    assert {(r["x"], r["y"]) for r in rows if r["label"]} == {(0, 0)}
    (tmp_path / "source" / "masks" / "c_mask.png").unlink()
    assert "images/c.png: no masks for this image" in str(make(masks + rule, fails=True))


# --- a module of one's own


@pytest.mark.parametrize("folder", ["{}/plugins", "plugins", "./plugins/", "plugins/../plugins"])
def test_a_source_of_one_s_own_is_found_on_the_path(
    folder: str, dpconvert: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder.format(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "my-lab.toml").write_text('task = "Lab"\n[files.images]\npattern = "\\\\.png$"\n')
    (tmp_path / "plugins" / "my_lab.py").write_text(
        "from dpconvert.source.record import SourceImage\n"
        "def images(source):\n"
        "    for found in source.need('images'):\n"
        "        yield SourceImage(found.name[:-4], (found.name,), found.name, label=str(found.name < 'c'))\n"
    )
    for name in "abcd":
        draw_image(tmp_path / "source" / f"{name}.png")
    monkeypatch.setenv("DPCONVERT_PATH", folder)
    monkeypatch.chdir(tmp_path)
    assert "my-lab" in dpconvert("list").out
    answer = dpconvert("mylab", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1, "--json")
    assert (answer.code, json.loads(answer.out)["classes"]) == (0, ["False", "True"])


READ = """
import dpconvert.plugin
def images(source):
    for found in source.need("images"):
        yield dpconvert.plugin.SourceImage(found.name[:-4], (found.name,), found.name, label=found["class"])
"""


def test_a_manifest_names_the_reader_of_another_source(make: Make, tmp_path: Path) -> None:
    for name in ("no/one", "no/two", "yes/three", "yes/four"):
        draw_image(tmp_path / "source" / f"{name}.png")
    text = """reader = "nct-crc-he"\n[files.images]\npattern = '(?P<class>no|yes)/(?P<name>(?P<group>[a-z]+)).png$'\n"""
    rows = make(text)
    assert {(row["source"], row["label"], row["group"]) for row in rows} == {
        ("no/one.png", 0, "my:one"),
        ("no/two.png", 0, "my:two"),
        ("yes/three.png", 1, "my:three"),
        ("yes/four.png", 1, "my:four"),
    }
    told = make(text + '[rule]\ntype = "centre"\nsize = 10\npositive = ["yes"]\n', fails=True)
    assert "needs annotations, which the reader 'nct-crc-he' does not read" in told


def test_sources_of_one_s_own_share_a_reader(
    dpconvert: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "our_layout.py").write_text(READ)
    for name in ("lab-a", "lab-b"):
        files = "[files.images]\npattern = '(?P<class>[ab])[12].png$'\n"
        (tmp_path / "plugins" / f"{name}.toml").write_text(f'task = "{name}"\nreader = "our-layout"\n{files}')
    for name in ("a1", "a2", "b1", "b2"):
        draw_image(tmp_path / "source" / f"{name}.png")
    monkeypatch.setenv("DPCONVERT_PATH", str(tmp_path / "plugins"))
    for name in ("lab-a", "lab-b"):
        answer = dpconvert(name, "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1, "--json")
        assert (answer.code, json.loads(answer.out)["classes"]) == (0, ["a", "b"])


def test_a_module_of_ones_own_without_images_is_refused(
    dpconvert: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_c.py").write_text("def image(source): ...\n")
    (tmp_path / "lab-c.toml").write_text("task = 'C'\nclasses = ['a']\n[files.images]\npattern = 'png$'\n")
    monkeypatch.setenv("DPCONVERT_PATH", str(tmp_path))
    draw_image(tmp_path / "source" / "a.png")
    answer = dpconvert("lab-c", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 1
    assert answer.err.startswith(f"dpconvert: error: {tmp_path}/lab_c.py: the module of this source has no function")
