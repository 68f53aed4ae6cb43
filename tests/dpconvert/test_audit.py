"""Leaks that ids do not show: what is planted is found in every position and size, and nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dpconvert import card as cards
from dpconvert.errors import ShardError, UsageError
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.encode import EncodedSample
from dpconvert.shards.index import write_index
from dpconvert.shards.tar import write_shard
from dpconvert.tasks.audit import Audit, audit
from dpconvert.tasks.audit.findings import Link, related_sets
from dpconvert.tasks.audit.nearest import ALIKE, correlation, pairs
from dpconvert.tasks.audit.page import write_page
from dpconvert.tasks.audit.prints import SIDE, prints, waves
from tests.dpconvert.conftest import Answer
from tests.task_cards import write_card

Call = Callable[..., Answer]
Pixels = NDArray[np.uint8]
QUIET = Reporter(quiet=True)


def tissue(seed: int, side: int = 96) -> Pixels:
    """Pink ground with dark nuclei of several sizes: no two seeds are alike."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((side, side)), s, mode="wrap") * s for s in (1.5, 3, 6)]
    dark = 1 / (1 + np.exp(-4 * sum(fields)))
    colours = np.array([[235, 190, 215], [90, 40, 120]])
    return np.rint(colours[0] * (1 - dark[..., None]) + colours[1] * dark[..., None]).astype(np.uint8)


