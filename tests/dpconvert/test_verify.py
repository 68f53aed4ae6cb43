"""Every change of a task is found: bits that flipped, and tasks written wrong under right digests."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpconvert import card as cards
from dpconvert.errors import ShardError, UsageError
from dpconvert.plan import plan
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.encode import EncodedSample
from dpconvert.shards.finalize import tools
from dpconvert.shards.index import DENSE_COLUMNS, file_card, write_index
from dpconvert.shards.tar import write_shard
from dpconvert.source.record import Record, SourceImage
from dpconvert.tasks.task_folders import task_folders
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import Answer, Converted, run
from tests.task_cards import write_card

Get = Callable[[str], Converted]


@pytest.fixture(scope="module")
def small(converted: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of 16 samples in four shards."""
    one, out = converted("umcm-colorectal"), tmp_path_factory.mktemp("small")
    run(one.manifest, one.source, out, limit=1, samples_per_shard=5)
    return out / one.manifest.task


def found(folder: Path) -> list[str]:
    try:
        return [f"{p.file}: {p.what}" for p in verify(folder, workers=1, report=Reporter(quiet=True))[1]]
    except ShardError as error:
        return [str(error)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(1, 4))])
def test_a_flipped_bit_anywhere_is_found(seed: int, small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "task")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    assert {path.suffix for path in files} == {".tar", ".idx", ".json", ".parquet", ".md", ".yaml"}
    places = random.Random(seed)
    for path in files:
        whole = path.read_bytes()
        for _ in range(4):
            data = bytearray(whole)
            data[places.randrange(len(data))] ^= 1 << places.randrange(8)
            path.write_bytes(data)
            assert found(folder), f"{path.name} differs unnoticed"
        path.write_bytes(whole)
    assert found(folder) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"open": true', '"open": false'),
        ('"metric": "accuracy"', '"metric": "roc_auc"'),
        ('"UMCMColorectal"', '"Other"'),
        ('\n "task"', '\n  "task"'),
        ("{", "{ "),
        ("}\n", "}"),
    ],
)
def test_a_changed_task_card_is_found(old: str, new: str, small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "task")
    text = (folder / "task.json").read_text()
    assert old in text
    (folder / "task.json").write_text(text.replace(old, new, 1))
    remedy = "convert the source again with --overwrite"
    assert found(folder) == [f"{folder / 'task.json'}: changed since it was written; {remedy}"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a task card"),
        ("[]", "not a task card"),
        ("null", "not a task card"),
        ('{"schema": "a"}', "not a task card"),
        ("[" * 100_000, "not a task card"),
        ('{"schema": 4}', "written by a newer version; update dpconvert"),
        ('{"task": 7}', "not a task card: "),
    ],
)
def test_what_is_no_task_card_is_an_error(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(text)
    with pytest.raises(ShardError, match=rf"task.json: {told}"):
        cards.load(tmp_path)


def test_files_that_are_missing_cut_or_too_many_are_found(small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "task")
    (folder / "test-000000.tar").unlink()
    (folder / "index.parquet").unlink()
    (folder / "train-000009.tar").touch()
    cut = folder / "train-000000.tar"
    cut.write_bytes(cut.read_bytes()[:-1024])
    assert found(folder) == [
        "index.parquet: missing",
        "test-000000.tar: missing",
        "train-000000.tar: changed since it was written",
        "train-000009.tar: not a shard of this task",
    ]


def test_task_folders_are_those_that_hold_a_task_or_should(small: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(small, tmp_path / name)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "train-000000.tar").touch()
    (tmp_path / "begun" / ".work").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert [folder.name for folder in task_folders(tmp_path)] == ["a", "b", "begun", "unfinished"]
    assert task_folders(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(ShardError, match=r"no task.json; the conversion is unfinished"):
        cards.load(tmp_path / "unfinished")
    with pytest.raises(ShardError, match=rf"{tmp_path}: no task.json; found tasks: a, b; give one: {tmp_path}/a$"):
        cards.load(tmp_path)
    with pytest.raises(ShardError, match=r"notes: no task.json; give the folder of a converted task$"):
        cards.load(tmp_path / "notes")
    with pytest.raises(ShardError, match=r"absent: no such folder; give the folder of a converted task$"):
        cards.load(tmp_path / "absent")
    with pytest.raises(ShardError, match="no converted task in this folder"):
        task_folders(tmp_path / "notes")
    with pytest.raises(ShardError, match="absent: no such folder"):
        task_folders(tmp_path / "absent")


def test_a_conversion_under_way_is_named_with_the_process_that_is_at_it(small: Path, tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    with locks.held(tmp_path / locks.NAME):
        assert "a conversion is in progress; found process" in found(tmp_path)[0]
    assert "the conversion is unfinished: run it again" in found(tmp_path)[0]


# --- written wrong, with right digests


def sample(key: str, label: int = 0, group: str = "toy:g", split: str = "train", **changes: Any) -> EncodedSample:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3, 2, 3), np.uint8)).save(buffer, "PNG")
    metadata = {
        "label": label,
        "group": group,
        "split": split,
        "files": ["a.png"],
        "x": 0,
        "y": 0,
        "width": 2,
        "height": 3,
        "stored_width": 2,
        "stored_height": 3,
        "attributes": {},
    }
    return EncodedSample(key, buffer.getvalue(), "png", label, metadata | changes)


