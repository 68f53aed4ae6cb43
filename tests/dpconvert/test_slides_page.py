"""The page of all slides that `preview` writes: counts as in the conversion, and what is skipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dpconvert.conftest import Answer, Converted
from tests.dpconvert.test_shape_slides import AREA, LEFT_HALF, Tree, geojson

Call = Callable[..., Answer]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def rows(page: str, caption: str) -> dict[str, list[str]]:
    """First cell -> the other cells of each row of a table."""
    table = page.partition(f"<caption>{caption}</caption>")[2].partition("</table>")[0]
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    return {first: rest for first, *rest in found}


@pytest.mark.parametrize("name", ["camelyon16", "umcm-colorectal"])
def test_the_counts_by_split_are_those_of_the_conversion(
    name: str, converted: Callable[[str], Converted], dpconvert: Call, tmp_path: Path
) -> None:
    made = converted(name)
    answer = dpconvert("preview", name, "--source", made.source, "--out", tmp_path, "--workers", 1, "-q")
    assert (answer.code, answer.err) == (0, "")
    counts = rows((tmp_path / "slides.html").read_text(), "Samples in each split")
    for number, label in enumerate(made.card.classes):
        of_class = [s.classes[number] if (s := made.card.splits.get(name)) else 0 for name in ("train", "val", "test")]
        assert counts[label] == [*map(str, of_class), str(sum(of_class))]


def test_every_slide_is_drawn_and_what_is_skipped_is_said(tree: Tree, dpconvert: Call) -> None:
    for name in "abcd":
        tree.slide(f"{name}.tif")
    tree.write("a.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor"), ("Polygon", [LEFT_HALF], "Ink")))
    tree.write("b.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor"), ("Point", (9000, 9000), "Tumor")))
    tree.write("c.geojson", "{")
    tree.manifest(AREA + 'ignore = ["Ink"]\n[layout]\nmissing = "none"\n')
    out = tree.folder / "preview"
    dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--out", out, "--workers", 1)
    page = (out / "slides.html").read_text()
    assert page.count("<img ") == 3
    skipped = rows(page, "On all slides")
    assert skipped["labelled &#x27;Ink&#x27;, which the rule ignores"] == ["1", "1"]
    assert skipped["outside its image"] == ["1", "1"]
    assert "Unreadable: 1" in page
    assert re.search(r"<li>c: .*geojson", page)
    slides = rows(page, "Samples of each class, and outlines")
    assert [slides[name][-2:] for name in "abd"] == [["2", "1"], ["1", "1"], ["0", "0"]]


def test_one_slide_alone_has_no_page(tree: Tree, dpconvert: Call) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor")))
    tree.manifest(AREA)
    out = tree.folder / "preview"
    dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--out", out, "--slide", "a")
    assert (out / "a.png").is_file()
    assert not (out / "slides.html").exists()


def test_options_of_sources_are_refused_for_finished_tasks(dpconvert: Call, tmp_path: Path) -> None:
    for option in (("--split", "strict"), ("--workers", 2), ("--slide", "a")):
        answer = dpconvert("preview", tmp_path, *option)
        assert answer.code == 1
        assert f"{option[0]} applies to sources" in answer.err
