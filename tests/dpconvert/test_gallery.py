"""One page of finished tasks: true numbers, safe names, nothing from elsewhere; and in a real browser."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from dpconvert import card as cards
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.tasks.gallery import histogram, page, read_tasks, write_page
from dpconvert.tasks.gallery.tasks import IMAGES, SIDE, Gallery, evenly
from tests.browser import Browser, browser
from tests.dpconvert.conftest import Answer, Converted, one_line

__all__ = ["browser"]  # a fixture
Get = Callable[[str], Converted]
QUIET = Reporter(quiet=True)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n\x1b[31m\u202eevil"


def copied(folder: Path, to: Path, **changes: object) -> Path:
    """A task beside the original, its card changed; shards and index are links."""
    to.mkdir(parents=True)
    for path in folder.iterdir():
        (to / path.name).symlink_to(path)
    (to / cards.FILE_NAME).unlink()
    (to / cards.FILE_NAME).write_bytes(cards.dump(cards.load(folder).model_copy(update=changes)))
    return to


@pytest.fixture(scope="module")
def hostile(converted: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks; one is named as badly as can be, and has failures, differences, and a licence with code."""
    shards = tmp_path_factory.mktemp("gallery")
    lung = converted("lung")
    copied(lung.folder, shards / "Lung")
    names = [f"{HOSTILE} {i}" for i in range(len(lung.card.classes))]
    copied(
        lung.folder,
        shards / "Zz",
        task="Z" * 200,
        title=HOSTILE,
        classes=names,
        citation=HOSTILE,
        organ="w" * 300,
        licence=cards.Licence(name=HOSTILE, url="javascript:alert(3)", note=HOSTILE),
        notes=[HOSTILE],
        failures=[cards.Failure(key=f"k{i}", source=HOSTILE, reason=HOSTILE) for i in range(60)],
        expectations=[cards.Difference(what=HOSTILE, expected=2000, made=3)],
    )
    return shards


@pytest.fixture(scope="module")
def written(hostile: Path) -> Path:
    path = hostile.parent / "page.html"
    write_page(read_tasks([hostile / "Lung", hostile / "Zz"], QUIET), path)
    return path