def written(
    folder: Path,
    splits: dict[str, Sequence[EncodedSample]],
    change: Callable[[Path], object] = lambda _: None,
    dense: cards.DenseCard | None = None,
) -> Path:
    """A task of these samples, one shard per split; `change` meddles with the first shard before it is digested."""
    shards, entries = [], []
    for split, samples in splits.items():
        made = write_shard(folder / f"{split}-000000.tar", split, samples)  # type: ignore[arg-type]
        entries += made.entries
        if not shards:
            change(folder / made.shard.name)
        told = file_card(folder / made.shard.name)
        shards.append(made.shard.model_copy(update={"size": told.size, "sha256": told.sha256}))
    index = write_index(folder / "index.parquet", entries, () if dense is None else DENSE_COLUMNS)
    counts = {
        split: cards.SplitCard(samples=len(of), classes=[sum(s.label == i for s in of) for i in (0, 1)], groups=1)
        for split, of in splits.items()
    }
    return write_card(folder, shards, index, counts, dense=dense)


def rewritten(rename: Callable[[str], str], kind: bytes = tarfile.REGTYPE) -> Callable[[Path], None]:
    """Give the members of a tar other names, or make the first another kind of thing."""

    def change(path: Path) -> None:
        with tarfile.open(path) as tar:
            members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (member, data) in enumerate(members):
                member.name = rename(member.name)
                if number == 0 and kind != tarfile.REGTYPE:
                    member.type, member.linkname, member.size, data = kind, "/etc/passwd", 0, b""
                tar.addfile(member, io.BytesIO(data))

    return change


def test_a_task_in_a_folder_whose_name_is_not_in_utf_8_is_no_damaged_one(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / os.fsdecode(b"M\xfcller") / small.name
    shutil.copytree(small, copy)
    assert found(copy) == []


def added(path: Path, name: str) -> None:
    """Put an empty member behind those of a tar."""
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo(name))


def test_a_task_as_it_must_be_has_no_problem(tmp_path: Path) -> None:
    assert (
        found(written(tmp_path, {"train": [sample("a"), sample("b", 1)], "test": [sample("c", 1, "toy:h", "test")]}))
        == []
    )


def test_the_longest_keys_fit_into_the_names_of_a_tar(tmp_path: Path) -> None:
    names = ["x" * 200 + "!", "x" * 200 + "?"]
    keys = plan._keys([Record(SourceImage(name, ("f",), "g"), "no") for name in names])
    assert {len(key) for key in keys} == {92}
    folder = written(tmp_path, {"train": [sample(key) for key in keys]})
    assert found(folder) == []
    with tarfile.open(folder / "train-000000.tar") as tar:
        assert tar.getnames()[2] == f"{keys[0]}.json"


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([sample("a", 2)], "a: wrong label b'2'"),
        ([sample("A")], "A: wrong file names"),
        ([sample("a.b")], "a.b: wrong file names"),
        ([sample("a"), sample("a")], "index.parquet: a: several samples with this key"),
        ([sample("a", stored_width=3)], "a: image size differs from the index"),
        ([EncodedSample("a", b"\x89PNG\r\n\x1a\nno", "png", 0, sample("a").metadata)], "a: image cannot be decoded: "),
        ([EncodedSample("a", sample("a").image[:45], "png", 0, sample("a").metadata)], "a: image cannot be decoded: "),
    ],
)
def test_a_wrong_sample_is_found(samples: list[EncodedSample], told: str, tmp_path: Path) -> None:
    assert any(told in problem for problem in found(written(tmp_path, {"train": samples})))


