"""Files that list the images of each set: read by [files.sets], and drafted by `dpconvert init`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpconvert.readers.layout_keys import SPLIT_NAMES
from dpconvert.readers.set_entries import names_in_lines
from tests.dpconvert.conftest import Answer, Workplace

SETS = {"train": range(5), "val": range(5, 7), "test": range(7, 9)}
EXPECTED = {f"b{n}": split for split, of in SETS.items() for n in of}
MANIFEST = """
task = "Mine"
shape = "folders"
classes = ["a", "b"]

[files.images]
pattern = '^images/(?P<class>[ab])/(?P<name>{name})\\.png$'

[files.sets]
pattern = '{pattern}'

[layout]
{layout}

[split.strict]
official = true
"""


def draw(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / "images" / "ab"[number % 2] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)).save(path)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def listed(line: str) -> dict[str, str]:
    """A text for each set, with a line for each image."""
    return {split: "".join(line.format(n) + "\n" for n in of) for split, of in SETS.items()}


def rows(head: str, line: str, sets: Mapping[str, str] = {s: s for s in SETS}) -> str:
    return f"{head}\n" + "".join(line.format(n, sets[split]) + "\n" for split, of in SETS.items() for n in of)


VOC = {f"ImageSets/Main/{split}.txt": text for split, text in listed("b{}").items()}
MONAI = {
    "dataset.json": json.dumps(
        {"labels": {"0": "a"}, "name": "x"}
        | {
            split: [{"image": f"./images/b{n}.png", "label": n % 2} for n in SETS[own]]
            for split, own in {"training": "train", "validation": "val", "test": "test"}.items()
        }
    )
}
CLAM = {"splits_0.csv": ",train,val,test\n0,b0,b5,b7\n1,b1,b6,b8\n2,b2,,\n3,b3,,\n4,b4,,\n"}
FORMS: dict[str, tuple[dict[str, str], str, str]] = {
    "names": (VOC, r"^ImageSets/Main/(?P<split>train|val|test)\.txt$", ""),
    "names and labels": (
        {f"{split}.txt": text for split, text in listed("images/a/b{}.png 1").items()},
        r"^(?P<split>train|val|test)\.txt$",
        "",
    ),
    "backslashes, case and a mark": (
        {f"{split}.lst": "\ufeff" + text for split, text in listed("D:\\Images\\B{}.PNG").items()},
        r"^(?P<split>train|val|test)\.lst$",
        "",
    ),
    "MONAI": (MONAI, r"^dataset\.json$", ""),
    "a list in JSON": (
        {f"{split}.json": json.dumps([f"b{n}.png" for n in of]) for split, of in SETS.items()},
        r"^(?P<split>train|val|test)\.json$",
        "",
    ),
    "CLAM": (CLAM, r"^splits_0\.csv$", ""),
    "a table without a head": (
        {f"{split}.csv": text for split, text in listed("b{}.png,1").items()},
        r"^(?P<split>train|val|test)\.csv$",
        "",
    ),
    "rows": (
        {"split.csv": rows("Image;Set", "b{};{}", {"train": "Training", "val": "dev", "test": "hold-out"})},
        r"^split\.csv$",
        'sets = {image = "image", split = "Set"}\nsplits = {"hold-out" = "test"}',
    ),
    "numbers of a column with gaps": (
        {"splits_0.csv": ",train,val,test\n0,0,5.0,7.0\n1,1,6.0,8.0\n2,2,,\n3,3,,\n4,4,,\n"},
        r"^splits_0\.csv$",
        "",
    ),
    "an image and its mask": (
        {f"{split}.txt": text for split, text in listed("images/a/b{0}.png masks/{0}_mask.png").items()},
        r"^(?P<split>train|val|test)\.txt$",
        "",
    ),
    "COCO": (
        {
            f"{split}.json": json.dumps(
                {"images": [{"file_name": f"b{n}.png", "id": n} for n in of], "annotations": []}
            )
            for split, of in SETS.items()
        },
        r"^(?P<split>train|val|test)\.json$",
        "",
    ),
    "files beside numbers of rows": (
        {f"{split}.csv": ",number,image\n" + text for split, text in listed("0,1,b{}.png").items()},
        r"^(?P<split>train|val|test)\.csv$",
        "",
    ),
    "rows of one set": (
        {f"{split}.tsv": "id\tfile\n" + text for split, text in listed("9\tb{}.png").items()},
        r"^(?P<split>train|val|test)\.tsv$",
        'sets = {image = "file"}',
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_are_in_the_sets_that_files_list(form: str, workplace: Workplace) -> None:
    files, pattern, layout = FORMS[form]
    draw(workplace.folder / "source", *EXPECTED)
    write(workplace.folder / "source", files)
    name = r"(?P<group>[^/]+)" if form != "numbers of a column with gaps" else r"b(?P<group>\d+)"
    found = workplace.convert(MANIFEST.format(pattern=pattern, layout=layout, name=name))
    assert {row["source"].rpartition("/")[2].removesuffix(".png"): row["split"] for row in found} == EXPECTED


def test_lists_may_name_groups_and_what_is_not_here_is_counted(workplace: Workplace) -> None:
    draw(workplace.folder / "source", *(f"P{n}_{part}" for n in range(9) for part in "xy"))
    lists = {f"{split}.txt": text for split, text in listed("p{}").items()}
    lists["train.txt"] += "p77\np78\n"
    write(workplace.folder / "source", lists)
    pattern, name = r"^(?P<split>train|val|test)\.txt$", r"(?P<group>P\d+)_."
    workplace.convert(MANIFEST.format(pattern=pattern, layout="", name=name))
    card = json.loads((workplace.folder / "out" / "Mine" / "task.json").read_text())
    assert {split: one["samples"] for split, one in card["splits"].items()} == {"train": 10, "val": 4, "test": 4}
    assert "2 names in lists of sets that no image here has, the first 'p77' in train.txt" in card["notes"]


@pytest.mark.parametrize(
    ("files", "pattern", "layout", "told"),
    [
        (VOC | {"ImageSets/Main/val.txt": "b4\nb5\n"}, r"(?P<split>\w+)\.txt$", "", "'b4' is in two sets"),
        (VOC | {"ImageSets/Main/val.txt": "c4\nc5\n"}, r"(?P<split>val)\.txt$", "", "none of the names in these lists"),
        (VOC, r"\w+\.txt$", "", "[files.sets]: nothing says which set ImageSets/Main/test.txt lists; name the set"),
        (VOC, r"^train\.txt$", "", "no matching files here"),
        ({"s.csv": rows("Image,Set", "b{},{}")}, r"^s\.csv$", "", "nothing says which columns of s.csv name the image"),
        (
            {"s.csv": rows("Image,Set", "b{},{}")},
            r"^s\.csv$",
            'sets = {image = "image", split = "part"}',
            "no column 'part', which `sets` in [layout] names",
        ),
        (
            {"s.csv": rows("Image,Set", "b{},{}", {"train": "1", "val": "2", "test": "3"})},
            r"^s\.csv$",
            'sets = {image = "image", split = "set"}',
            "s.csv, line 2: unknown split",
        ),
        (
            {"s.csv": rows("Image,Set", "{},{}")},
            r"^s\.csv$",
            'sets = {image = "image", split = "set"}',
            "no image or group here is called '0', and '000' has no set",
        ),
        (
            {"s.json": '{"fold0": {"train": ["b0"]}}'},
            r"^s\.json$",
            "",
            "which set s.json lists; expected a",
        ),
        ({"s.json": "{"}, r"^s\.json$", "", "s.json: not JSON"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(
    files: dict[str, str], pattern: str, layout: str, told: str, workplace: Workplace
) -> None:
    draw(workplace.folder / "source", *(["000", "001"] if "'000'" in told else EXPECTED))
    write(workplace.folder / "source", files)
    assert told in workplace.refusal(MANIFEST.format(pattern=pattern, layout=layout, name="[^/]+"))


def test_a_name_that_means_several_images_is_refused(workplace: Workplace) -> None:
    draw(workplace.folder / "source", *EXPECTED)
    (workplace.folder / "source" / "images" / "b" / "b0.png").write_bytes(
        (workplace.folder / "source" / "images" / "b" / "b1.png").read_bytes()
    )
    write(workplace.folder / "source", VOC)
    manifest = MANIFEST.format(pattern=r"(?P<split>\w+)\.txt$", layout="", name="[^/]+")
    manifest = manifest.replace("(?P<class>[ab])/(?P<name>[^/]+)", "(?P<name>(?P<class>[ab])/[^/]+)")
    told = "the name 'b0' means several images; found images/a/b0.png and images/b/b0.png"
    assert told in workplace.refusal(manifest)
    write(workplace.folder / "source", {"ImageSets/Main/train.txt": "a/b0\nb/b0\nb1\nb2\nb3\nb4\n"})
    assert len(workplace.convert(manifest)) == 10


def test_names_that_end_in_a_dot_and_letters_are_not_cut_where_they_are_whole(workplace: Workplace) -> None:
    draw(workplace.folder / "source", *EXPECTED, "b0.flip", "b")
    lists = listed("b{}")
    lists["val"] += "b0.flip\n"
    write(workplace.folder / "source", {f"{split}.txt": text for split, text in lists.items()})
    found = workplace.convert(MANIFEST.format(pattern=r"^(?P<split>\w+)\.txt$", layout="", name="[^/]+"))
    sets = {row["source"].rpartition("/")[2].removesuffix(".png"): row["split"] for row in found}
    assert sets == {**EXPECTED, "b0.flip": "val", "b": "train"}


def test_lists_may_name_the_masks(drafted: Callable[[], tuple[Any, Answer]], workplace: Workplace) -> None:
    for number, name in enumerate(EXPECTED):
        mask = np.zeros((12, 12), np.uint8)
        mask[: 3 + number] = 255
        for path, pixels in ((f"images/{name}", np.stack([mask // 3 + number] * 3, -1)), (f"masks/{name}_mask", mask)):
            (workplace.folder / "s" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(workplace.folder / "s" / f"{path}.png")
    write(workplace.folder / "s", {f"{s}.txt": text for s, text in listed("masks/b{0}_mask.png").items()})
    manifest, answer = drafted()
    assert (answer.code, manifest["shape"]) == (0, "masks")
    (workplace.folder / "s").rename(workplace.folder / "source")
    found = workplace.convert((workplace.folder / "my.toml").read_text().replace('task = "S"', 'task = "Mine"'))
    assert {row["source"].rpartition("/")[2].removesuffix(".png"): row["split"] for row in found} == EXPECTED


def test_files_without_a_description_are_called_by_the_name_of_their_table(workplace: Workplace) -> None:
    draw(workplace.folder / "source", *EXPECTED)
    write(workplace.folder / "source", VOC)
    (workplace.folder / "my.toml").write_text(MANIFEST.format(pattern=r"(?P<split>\w+)\.txt$", layout="", name="[^/]+"))
    answer = workplace.dpconvert("check", workplace.folder / "my.toml", "--source", workplace.folder / "source")
    assert re.search(r"^images +9 ", answer.out, re.MULTILINE)
    assert re.search(r"^sets +3 ", answer.out, re.MULTILINE)


def test_columns_without_files_are_said(workplace: Workplace) -> None:
    draw(workplace.folder / "source", *EXPECTED)
    manifest = MANIFEST.format(pattern="", layout='sets = {image = "image"}', name="[^/]+")
    workplace.convert(
        manifest.replace("[files.sets]\npattern = ''\n", "").replace("official = true", "share = [0.6, 0.2, 0.2]")
    )
    card = json.loads((workplace.folder / "out" / "Mine" / "task.json").read_text())
    assert "not used: `sets` under [layout]: no [files.sets] says which files list the sets" in card["notes"]


def test_labels_and_flags_after_a_name_do_not_count() -> None:
    text = 'a 1.png 3\n"b c.jpg"\n000012 -1\n000017  1\nP 7\nx.y.tif,4\nd;1\n'
    assert names_in_lines(text.encode(), "t") == ["a 1.png", "b c.jpg", "000012", "000017", "P 7", "x.y.tif", "d"]


# --- drafts


@pytest.fixture
def drafted(tmp_path: Path, dpconvert: Callable[..., Answer]) -> Callable[[], tuple[Any, Answer]]:
    def made() -> tuple[Any, Answer]:
        answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q")
        return tomllib.loads((tmp_path / "my.toml").read_text()), answer

    return made


@pytest.mark.parametrize("form", ["names", "names and labels", "MONAI", "CLAM"])
def test_lists_are_drafted(form: str, drafted: Callable[[], tuple[Any, Answer]], workplace: Workplace) -> None:
    draw(workplace.folder / "s", *EXPECTED)
    write(workplace.folder / "s", FORMS[form][0])
    manifest, answer = drafted()
    assert (answer.code, manifest["shape"], manifest["split"]["strict"]) == (0, "folders", {"official": True})
    (workplace.folder / "s").rename(workplace.folder / "source")
    found = workplace.convert((workplace.folder / "my.toml").read_text().replace('task = "S"', 'task = "Mine"'))
    assert {row["source"].rpartition("/")[2].removesuffix(".png"): row["split"] for row in found} == EXPECTED


@pytest.mark.parametrize("shape", ["folders", "masks"])
def test_a_table_of_sets_leaves_the_labels_to_folders_or_masks(
    shape: str, drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path
) -> None:
    if shape == "folders":
        draw(tmp_path / "s", *EXPECTED)
    for number, name in enumerate(EXPECTED if shape == "masks" else ()):
        mask = np.zeros((12, 12), np.uint8)
        mask[: 3 + number] = 255
        for path, pixels in (("images", np.stack([mask // 3 + number] * 3, -1)), ("masks", mask)):
            (tmp_path / "s" / path).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "s" / path / f"{name}.png")
    sets = {"train": "train", "val": "valid", "test": "test"}
    write(tmp_path / "s", {"split.csv": rows("image_id,fold_set", "b{},{}", sets)})
    manifest, answer = drafted()
    assert (answer.code, manifest["shape"]) == (0, shape)
    assert manifest["layout"]["sets"] == {"image": "image_id", "split": "fold_set"}
    assert manifest["split"]["strict"] == {"official": True}


@pytest.mark.parametrize(
    "files",
    [
        {f"{split}.txt": text for split, text in listed("P{}").items()},
        {"split.csv": rows("patient,split", "P{},{}")},
        {f"{split}.txt": f"image label\n{text}" for split, text in listed("P{0}_x.v1\nP{0}_y.v1").items()},
    ],
)
def test_lists_of_groups_and_names_with_dots_are_drafted(
    files: dict[str, str], drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path
) -> None:
    draw(tmp_path / "s", *(f"P{n}_{part}.v1" for n in range(9) for part in "xy"))
    write(tmp_path / "s", files)
    manifest, answer = drafted()
    assert answer.code == 0
    assert "sets" in manifest["files"]


def test_a_release_without_a_validation_set_gets_one(drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path) -> None:
    draw(tmp_path / "s", *EXPECTED)
    write(tmp_path / "s", {"train_list.txt": "".join(f"b{n}\n" for n in range(7)), "test_list.txt": "b7\nb8\n"})
    manifest, answer = drafted()
    assert (answer.code, manifest["split"]["strict"]) == (0, {"official": True, "val": 0.15})
    assert manifest["layout"]["splits"] == {"train_list": "train", "test_list": "test"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (VOC | {"ImageSets/Main/val.txt": "b4\nb5\nb6\n"}, "lists of the images of each set, 1 image in several (b4)"),
        (VOC | CLAM, "lists of the images of each set. Which ones count is unclear"),
        (
            {"s.json": json.dumps({"fold0": {"train": ["b0", "b1"], "test": ["b2"]}})},
            "s.json: may say which set each image is in; how to read it is unclear",
        ),
        (
            {f"{split}_{fold}.txt": text for split, text in listed("b{}").items() for fold in range(2)},
            "may say which set each image is in",
        ),
        (
            {f"{split}.csv": f"image\n{text}" for split, text in listed("b{}").items()},
            "may say which set each image is",
        ),
    ],
)
def test_what_is_unclear_of_lists_is_asked(
    files: dict[str, str], told: str, drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path
) -> None:
    draw(tmp_path / "s", *EXPECTED)
    write(tmp_path / "s", files)
    _, answer = drafted()
    assert answer.code == 1
    assert told in answer.out + answer.err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{word}_a_{number}.png", {"train": "train", "test": "test"}),
        ("x/{word}{number}-a.png", {"Train": "train", "Valid": "val", "Test": "test"}),
        ("a_{number}_{word}.png", {"training": "train", "dev": "val", "testing": "test"}),
        ("{word}_{number}_a.png", {"train": "train", "testA": "test", "testB": "test"}),
        ("{number}_{word}.png", {"train": "train", "test": "test"}),
        ("{number}_{word}-a.png", {"train": "train", "test": "test"}),
    ],
)
def test_sets_in_the_names_of_images_are_kept(
    place: str, words: dict[str, str], drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path
) -> None:
    for number, word in enumerate([word for word in words for _ in range(6)]):
        path = tmp_path / "s" / place.format(word=word, number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    manifest, _ = drafted()
    assert manifest["split"]["strict"]["official"] is True
    pattern, renamed = re.compile(manifest["files"]["images"]["pattern"]), manifest.get("layout", {}).get("splits", {})
    for image in (path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*.png")):
        found = pattern.search(image)
        assert found is not None
        word = found["split"]
        assert renamed.get(word, SPLIT_NAMES.get(word.lower())) == words[word]
        assert word in image


def test_images_of_which_only_some_name_their_set_are_asked_about(
    drafted: Callable[[], tuple[Any, Answer]], tmp_path: Path
) -> None:
    draw(tmp_path / "s", *(f"{word}_{number}" for word in ("train", "test") for number in range(4)), "other_1")
    _, answer = drafted()
    assert answer.code == 1
    assert (
        "Some images have the names of sets in theirs (test 4, train 4), which are not kept" in answer.out + answer.err
    )