class Outline(HTMLParser):
    """Tags, headings and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_hostile_names_stay_text_and_nothing_comes_from_elsewhere(written: Path) -> None:
    text = written.read_text()
    seen = Outline(text)
    assert "script" not in seen.tags
    assert seen.handlers == []
    assert {re.match(r"data:image/jpeg;base64,|#[a-z]", address) is not None for address in seen.addresses} == {True}
    assert not set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&gt;" in text


def test_headings_follow_each_other_and_landmarks_are_there(written: Path) -> None:
    seen = Outline(written.read_text())
    levels = [int(tag[1]) for tag in seen.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"header", "nav", "main", "section"} <= set(seen.tags)


def test_the_numbers_are_those_of_the_card_and_the_index(converted: Get) -> None:
    lung = converted("lung")
    (seen,) = read_tasks([lung.folder], QUIET).tasks
    rows = read_index(lung.folder / cards.INDEX_NAME).to_pylist()
    assert list(seen.widths) == [row["stored_width"] for row in rows]
    assert sorted(seen.groups) == sorted(np.unique([row["group"] for row in rows], return_counts=True)[1])
    counts = "".join(page._counts(lung.card, "x"))
    sizes = [lung.card.splits[split].samples for split in ("train", "val", "test")]
    cells = "".join(f'<td class="n">{n}</td>' for n in (*sizes, sum(sizes)))
    assert f'<th scope="row">samples</th>{cells}' in counts


def test_empty_sets_stand_beside_the_counts_and_once(converted: Get, tmp_path: Path) -> None:
    lung = converted("lung")
    train = lung.card.splits["train"]
    lacking = train.model_copy(update={"classes": [0, *train.classes[1:]]})
    line = f"no sample of class {lung.card.classes[0]!r} in train"
    changed: dict[str, object] = {"splits": {**lung.card.splits, "train": lacking}, "notes": [line, "another note"]}
    folder = copied(lung.folder, tmp_path / "Lung", **changed)
    write_page(read_tasks([folder], QUIET), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count(page.text(line)) == 1
    assert f'<p class="bad">{page.text(line)}</p>' in text
    assert "<li>another note</li>" in text


def test_images_are_small_few_and_never_of_the_test_set(converted: Get) -> None:
    lung = converted("lung")
    (seen,) = read_tasks([lung.folder], QUIET).tasks
    rows = {row["key"]: row for row in read_index(lung.folder / cards.INDEX_NAME).to_pylist()}
    for label, examples in seen.examples.items():
        trained = sum(row["label"] == label and row["split"] == "train" for row in rows.values())
        assert len(examples) == min(IMAGES, trained) or not trained
        for example in examples:
            row = rows[example.key]
            assert (row["label"], row["split"], example.split) == (label, example.split, "train" if trained else "val")
            with Pillow.open(io.BytesIO(example.jpeg)) as image:
                assert image.size == (example.width, example.height)
                assert max(image.size) <= SIDE


def test_the_same_shards_give_the_same_page(converted: Get, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(read_tasks([converted("lung").folder], QUIET), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_unfinished_and_a_damaged_task_are_on_the_page_and_in_the_exit_status(
    converted: Get, dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    lung, out = converted("lung"), tmp_path / "page.html"
    copied(lung.folder, tmp_path / "s" / "Good")
    (copied(lung.folder, tmp_path / "s" / "Half") / cards.FILE_NAME).unlink()
    cut = copied(lung.folder, tmp_path / "s" / "Cut")
    shard = next(cut.glob("train*.tar"))
    data = shard.read_bytes()[:40_000]
    shard.unlink()
    shard.write_bytes(data)
    counted = lung.card.model_copy(update={"classes": ["one"]})
    copied(lung.folder, tmp_path / "s" / "Odd", classes=counted.classes)
    answer = dpconvert("preview", str(tmp_path / "s"), "--out", str(out), "--json")
    told = json.loads(answer.out)
    assert answer.code == 1
    assert [task["task"] for task in told["tasks"]] == ["Lung"]
    assert [Path(problem["folder"]).name for problem in told["problems"]] == ["Cut", "Half", "Odd"]
    text = out.read_text()
    assert all(word in text for word in ("Unreadable", "no task.json", "cannot be read", "class counts are missing"))


def test_the_command_knows_shards_from_a_source(
    converted: Get, dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    folder, out = str(converted("lung").folder), str(tmp_path / "page.html")
    colours, last = dpconvert("preview", folder, "--out", out, "-q").out.splitlines()
    assert colours.startswith("Lung, by colours alone: ")
    assert last == f"1 task -> {out}"
    assert "--slide applies to sources" in one_line(dpconvert("preview", folder, "--slide", "x"))
    assert "no converted task in this folder" in one_line(dpconvert("preview", str(tmp_path)))
    (tmp_path / "file").touch()
    assert "cannot be created" in one_line(dpconvert("preview", folder, "--out", str(tmp_path / "file" / "page.html")))


def test_rows_are_taken_evenly_from_first_to_last() -> None:
    assert evenly(np.arange(10), 4) == [0, 3, 6, 9]
    assert evenly(np.arange(3), 8) == [0, 1, 2]
    assert evenly(np.array([], dtype=np.intp), 8) == []


def test_bars_hold_every_value_once() -> None:
    assert histogram.even_bars(np.array([])) == []
    assert histogram.even_bars(np.array([7, 7])) == [histogram.Bar(7, 7, 2)]
    assert [bar.count for bar in histogram.even_bars(np.array([0, 1, 2, 3, 4]), 4)] == [1, 1, 1, 2]
    assert histogram.doubling_bars(np.array([2, 3, 4, 9])) == [
        histogram.Bar(2, 4, 2),
        histogram.Bar(4, 8, 1),
        histogram.Bar(8, 16, 1),
    ]
    assert histogram.in_words(np.array([1, 2, 3, 2000]), "px") == "1 to 2,000 px, half of them up to 2 px"
    svg = "".join(histogram.drawn(histogram.even_bars(np.array([0, 1, 1, 2])), 'a "b"'))
    assert 'aria-label="a &quot;b&quot;"' in svg


def test_an_empty_gallery_is_a_page(tmp_path: Path) -> None:
    write_page(Gallery([], []), tmp_path / "page.html")
    assert "0 tasks, 0 images" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_a_browser_shows_all_of_it(browser: Browser, written: Path, width: int, dark: bool) -> None:
    with browser.page(written, width=width, dark=dark) as opened:
        assert opened.errors == []
        assert opened.overflow() == []
        assert opened.broken_images() == []
        assert opened.unnamed() == []
        back = opened.run("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
        assert [told[:14] for told in opened.tab(3)] == ["A To the tasks", "DIV Samples in", "A Lung"]
        assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_no_table_is_cut_on_paper(browser: Browser, written: Path) -> None:
    with browser.page(written) as opened:
        assert opened.cut_in_print() == []