@pytest.mark.parametrize(
    ("member", "old", "new", "told"),
    [
        (0, b"IEND", b"IeND", ["image differs from the index"]),
        (0, b"IEND", b"\0\0\0\0IEND", ["image differs from the index", "offset or length differs from the index"]),
        (1, b"0", b"1", ["wrong label b'1'"]),
        (2, b'"label":0', b'"label":1', ["JSON differs from the index"]),
        (2, b'"group":"toy:g"', b'"group":"toy:h"', ["JSON differs from the index"]),
        (2, b'"split":"train"', b'"split":"test"', ["JSON differs from the index"]),
    ],
    ids=["image", "place", "label", "label in json", "group in json", "split in json"],
)
def test_a_shard_that_tells_otherwise_than_its_index_is_found(
    member: int, old: bytes, new: bytes, told: list[str], tmp_path: Path
) -> None:
    class Lying(EncodedSample):
        def members(self) -> list[tuple[str, bytes]]:
            files = super().members()
            name, data = files[member]
            assert old in data
            files[member] = name, data.replace(old, new)
            return files

    plain = sample("a")
    lying = Lying(plain.key, plain.image, plain.format, plain.label, plain.metadata)
    assert found(written(tmp_path, {"train": [lying]})) == [f"train-000000.tar: a: {problem}" for problem in told]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewritten(lambda name: f"../{name}"), "a: wrong file names"),
        (rewritten(lambda name: f"/{name}"), "a: wrong file names"),
        (rewritten(lambda name: name.replace(".cls", ".pyd")), "a: wrong file names"),
        (rewritten(str, tarfile.SYMTYPE), "contains a member that is not a plain file"),
        (rewritten(str, tarfile.LNKTYPE), "contains a member that is not a plain file"),
        (lambda path: added(path, "c.pickle"), "7 files for 2 samples"),
        (lambda path: path.write_bytes(b"no tar" * 100), "not a readable tar: "),
        (lambda path: path.write_bytes(b""), "not a readable tar: "),
    ],
)
def test_a_shard_that_holds_something_else_is_found(
    change: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    problems = found(written(tmp_path, {"train": [sample("a"), sample("b")]}, change))
    assert any(problem.startswith(f"train-000000.tar: {told}") for problem in problems), problems


def test_a_group_in_two_sets_is_found_unless_the_paper_s_sets_were_requested(tmp_path: Path) -> None:
    folder = written(tmp_path, {"train": [sample("a")], "test": [sample("b", split="test")]})
    assert found(folder) == ["index.parquet: group toy:g is in test and train"]
    paper = cards.load(folder).model_copy(update={"options": {"split": "paper"}})
    (folder / "task.json").write_bytes(cards.dump(paper))
    assert found(folder) == []


def test_counts_that_are_not_those_of_the_index_are_found(tmp_path: Path) -> None:
    folder = written(tmp_path, {"train": [sample("a"), sample("b", 1)]})
    card = cards.load(folder)
    wrong = cards.SplitCard(samples=2, classes=[2, 0], groups=1)
    (folder / "task.json").write_bytes(cards.dump(card.model_copy(update={"splits": {"train": wrong}})))
    assert found(folder) == ["task.json: the class counts of train do not match the index"]


def test_a_digest_that_is_not_that_of_the_shards_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path, {"train": [sample("a")]})
    (folder / "task.json").write_bytes(cards.dump(cards.load(folder).model_copy(update={"digest": "0" * 64})))
    assert found(folder) == ["task.json: the digest does not match the listed shards"]


