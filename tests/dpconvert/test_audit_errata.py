"""What an audit lists for [[errata]] of a manifest can be pasted there: the next conversion has no such pairs."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dpconvert import card as cards
from tests.dpconvert.conftest import Answer
from tests.dpconvert.test_audit import png, tissue

Call = Callable[..., Answer]
FOLDERS = r"""
task = "Own"
shape = "folders"
classes = ["no", "yes"]
[files.images]
pattern = '^(?P<split>train|val|test)/(?P<class>no|yes)/(?P<name>[^/]+)\.png$'
[split.strict]
official = true
"""
TILES = FOLDERS + "[rule]\ntype = 'tiles'\nsize = 96\n"


def write(root: Path, *samples: tuple[str, int]) -> None:
    """PNG files; the number says what is on them, so that equal numbers are equal images."""
    for name, number in samples:
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(tissue(number)))


def audited(dpconvert: Call, here: Path, manifest: str) -> tuple[Answer, cards.TaskCard]:
    """Convert the folder `source` with the manifest, and audit the task."""
    (here / "own.toml").write_text(manifest)
    out = here / "shards"
    done = dpconvert("own.toml", "--source", here / "source", "--out", out, "--workers", 1, "--quiet", "--overwrite")
    assert done.code == 0, done.err
    answer = dpconvert("audit", out, "--page", here / "audit.html", "--workers", 1, "--quiet")
    return answer, cards.load(out / "Own")


def test_the_pasted_list_leaves_out_what_leaks_and_what_has_two_labels(
    dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "source", ("train/no/a", 1), ("train/no/b", 2), ('train/yes/c "4"', 3), ("train/yes/d", 4))
    write(tmp_path / "source", ("val/no/e", 5), ("val/yes/f", 3), ("test/no/g", 1), ("test/yes/h", 2), ("test/no/i", 6))
    found, before = audited(dpconvert, tmp_path, FOLDERS)
    assert found.code == 1
    assert "samples to leave out, for [[errata]] of the manifests: " in found.out
    entries = (tmp_path / "audit.toml").read_text()
    listed = {entry["name"]: entry["samples"] for entry in tomllib.loads(entries)["errata"]}
    assert listed == {"duplicates": ["a", 'c "4"'], "contradictions": ["b", "h"]}
    assert "# same bytes as g in test, labelled no\n" in entries
    found, after = audited(dpconvert, tmp_path, FOLDERS + entries)
    assert (found.code, after.samples()) == (0, before.samples() - 4)
    assert [after.splits[split].samples for split in cards.SPLITS] == [1, 2, 2]


def test_patches_are_listed_by_their_frame_and_the_rest_of_the_image_stays(
    dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, left, right in (("train/no/a", 1, 2), ("test/no/b", 3, 2), ("train/yes/c", 5, 6), ("test/yes/d", 7, 8)):
        path = tmp_path / "source" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        wide = Image.new("RGB", (192, 96))
        wide.paste(Image.fromarray(tissue(left)), (0, 0))
        wide.paste(Image.fromarray(tissue(right)), (96, 0))
        wide.save(path)
    _, before = audited(dpconvert, tmp_path, TILES)
    entries = (tmp_path / "audit.toml").read_text()
    assert tomllib.loads(entries)["errata"][0]["samples"] == ["a#xywh=96,0,96,96"]
    found, after = audited(dpconvert, tmp_path, TILES + entries)
    assert (found.code, after.samples()) == (0, before.samples() - 1)


def test_entries_of_two_tasks_in_one_manifest_are_applied_to_their_own_and_the_others_reported(
    dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sources have images a and b, of which an audit lists one each."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "one", ("train/no/a", 1), ("train/yes/b", 2), ("test/no/c", 1), ("test/yes/d", 4))
    write(tmp_path / "two", ("train/no/a", 5), ("train/yes/b", 6), ("test/no/c", 7), ("test/yes/d", 6))
    manifests = {"one": FOLDERS.replace('"Own"', '"One"'), "two": FOLDERS.replace('"Own"', '"Two"')}

    def convert(name: str, entries: str) -> cards.TaskCard:
        Path(f"{name}.toml").write_text(manifests[name] + entries)
        done = dpconvert(f"{name}.toml", "--source", name, "--out", "shards", "--workers", 1, "--quiet", "--overwrite")
        assert done.code == 0, done.err
        return cards.load(tmp_path / "shards" / name.title())

    for name in manifests:
        convert(name, "")
    dpconvert("audit", "shards", "--page", "audit.html", "--workers", 1, "--quiet")
    entries = Path("audit.toml").read_text()
    listed = {entry["task"]: entry["samples"] for entry in tomllib.loads(entries)["errata"]}
    assert listed == {"One": ["a"], "Two": ["b"]}
    for name, classes, other in (("one", [0, 1], "Two"), ("two", [1, 0], "One")):
        made = convert(name, entries + '[[errata]]\nname="x"\nreason="x"\ncitation="x"\npictures="^zz"\n')
        assert made.splits["train"].classes == classes
        assert f"not used: 1 of 3 entries of [[errata]], about another task: '{other}'" in made.notes
        assert "not used: `pictures` of 'x' under [[errata]], which match no image here" in made.notes


def test_without_findings_nothing_is_listed(dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "source", ("train/no/a", 1), ("train/yes/b", 2), ("test/no/c", 3), ("test/yes/d", 4))
    found, _ = audited(dpconvert, tmp_path, FOLDERS)
    assert (found.code, "[[errata]]" in found.out) == (0, False)
    assert not (tmp_path / "audit.toml").exists()