def stored(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def png(pixels: Pixels) -> bytes:
    return stored(Image.fromarray(pixels))


Given = tuple[str, bytes, int, str]  # split, image, label, group


def task(folder: Path, given: Sequence[Given], *, name: str = "Toy", related: Sequence[str] = ()) -> Path:
    """A finished task of these samples, keys k0, k1, ... in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, entries = [], []
    for split in cards.SPLITS:
        samples = [
            _sample(f"k{i}", data, label, group, split) for i, (s, data, label, group) in enumerate(given) if s == split
        ]
        if samples:
            made = write_shard(folder / f"{split}-000000.tar", split, samples)
            shards.append(made.shard)
            entries += made.entries
    index = write_index(folder / "index.parquet", entries)
    splits = {s.split: cards.SplitCard(samples=s.samples, classes=[0, 0], groups=0) for s in shards}
    return write_card(folder, shards, index, splits, task=name, related=list(related))


def _sample(key: str, data: bytes, label: int, group: str, split: str) -> EncodedSample:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    metadata = {
        "label": label,
        "group": group,
        "split": split,
        "files": ["a"],
        "x": 0,
        "y": 0,
        "width": width,
        "height": height,
        "stored_width": width,
        "stored_height": height,
        "attributes": {},
    }
    return EncodedSample(key, data, "jpg" if data.startswith(b"\xff\xd8") else "png", label, metadata)


def audited(*folders: Path, **options: Any) -> Audit:
    return audit(folders, workers=1, report=QUIET, **options)


def in_keys(found: Audit) -> set[tuple[str, str, str]]:
    return {(pair.same, found.samples.key[pair.one], found.samples.key[pair.other]) for pair in found.splits}


# --- prints


@pytest.mark.parametrize("position", range(8))
def test_an_image_and_any_position_of_it_have_the_same_waves_but_for_signs_and_order(position: int) -> None:
    grey = tissue(1)[..., 0].astype(np.float32)
    turned = np.rot90(grey if position < 4 else grey.T, position)
    assert correlation(waves(grey)[None], waves(turned)[None])[0] == pytest.approx(1, abs=1e-4)
    assert correlation(waves(grey)[None], waves(tissue(2)[..., 0].astype(np.float32))[None])[0] < 0.5


def test_a_wave_is_one_number() -> None:
    """cos(pi (x + 1/2) 3 / n) along x is the coefficient (0, 3) and no other."""
    x = np.arange(64)
    wave = np.tile(np.cos(np.pi * (x + 0.5) * 3 / 64), (64, 1)).astype(np.float32)
    found = waves(wave)
    assert found[0, 3] == 127
    found[0, 3] = 0
    assert not found.any()


def test_pixels_have_one_digest_however_they_are_packed() -> None:
    one = Image.fromarray(tissue(3))
    data = [stored(one), stored(one, compress_level=9), stored(one.convert("RGBA")), stored(one.rotate(90))]
    digests = prints(data, ["a"] * 4).pixels
    assert (digests[0] == digests[1]).all()
    assert (digests[0] == digests[2]).all()
    assert (digests[0] != digests[3]).any()


def test_images_without_content_are_distinguished_from_those_with() -> None:
    white = np.full((96, 96, 3), 250, np.uint8)
    deep = Image.fromarray((np.arange(4096).reshape(64, 64) * 16).astype(np.uint16))
    assert prints([png(white), png(tissue(1)), stored(deep)], ["w", "t", "d"]).even.tolist() == [True, False, False]


def test_an_image_that_does_not_decode_is_named() -> None:
    with pytest.raises(ShardError, match=r"a\.tar: k7: image cannot be decoded"):
        prints([png(tissue(1))[:200]], ["a.tar: k7"])


# --- planted duplicates


ALTERED: dict[str, Callable[[Image.Image], bytes]] = {
    "turned": lambda p: stored(p.transpose(Image.Transpose.ROTATE_270)),
    "mirrored": lambda p: stored(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "transposed": lambda p: stored(p.transpose(Image.Transpose.TRANSVERSE)),
    "halved": lambda p: stored(p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC)),
    "enlarged": lambda p: stored(p.resize((125, 125), Image.Resampling.BILINEAR)),
    "compressed": lambda p: stored(p, format="JPEG", quality=40),
    "brightened": lambda p: stored(p.point(lambda v: min(255, int(v * 1.08 + 4)))),
    "all of it": lambda p: stored(
        p.transpose(Image.Transpose.TRANSPOSE).resize((60, 60)).point(lambda v: v * 0.95), format="JPEG", quality=75
    ),
    "cropped by 1 px": lambda p: stored(p.crop((1, 0, p.width, p.height - 1))),
}


def test_planted_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Recall and precision are 1 on 10 images for each change, among 90 others."""
    given: list[Given] = [("train", png(tissue(i)), 0, f"t:{i}") for i in range(180)]
    planted = {}
    for number, change in enumerate(ALTERED.values()):
        for i in range(number * 10, number * 10 + 10):
            planted[f"k{i}"] = f"k{len(given)}"
            given.append(("test", change(Image.fromarray(tissue(i))), 0, f"t:c{i}"))
    found = audited(task(tmp_path, given))
    assert {(one, other) for _, one, other in in_keys(found)} == set(planted.items())
    assert {pair.same for pair in found.splits} == {"looks"}
    assert found.within == 0
    assert not found.clean


def test_equal_files_and_equal_pixels_are_distinguished_from_what_looks_the_same(tmp_path: Path) -> None:
    one = Image.fromarray(tissue(1))
    given: list[Given] = [
        ("train", stored(one), 0, "t:1"),
        ("val", stored(one), 0, "t:2"),
        ("test", stored(one, compress_level=9), 1, "t:3"),
        ("test", stored(one.rotate(180)), 0, "t:4"),
    ]
    found = audited(task(tmp_path, given))
    assert in_keys(found) >= {("file", "k0", "k1"), ("pixels", "k0", "k2"), ("looks", "k0", "k3")}
    assert [(p.one, p.other) for p in found.labels] == [(0, 2), (1, 2)]
    assert [pair.same for pair in found.splits][:2] == ["file", "pixels"]


def test_every_pair_of_equal_files_counts(tmp_path: Path) -> None:
    """An image three times in train and twice in test: 6 pairs between the splits, 3 + 1 within."""
    one = png(tissue(1))
    given: list[Given] = [("train", one, 0, f"t:{i}") for i in range(3)] + [("test", one, 0, f"t:{i}") for i in (3, 4)]
    found = audited(task(tmp_path, given))
    assert (len(found.splits), found.within) == (6, 4)


def test_of_very_many_equal_files_each_that_leaks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpconvert.tasks.audit.findings.MOST_EQUAL", 4)
    one = png(tissue(1))
    given: list[Given] = [("train", one, 0, f"t:{i}") for i in range(3)] + [("test", one, 0, f"t:{i}") for i in (3, 4)]
    found = audited(task(tmp_path, given))
    assert {other for _, _, other in in_keys(found)} >= {"k3", "k4"}


def test_images_of_few_waves_are_not_taken_for_the_same(tmp_path: Path) -> None:
    """Round spots of other sizes correlate, as single cells on an even ground do."""
    y, x = np.mgrid[:96, :96] - 47.5
    spots = [255 - 200 / (1 + np.exp((np.hypot(x, y) - r) / 3)) for r in np.linspace(18, 30, 12)]
    given: list[Given] = [
        (("train", "test")[i % 2], png(np.repeat(s[..., None], 3, axis=2).astype(np.uint8)), 0, f"t:{i}")
        for i, s in enumerate(spots)
    ]
    found = audited(task(tmp_path, given))
    assert len(found.splits) < len(spots) // 2
    raw = waves(spots[4].astype(np.float32)), waves(spots[5].astype(np.float32))
    assert correlation(raw[0][None], raw[1][None])[0] > ALIKE


def test_a_task_without_leaks_is_clean_and_white_tiles_are_only_counted(tmp_path: Path) -> None:
    given: list[Given] = [(split, png(tissue(i)), 0, f"t:{i}") for i, split in enumerate(["train", "val", "test"] * 5)]
    white = np.full((32, 32, 3), 255, np.uint8)
    given += [("train", png(white), 0, "t:w"), ("test", png(np.where(white, 254, 0).astype(np.uint8)), 0, "t:v")]
    found = audited(task(tmp_path, given))
    assert found.clean
    assert found.even == 2
    assert [*found.lines()] == [
        "17 images in 1 task",
        "within one split: 0 pairs; too uniform to compare: 2 images",
        "nothing found that the tasks do not state",
    ]


# --- tasks


def two_tasks(out: Path, related: Sequence[str] = ()) -> tuple[Path, Path]:
    """Two tasks that share an image in another position, and a group."""
    shared = Image.fromarray(tissue(50))
    one: list[Given] = [("train", png(tissue(i)), 0, f"lab:{i}") for i in range(4)]
    one.append(("train", stored(shared), 0, "lab:p"))
    other: list[Given] = [("train", png(tissue(i + 10)), 0, f"lab:x{i}") for i in range(3)]
    other += [("test", stored(shared.rotate(90)), 1, "lab:q"), ("test", png(tissue(60)), 1, "lab:p")]
    return task(out / "One", one, name="One", related=related), task(out / "Two", other, name="Two")


def test_what_two_tasks_share_makes_them_related(tmp_path: Path) -> None:
    found = audited(*two_tasks(tmp_path))
    assert found.links == [Link(("One", "Two"), images=1, groups=1, stated=False)]
    assert found.related == [["One", "Two"]]
    assert found.splits == []
    assert not found.clean


def test_what_the_cards_state_is_no_finding(tmp_path: Path) -> None:
    found = audited(*two_tasks(tmp_path, related=["Two"]))
    assert found.links == [Link(("One", "Two"), images=1, groups=1, stated=True)]
    assert found.clean


def test_related_sets_are_joined_over_others() -> None:
    links = [Link(("a", "b"), 1, 0, False), Link(("d", "e"), 0, 0, True), Link(("c", "b"), 0, 1, False)]
    assert related_sets(list("abcdef"), links) == [["a", "b", "c"], ["d", "e"]]


def test_a_group_in_two_splits_is_found(tmp_path: Path) -> None:
    given: list[Given] = [("train", png(tissue(1)), 0, "t:1"), ("test", png(tissue(2)), 0, "t:1")]
    found = audited(task(tmp_path, given))
    assert found.groups == [("Toy", "t:1", ["test", "train"])]
    assert "Toy: 1 group in more than one split" in found.lines()


def test_features_find_what_looks_do_not(tmp_path: Path) -> None:
    folder = task(tmp_path / "Toy", [(("train", "val")[i % 2], png(tissue(i)), 0, f"t:{i}") for i in range(12)])
    rng, out = np.random.default_rng(0), tmp_path / "features"
    out.mkdir()
    arrays = {split: rng.standard_normal((6, 32)).astype(np.float32) for split in ("train", "val")}
    arrays["val"][2] = arrays["train"][4] * 1.3 + rng.standard_normal(32) * 0.02
    for first, (split, array) in enumerate(arrays.items()):
        np.save(out / f"Toy-{split}.npy", array)
        keys = [f"k{2 * i + first}" for i in range(6)]
        (out / f"Toy-{split}.csv").write_text("key,label,group\n" + "".join(f"{key},0,t\n" for key in keys))
    assert in_keys(audited(folder)) == set()
    assert in_keys(audited(folder, features_in=out)) == {("features", "k8", "k5")}
    (out / "Toy-val.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match=r"Toy-val\.npy: not features of these tasks"):
        audited(folder, features_in=out)
    with pytest.raises(
        UsageError, match=r"no features of these tasks in this folder; write them with: mtrain features --task Toy"
    ):
        audited(folder, features_in=tmp_path)


# --- the command


def test_the_command_tells_and_draws_what_it_finds(tmp_path: Path, dpconvert: Call) -> None:
    two_tasks(tmp_path / "shards")
    page = tmp_path / "page" / "audit.html"
    answer = dpconvert("audit", tmp_path / "shards", "--page", page, "--workers", 1, "--quiet")
    assert (answer.code, answer.err) == (1, "")
    assert "One and Two: 1 image and 1 group in common; related, which neither task states\n" in answer.out
    assert "leave out together: One, Two\n" in answer.out
    html = page.read_text()
    assert html.count("<img ") == 2
    assert "://" not in html
    told = json.loads(dpconvert("audit", tmp_path / "shards", "--page", page, "--json", "--workers", 1).out)
    assert (told["clean"], told["related"], told["samples"]) == (False, [["One", "Two"]], 10)
    (pair,) = told["tasks"]
    assert (pair["one"]["key"], pair["other"]["key"], pair["other"]["label"]) == ("k4", "k3", "yes")


def test_a_clean_audit_exits_with_0(tmp_path: Path, dpconvert: Call) -> None:
    task(tmp_path / "s" / "Toy", [("train", png(tissue(1)), 0, "t:1"), ("test", png(tissue(2)), 0, "t:2")])
    answer = dpconvert("audit", tmp_path / "s", "--page", tmp_path / "a.html", "--workers", 1)
    assert answer.code == 0
    assert "nothing found" in answer.out
    (tmp_path / "file").touch()
    answer = dpconvert("audit", tmp_path / "s", "--page", tmp_path / "file" / "a.html", "--workers", 1, "-q")
    assert (answer.code, "Traceback" in answer.err) == (1, False)
    assert answer.err.startswith(f"dpconvert: error: {tmp_path / 'file'}: cannot be created: ")


def test_names_in_the_page_are_text_and_nothing_else(tmp_path: Path) -> None:
    evil = "t:<script>alert(1)</script>\n\x1b[31m\"'&"
    given: list[Given] = [("train", png(tissue(1)), 0, evil), ("test", png(tissue(1)), 0, evil)]
    write_page(audited(task(tmp_path / "t", given)), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\n\\x1b[31m&quot;&#x27;&amp;" in html


@pytest.mark.parametrize("harm", ["index", "shard", "unfinished"])
def test_a_damaged_task_is_reported_in_one_line(harm: str, tmp_path: Path) -> None:
    folder = task(tmp_path / "t", [("train", png(tissue(1)), 0, "t:1"), ("test", png(tissue(2)), 0, "t:2")])
    path = folder / {"index": "index.parquet", "shard": "test-000000.tar", "unfinished": "task.json"}[harm]
    if harm == "unfinished":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:700])
    told = {"index": "changed since it was written", "shard": "shorter than its index", "unfinished": "no task.json"}[
        harm
    ]
    with pytest.raises(ShardError, match=told):
        audited(folder)


# --- many


def planted(count: int, share: int = 100) -> tuple[NDArray[np.int8], set[tuple[int, int]]]:
    """Random waves, of which one in `share` is another one in another position with 10% of noise, and which."""
    rng = np.random.default_rng(0)
    made = rng.integers(-100, 100, (count, SIDE, SIDE), dtype=np.int8)
    half, number = count // 2, count // share
    source, copy = rng.permutation(half)[:number], half + rng.permutation(half)[:number]
    noisy = made[source] + rng.normal(0, 20, (number, SIDE, SIDE))
    mirrored = noisy.transpose(0, 2, 1) * np.where(np.arange(SIDE) % 2, -1, 1)
    made[copy] = np.clip(mirrored, -127, 127).astype(np.int8)
    return made, set(zip(source.tolist(), copy.tolist(), strict=True))


def test_the_search_finds_planted_pairs_among_many_without_comparing_all() -> None:
    made, wanted = planted(4000)
    found, likeness = pairs(made)
    assert set(map(tuple, found.tolist())) == wanted
    assert likeness.min() > ALIKE
    again, _ = pairs(made)
    assert (found == again).all()


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_the_search_scales_to_a_million_images() -> None:
    made, wanted = planted(1_000_000)
    found = set(map(tuple, pairs(made)[0].tolist()))
    assert len(found & wanted) > 0.97 * len(wanted)
    assert len(found & wanted) > 0.999 * len(found)