# --- against another


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The same task twice: the images of the second are packed otherwise, by another zlib say."""
    folders = []
    for level in (6, 1):
        samples = []
        for key in ("a", "b"):
            one = sample(key)
            with Image.open(io.BytesIO(one.image)) as image:
                buffer = io.BytesIO()
                image.save(buffer, "PNG", compress_level=level)
            samples.append(EncodedSample(key, buffer.getvalue() + b"\0" * (level == 1), "png", 0, one.metadata))
        (tmp_path / str(level)).mkdir()
        folder = written(tmp_path / str(level), {"train": samples})
        folders.append(folder)
    return folders[0], folders[1]


def stated(folder: Path, **changes: Any) -> None:
    """Write other facts into a task card."""
    (folder / "task.json").write_bytes(cards.dump(cards.load(folder).model_copy(update=changes)))


def against(folder: Path, other: str | Path) -> list[str]:
    problems = verify(folder, workers=1, report=Reporter(quiet=True), against=str(other))[1]
    return [f"{p.file}: {p.what}" for p in problems]


def test_the_digest_that_is_requested_decides(two: tuple[Path, Path]) -> None:
    one, _ = two
    assert against(one, cards.load(one).digest) == []
    assert against(one, one) == []
    (told,) = against(one, "0" * 64)
    assert told.startswith(f"task.json: digest {cards.load(one).digest} is not the expected one, {'0' * 64}; ")


def test_a_folder_of_tasks_stands_for_the_task_of_the_same_name(
    two: tuple[Path, Path], dpconvert: Callable[..., Answer]
) -> None:
    name = cards.load(two[0]).task
    one, other = (Path(shutil.copytree(folder, folder.parent / f"in-{folder.name}" / "Any")) for folder in two)
    assert against(one, one.parent) == []
    assert len(against(one, other.parent)) == 3
    shutil.copytree(one, one.parent / "Second")
    stated(one.parent / "Second", task="Second")
    assert against(one.parent / "Second", other.parent) == [f"task.json: no task Second in {other.parent}"]
    assert against(one.parent / "Second", other) == [f"task.json: {other} is another task, {name}"]
    answer = dpconvert("verify", other.parent, "--against", one.parent, "--workers", 1, "-q")
    assert answer.code == 1
    assert f"task Second is missing here, but present in {one.parent}" in answer.err


def test_a_difference_that_comes_from_other_versions_is_reported_as_such(two: tuple[Path, Path]) -> None:
    one, other = two
    request = '{"version": "1", "source": "s"}'
    stated(one, request=request, tools={"pillow": "11.0", "zlib": "1.3"})
    stated(other, request=request, tools={"pillow": "11.0", "zlib": "1.2"})
    images, digest, shard = against(one, other)
    assert "the requests are equal; the versions differ: zlib 1.3 (there 1.2)" in digest
    assert images == (
        "task.json: 0 samples only here, 0 only there; 2 images with different bytes: of 2 compared, "
        "0 differ in pixels (decoding), 2 only in bytes (encoding)"
    )
    assert shard == f"train-000000.tar: content differs from {other}"


def test_a_difference_that_versions_do_not_explain_is_reported_as_such(two: tuple[Path, Path]) -> None:
    one, other = two
    for folder in two:
        stated(folder, request='{"source": "s"}', tools={"pillow": "11.0"})
    told = "requests and versions are equal: a source file changed without changing its size"
    assert told in against(one, other)[1]
    stated(other, request='{"source": "t"}', tools={"pillow": "9.0"})
    assert "different source" in against(one, other)[1]


def test_versions_that_made_a_task_are_reported_beside_a_digest(two: tuple[Path, Path]) -> None:
    one, _ = two
    stated(one, tools=tools())
    assert against(one, "0" * 64)[0].endswith("the source files, the manifest or the options differ")
    stated(one, tools=tools() | {"libjpeg": "1.0"})
    told = against(one, "0" * 64)[0]
    assert f"it was written with libjpeg 1.0 (there {tools()['libjpeg']}): other versions can encode" in told


def test_what_is_neither_a_digest_nor_a_folder_is_refused(small: Path) -> None:
    with pytest.raises(UsageError, match="--against: neither a digest nor a folder; found 123"):
        against(small, "123")


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_a_thousand_flipped_bits_are_all_found(small: Path, tmp_path: Path) -> None:
    folder, places = shutil.copytree(small, tmp_path / "task"), random.Random(9)
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.name != ".lock"
    )
    for _ in range(1000):
        path = places.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        data[places.randrange(len(data))] ^= 1 << places.randrange(8)
        path.write_bytes(data)
        assert found(folder), f"{path.name} differs unnoticed"
        path.write_bytes(whole)
    assert found(folder) == []


# --- dense targets

DENSE = cards.DenseCard(
    seg=cards.SegCard(classes=["no", "yes"]),
    points=cards.PointsCard(classes=["cell"], radius_um=None, radius_px=4, exhaustive=True),
    boxes=cards.BoxesCard(classes=["cell"], exhaustive=True),
)


def mask_file(values: Any, mode: str = "L", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


MASK = mask_file([[0, 1], [255, 0], [1, 1]])


def dense_sample(seg: bytes | None = MASK, **changes: Any) -> EncodedSample:
    fields = {"points": [[0, 2.99, 0]], "boxes": [[0, 0, 2, 1.5, 0]]} | changes
    plain = sample("a", **{name: value for name, value in fields.items() if value is not None})
    return replace(plain, seg=seg)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (dense_sample(), None),
        (dense_sample(points=[], boxes=[]), None),
        (dense_sample(None), "3 files for 1 sample"),
        (dense_sample(b"no image"), "a: mask cannot be decoded"),
        (dense_sample(MASK[:-20]), "a: mask cannot be decoded"),
        (
            dense_sample(mask_file([[0, 1]] * 3, "P")),
            "a: mask cannot be decoded: PNG of mode P instead of PNG of mode L",
        ),
        (dense_sample(mask_file([[0, 1]] * 3, "RGB")), "a: mask cannot be decoded: PNG of mode RGB"),
        (dense_sample(mask_file([[0, 1]] * 3, "L", "BMP")), "a: mask cannot be decoded: BMP"),
        (dense_sample(mask_file([[0, 1, 1]] * 2)), "a: mask is not of the image's size"),
        (dense_sample(mask_file([[0, 2]] * 3)), "a: mask has the value 2, which is not a class"),
        (dense_sample(points=[[2, 0, 0]]), "a: points outside the image"),
        (dense_sample(points=[[0, -0.01, 0]]), "a: points outside the image"),
        (dense_sample(points=[[0, 0, 1]]), "a: points of an unknown class"),
        (dense_sample(points=[[0, 0]]), "a: points are not lists of 2 coordinates and a class"),
        (dense_sample(points=[["0", 0, 0]]), "a: points are not lists of 2 coordinates and a class"),
        (dense_sample(points=[[0, float("nan"), 0]]), "a: points are not lists of 2 coordinates and a class"),
        (dense_sample(boxes=[[1, 0, 0, 1, 0]]), "a: boxes outside the image"),
        (dense_sample(boxes=[[0, 0, 2.5, 1, 0]]), "a: boxes outside the image"),
        (dense_sample(boxes=None), "a: no boxes in the JSON"),
    ],
)
def test_dense_targets_are_checked(wrong: EncodedSample, told: str | None, tmp_path: Path) -> None:
    problems = found(written(tmp_path, {"train": [wrong]}, dense=DENSE))
    if told is None:
        assert problems == []
    else:
        assert any(told in problem for problem in problems), problems


def test_a_mask_that_is_not_the_one_of_the_index_is_found(tmp_path: Path) -> None:
    class Lying(EncodedSample):
        def members(self) -> list[tuple[str, bytes]]:
            files = super().members()
            files[2] = files[2][0], mask_file([[1, 1], [255, 0], [1, 1]])
            return files

    plain = dense_sample()
    lying = Lying(plain.key, plain.image, plain.format, plain.label, plain.metadata, seg=plain.seg)
    assert "train-000000.tar: a: mask differs from the index" in found(
        written(tmp_path, {"train": [lying]}, dense=DENSE)
    )


def test_targets_that_the_card_does_not_state_are_found(tmp_path: Path) -> None:
    only = cards.DenseCard(seg=DENSE.seg, points=DENSE.points)
    assert found(written(tmp_path, {"train": [dense_sample()]}, dense=only)) == [
        "train-000000.tar: a: boxes in the JSON, but not in the card",
        "train-000000.tar: a: number of objects differs from the index",
    ]
